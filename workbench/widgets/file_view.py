"""Rows of a tree of files, of any number: the widget asks for those that it lacks with `Wanted` and draws what is on the screen.

Engine-free but for the record of a row.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.base.units import human_size
from workbench.state import neutral
from workbench.table import set_text

if TYPE_CHECKING:
    from engine.api import TreeRow

KNOWN = 4000  # rows that are kept
AHEAD = 200  # rows that are asked for beyond the screen, on either side
SIGNS = {"": " ", "A": "+", "M": "~", "D": "-"}
_STYLES = {"A": "added", "M": "modified", "D": "removed"}
OWNER_FROM, MODE_FROM, LAYER_FROM = 88, 72, 56  # cells of width from which these columns show


class FileView(ScrollView, can_focus=True):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("j,down", "move(1)", "Down", show=False, id="tree.down", tooltip="One row down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="tree.up", tooltip="One row up"),
        Binding("g,home", "edge(-1)", "Top", show=False, id="tree.top", tooltip="To the first row"),
        Binding("G,end", "edge(1)", "Bottom", show=False, id="tree.bottom", tooltip="To the last row"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="tree.page_down", tooltip="A screen down"),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="tree.page_up", tooltip="A screen up"),
    ]  # fmt: skip
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "tree--cursor", "tree--added", "tree--modified", "tree--removed", "tree--folder", "tree--dim",
    }  # fmt: skip
    DEFAULT_CSS = """
    FileView { overflow-x: hidden; }
    FileView > .tree--cursor { background: $foreground 12%; }
    FileView:focus > .tree--cursor { background: $accent 30%; text-style: bold; }
    FileView > .tree--added { color: $success; }
    FileView > .tree--modified { color: $warning; }
    FileView > .tree--removed { color: $error; text-style: strike; }
    FileView > .tree--folder { text-style: bold; }
    FileView > .tree--dim { color: $foreground 55%; }
    """

    class Wanted(Message):
        """Rows that the view would draw and does not have."""

        def __init__(self, first: int, count: int) -> None:
            super().__init__()
            self.first, self.count = first, count

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, FileView.Wanted)

    class Moved(Message):
        """The cursor stands on another row, or that row is known now."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, FileView.Moved)

    class Clicked(Message):
        """The row under the cursor was clicked again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.count = 0
        self.cursor = 0
        self._known: OrderedDict[int, TreeRow] = OrderedDict()
        self._asked: tuple[int, int] | None = None

    def show(self, count: int, first: int = 0, rows: Sequence[TreeRow] = (), *, cursor: int | None = None) -> None:
        """There are `count` rows now, and row numbers mean others than before; of these come `rows`, from `first` on."""
        self.count = count
        self._known.clear()
        self._asked = None
        self.cursor = max(0, min(self.cursor if cursor is None else cursor, count - 1))
        self.virtual_size = Size(max(1, self.scrollable_content_region.width), max(1, count))
        self.supply(first, rows)
        self._keep_in_view()
        self.post_message(self.Moved())

    def supply(self, first: int, rows: Sequence[TreeRow]) -> None:
        for number, row in enumerate(rows, first):
            self._known[number] = row
            self._known.move_to_end(number)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        self._asked = None
        self.refresh()
        if first <= self.cursor < first + len(rows):
            self.post_message(self.Moved())

    def row(self, number: int) -> TreeRow | None:
        return self._known.get(number)

    @property
    def selected(self) -> TreeRow | None:
        return self._known.get(self.cursor)

    @property
    def window(self) -> tuple[int, int]:
        """First row and number of rows that are worth having: the screen and some around it."""
        top = int(self.scroll_offset.y)
        height = max(1, self.scrollable_content_region.height)
        first = max(0, top - AHEAD)
        return first, top + height + AHEAD - first

    def on_resize(self, event: Resize) -> None:
        self.virtual_size = Size(max(1, self.scrollable_content_region.width), max(1, self.count))
        self._keep_in_view()

    # --- drawing ------------------------------------------------------------------------------------------------

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"tree--{name}", partial=True)

    def render_line(self, y: int) -> Strip:
        width, base = self.scrollable_content_region.width, self.rich_style
        number = int(self.scroll_offset.y) + y
        if number >= self.count:
            return Strip.blank(width, base)
        if number == self.cursor:
            # Not partial: a partial style has the background of the theme's variable without its share of opacity.
            behind = self.get_component_rich_style("tree--cursor").bgcolor
            base = base + (Style(bgcolor=behind, bold=self.has_focus) if behind is not None else Style(reverse=True))
        row = self._known.get(number)
        if row is None:
            if self._asked is None:
                self._asked = self.window
                self.post_message(self.Wanted(*self.window))
            return Strip([Segment("  …", base + self._style("dim"))]).adjust_cell_length(width, base)
        return Strip([Segment(text, base + style) for text, style in self._pieces(row, width)]).adjust_cell_length(
            width, base
        )

    def _pieces(self, row: TreeRow, width: int) -> list[tuple[str, Style]]:
        dim = self._style("dim")
        mark = self._style(_STYLES[row.mark]) if row.mark else Style()
        folder = row.kind == "dir"
        pieces = [(f"{SIGNS[row.mark]} ", mark)]
        if width >= MODE_FROM:
            pieces.append((f"{mode_text(row)} ", dim))
        if width >= OWNER_FROM:
            pieces.append((f"{set_text(f'{row.uid}:{row.gid}', 11)} ", dim))
        pieces.append((f"{human_size(row.size) if row.kind in ('dir', 'file') else '':>8} ", Style()))
        if width >= LAYER_FROM:
            pieces.append((f"{'#' + str(row.layer):>4} ", dim))
        indent = "  " * min(row.depth, max(0, (width - 30) // 2)) if width > 30 else " " * min(row.depth, 6)
        sign = ("▾ " if row.open else "▸ ") if folder else "  "
        name = neutral(row.name) + ("/" if folder else "")
        pieces.append((indent + sign, dim))
        pieces.append((name, mark + self._style("folder") if folder else mark))
        if row.link:
            pieces.append((f" → {neutral(row.link)}", dim))
        return pieces

    # --- moving -------------------------------------------------------------------------------------------------

    def go_to(self, row: int) -> None:
        row = max(0, min(row, self.count - 1))
        if row != self.cursor:
            self.cursor = row
            self.refresh()
            self._keep_in_view()
            self.post_message(self.Moved())

    def _keep_in_view(self) -> None:
        height = self.scrollable_content_region.height
        if not height:
            return
        top = int(self.scroll_offset.y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def action_move(self, step: int) -> None:
        self.go_to(self.cursor + step)

    def action_page(self, step: int) -> None:
        self.go_to(self.cursor + step * max(1, self.scrollable_content_region.height - 1))

    def action_edge(self, side: int) -> None:
        self.go_to(0 if side < 0 else self.count - 1)

    def on_click(self, event: Click) -> None:
        number = int(self.scroll_offset.y) + event.y
        if number < self.count:
            again = number == self.cursor
            self.go_to(number)
            if again:
                self.post_message(self.Clicked())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.prevent_default().stop()
        self.go_to(self.cursor + 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.prevent_default().stop()
        self.go_to(self.cursor - 3)


def mode_text(row: TreeRow) -> str:
    """`drwxr-xr-x`, as ls(1) has it."""
    kinds = {
        "dir": stat.S_IFDIR,
        "link": stat.S_IFLNK,
        "fifo": stat.S_IFIFO,
        "char": stat.S_IFCHR,
        "block": stat.S_IFBLK,
    }
    return stat.filemode(kinds.get(row.kind, stat.S_IFREG) | row.mode)
