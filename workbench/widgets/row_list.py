"""A list of any length: only rows on the screen are drawn, and only those again that have changed.

Engine-free: rows are a key and texts. The cursor stays on its row while rows come, go and change their order; so do marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.table import ROOMY, Column, Matcher, fit, natural_key, set_text

Row = tuple[str, tuple[str, ...]]
MARK, GUTTER = "◆", 2  # cells before the first column
TITLES_FROM = 6  # rows of height from which there is a line of titles


class RowList(ScrollView, can_focus=True):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("j,down", "move(1)", "Down", show=False, id="list.down", tooltip="One row down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="list.up", tooltip="One row up"),
        Binding("g,home", "edge(-1)", "Top", show=False, id="list.top", tooltip="To the first row"),
        Binding("G,end", "edge(1)", "Bottom", show=False, id="list.bottom", tooltip="To the last row"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="list.pagedown", tooltip="A screen down"),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="list.pageup", tooltip="A screen up"),
        Binding("enter", "choose", "Open", show=False, id="list.open", tooltip="Open what the row is about"),
        Binding("space", "mark", "Mark", show=False, id="list.mark", tooltip="Mark the row: actions are about all marked ones"),
        Binding("v", "mark_range", "Mark range", show=False, id="list.range", tooltip="Mark all rows from the last mark to here"),
        Binding("asterisk", "mark_all", "Mark all", show=False, id="list.all", tooltip="Mark all rows that show, or none"),
        Binding("o", "sort(1)", "Sort", show=False, id="list.sort", tooltip="Sort by the next column"),
        Binding("O", "reverse", "Reverse", show=False, id="list.reverse", tooltip="Turn the order around"),
    ]  # fmt: skip
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row--title",
        "row--cursor",
        "row--mark",
        "row--success",
        "row--warning",
        "row--error",
        "row--accent",
        "row--dim",
        "row--bold",
    }

    class Moved(Message):
        """The cursor stands on another row, or on a row that changed."""

    class Chosen(Message):
        """Enter on a row."""

    class Marked(Message):
        """Other rows are marked, the filter or the order is another one: what a title counts has changed."""

    def __init__(self, *, id: str, columns: Sequence[Column]) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._all: dict[str, tuple[str, ...]] = {}
        self._records: Mapping[str, Any] = {}
        self._keys: list[str] = []  # of the rows that show, in their order
        self._at: dict[str, int] = {}
        self._cursor = 0
        self._widths: list[int] = []
        self._gap = 2  # cells between two columns
        self._titles = False
        self._strips: dict[tuple[str, bool, bool, bool], Strip] = {}
        self._from = ""  # where the last mark was set
        self.marked: set[str] = set()
        self.filter_text = ""
        self.sorted_by: tuple[int, bool] | None = None  # a column, and whether the order is turned around

    # --- what it shows ------------------------------------------------------------------------------------------

    @property
    def keys(self) -> list[str]:
        return self._keys

    @property
    def total(self) -> int:
        """Rows, also those that the filter hides."""
        return len(self._all)

    @property
    def selected(self) -> str:
        """The key of the row under the cursor, "" when there is none."""
        return self._keys[self._cursor] if 0 <= self._cursor < len(self._keys) else ""

    def shows(self, column: int) -> bool:
        """Whether there is room for this column."""
        return any(self._widths[column : column + 1])

    def show(self, rows: Sequence[Row], records: Mapping[str, Any] | None = None) -> None:
        """The rows as they are now. `records` by key are what columns with a `key` sort by."""
        before = self._all
        now = dict(rows)
        self._records = records or {}
        if now == before and list(now) == list(before):
            return
        self._all = now
        gone = self.marked - now.keys()
        self.marked -= gone
        same_rows = list(now) == list(before) and not self.filter_text and self.sorted_by is None
        layout = self._measure() if self._room else self._layout
        if same_rows and layout == self._layout:
            for key in self._keys:
                if now[key] != before[key]:
                    self._redraw([key], self._span(before[key], now[key]))
        else:
            self._rebuild(layout)
        if gone:
            self.post_message(self.Marked())

    def select(self, key: str) -> None:
        if key in self._at:
            self._go(self._at[key], tell=False)

    def filter(self, text: str) -> None:
        self.filter_text = text
        self._rebuild(self._layout)
        self.post_message(self.Marked())
        self.post_message(self.Moved())

    def sort(self, by: tuple[int, bool] | None) -> None:
        self.sorted_by = by
        self._rebuild(self._layout)
        self.post_message(self.Marked())

    def _rebuild(self, layout: tuple[list[int], int] | None = None) -> None:
        """Which rows show, and in which order."""
        kept, at = self.selected, self._cursor
        self._keys = list(self._all)
        if self.filter_text:
            matches = Matcher(self.filter_text)
            self._keys = [key for key in self._keys if matches(self._all[key])]
        if self.sorted_by is not None:
            column, turned = self.sorted_by
            self._keys.sort(key=self._sort_key(column), reverse=turned)
        self._at = {key: index for index, key in enumerate(self._keys)}
        self._cursor = self._at.get(kept, max(0, min(at, len(self._keys) - 1)))
        self._lay_out(layout)
        self._keep_in_view()

    def _sort_key(self, column: int) -> Callable[[str], Any]:
        of = self._columns[column].key
        if of is None:
            return lambda key: natural_key(self._all[key][column])
        return lambda key: of(self._records[key])

    @property
    def _layout(self) -> tuple[list[int], int]:
        """Widths and the gap, as they are: neither a filter nor an order changes them."""
        return self._widths, self._gap

    @property
    def _room(self) -> Size:
        """Of the rows: without a scroll bar."""
        return self.scrollable_content_region.size

    # --- widths ---------------------------------------------------------------------------------------------------

    def watch_show_vertical_scrollbar(self) -> None:
        """It takes a column from the rows, or gives it back."""
        self._lay_out()

    def on_resize(self, event: Resize) -> None:
        self._lay_out()
        self._keep_in_view()

    def _lay_out(self, layout: tuple[list[int], int] | None = None) -> None:
        if not self._room:
            return
        self._widths, self._gap = layout if layout and layout[0] else self._measure()
        self._strips.clear()
        self.virtual_size = Size(max(1, self._room.width), max(1, len(self._keys) + self._titles))
        self.refresh()

    def _measure(self) -> tuple[list[int], int]:
        """Widths and the gap, over all rows, also those that a filter hides: so that columns stay where they are while one types."""
        width = self._room.width - GUTTER
        self._titles = (
            bool(self._all) and self._room.height >= TITLES_FROM and any(each.title for each in self._columns)
        )
        natural = [column.least for column in self._columns]
        for cells in self._all.values():
            for i, cell in enumerate(cells):
                size = len(cell) if cell.isascii() else cell_len(cell)
                if size > natural[i]:
                    natural[i] = size
        if width < ROOMY:
            for i, column in enumerate(self._columns):
                if column.short:
                    natural[i] = max((cell_len(column.short.get(c[i], c[i])) for c in self._all.values()), default=0)
        if self._titles:
            natural = [
                max(size, len(column.title)) if size else 0 for size, column in zip(natural, self._columns, strict=True)
            ]
        for gap in (2, 1) if width >= ROOMY else (1,):
            widths = fit(natural, self._columns, max(0, width), gap)
            full = (min(size, column.cap or size) for size, column in zip(natural, self._columns, strict=True))
            if all(size <= got for size, got, column in zip(full, widths, self._columns, strict=True) if column.drop):
                break  # else columns stand closer before one of them goes
        return widths, gap

    # --- drawing --------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width = self._room.width
        if self._titles and y == 0:
            return self._title_strip(width)
        index = int(self.scroll_offset.y) + y - self._titles
        if not 0 <= index < len(self._keys):
            return Strip.blank(width, self.rich_style)
        key = self._keys[index]
        state = (key, index == self._cursor, self.has_focus, key in self.marked)
        strip = self._strips.get(state)
        if strip is None or strip.cell_length != width:
            strip = self._strips[state] = self._row_strip(*state).adjust_cell_length(width, self.rich_style)
        return strip

    def _title_strip(self, width: int) -> Strip:
        style = self.get_component_rich_style("row--title")
        titles = []
        for i, column in enumerate(self._columns):
            arrow = ""
            if self.sorted_by is not None and self.sorted_by[0] == i:
                arrow = "▼" if self.sorted_by[1] else "▲"
            titles.append(column.title + arrow)
        text = " " * GUTTER + "".join(part for part, _ in self._texts(tuple(titles)))
        return Strip([Segment(text, style)]).adjust_cell_length(width, style)

    def _texts(self, cells: tuple[str, ...]) -> list[tuple[str, str]]:
        """A row's pieces with the name of their style. Cut to the widths, with the gaps between."""
        pieces: list[tuple[str, str]] = []
        roomy = self._room.width - GUTTER >= ROOMY
        gap = " " * self._gap
        for cell, column, width in zip(cells, self._columns, self._widths, strict=False):
            if width:
                text = cell if roomy else column.short.get(cell, cell)
                if pieces:
                    pieces.append((gap, ""))
                pieces.append(
                    (
                        set_text(text, width, column.right, ends=column.ends),
                        column.styles.get(cell, column.styles.get("", "")),
                    )
                )
        return pieces

    def _row_strip(self, key: str, cursor: bool, focus: bool, marked: bool) -> Strip:
        base = self.rich_style
        under = Style()
        if cursor:
            under = self.get_component_rich_style("row--cursor")
            if under.bgcolor is None:
                under += Style(reverse=True)
            base = base + under
        mark = self._named("mark") if marked and not (cursor and focus) else Style()  # accent on accent is not seen
        lead = (MARK if marked else "▸" if cursor and focus else " ") + " "
        segments = [Segment(lead, base + mark)]
        for text, name in self._texts(self._all[key]):
            named = self._named(name) if name else Style()
            style = base if named.color == base.bgcolor else base + named  # as with sixteen colours
            if cursor and focus:
                style += Style(bold=True)
            segments.append(Segment(text, style))
        return Strip(segments)

    def _named(self, name: str) -> Style:
        """The colour and weight alone: what is behind it is the row's."""
        style = self.get_component_rich_style(f"row--{name}")
        return Style(color=style.color, bold=style.bold, dim=style.dim)

    def _span(self, before: tuple[str, ...], now: tuple[str, ...]) -> tuple[int, int]:
        """From the first to the last cell of a row in which it is another one, in cells of the screen."""
        x = GUTTER
        first, last = self._room.width, 0
        for old, new, width in zip(before, now, self._widths, strict=False):
            if width:
                if old != new:
                    first, last = min(first, x), x + width
                x += width + self._gap
        return first, max(first, last)

    def _redraw(self, keys: Any, span: tuple[int, int] | None = None) -> None:
        """These rows again, or a span of their cells."""
        top, height, shift = int(self.scroll_offset.y), self._room.height, int(self._titles)
        for key in keys:
            for state in [state for state in self._strips if state[0] == key]:
                del self._strips[state]
            y = self._at.get(key, -1) - top + shift
            if shift <= y < height:
                first, last = span or (0, self._room.width)
                self.refresh(Region(first, y, last - first, 1))

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def watch_has_focus(self, _has_focus: bool) -> None:
        super().watch_has_focus(_has_focus)
        if self.selected:
            self._redraw([self.selected])

    # --- the cursor -------------------------------------------------------------------------------------------------

    def _go(self, index: int, *, tell: bool = True) -> None:
        index = max(0, min(index, len(self._keys) - 1))
        if index == self._cursor or not self._keys:
            return
        before = self.selected
        self._cursor = index
        self._redraw([before, self.selected])
        self._keep_in_view()
        if tell:
            self.post_message(self.Moved())

    def _keep_in_view(self) -> None:
        room = max(1, self._room.height - self._titles)
        top = int(self.scroll_offset.y)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + room:
            self.scroll_to(y=self._cursor - room + 1, animate=False)

    def action_move(self, step: int) -> None:
        self._go(self._cursor + step)

    def action_page(self, step: int) -> None:
        self._go(self._cursor + step * max(1, self._room.height - self._titles - 1))

    def action_edge(self, side: int) -> None:
        self._go(0 if side < 0 else len(self._keys) - 1)

    def action_choose(self) -> None:
        if self.selected:
            self.post_message(self.Chosen())

    def on_click(self, event: Click) -> None:
        index = int(self.scroll_offset.y) + event.y - self._titles
        if event.y >= self._titles and 0 <= index < len(self._keys):
            again = index == self._cursor
            self._go(index)
            if event.chain > 1 and again:
                self.post_message(self.Chosen())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.prevent_default().stop()
        self._go(self._cursor + 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.prevent_default().stop()
        self._go(self._cursor - 3)

    # --- marks and order --------------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        key = self.selected
        if key:
            self.marked ^= {key}
            self._from = key
            self._redraw([key])
            self._go(self._cursor + 1)
            self.post_message(self.Marked())

    def action_mark_range(self) -> None:
        start = self._at.get(self._from, self._cursor)
        low, high = sorted((start, self._cursor))
        self._mark(self.marked | set(self._keys[low : high + 1]))

    def action_mark_all(self) -> None:
        shown = set(self._keys)
        self._mark(self.marked - shown if shown <= self.marked else self.marked | shown)

    def unmark(self) -> None:
        self._mark(set())

    def _mark(self, keys: set[str]) -> None:
        changed = self.marked ^ keys
        self.marked = keys
        self._redraw(changed)
        self.post_message(self.Marked())

    def action_sort(self, step: int) -> None:
        """By the next column that shows and has a title; after the last one as the rows came."""
        able = [i for i, column in enumerate(self._columns) if column.title and self._widths[i : i + 1] != [0]]
        if not able:
            return
        now = able.index(self.sorted_by[0]) + step if self.sorted_by and self.sorted_by[0] in able else 0
        self.sort((able[now], False) if now < len(able) else None)

    def action_reverse(self) -> None:
        if self.sorted_by is not None:
            self.sort((self.sorted_by[0], not self.sorted_by[1]))
