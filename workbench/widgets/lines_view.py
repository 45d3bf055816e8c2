"""Text to read: a file, a difference, what a build said. Only what is on the screen is drawn; it can be searched and copied.

Engine-free. A line may have a gutter (a number, a sign), a style for the whole and spans with styles of their own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

STYLES = ("success", "warning", "error", "accent", "dim", "bold")
_LONGEST = 10_000  # characters of a line that are shown


@dataclass(frozen=True, slots=True)
class TextLine:
    """`style` and those of `spans` (start, end, style) are words of STYLES. `key` is for the owner: what the line is about."""

    text: str
    style: str = ""
    gutter: str = ""
    spans: tuple[tuple[int, int, str], ...] = ()
    key: str = ""


class LinesView(ScrollView, can_focus=True):
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("j,down", "move(1)", "Down", show=False, id="lines.down", tooltip="One line down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="lines.up", tooltip="One line up"),
        Binding("g,home", "edge(-1)", "Top", show=False, id="lines.top", tooltip="To the first line"),
        Binding("G,end", "edge(1)", "Bottom", show=False, id="lines.bottom", tooltip="To the last line"),
        Binding("pagedown,ctrl+f,ctrl+d", "page(1)", "Page down", show=False, id="lines.page_down", tooltip="A screen down"),
        Binding("pageup,ctrl+b,ctrl+u", "page(-1)", "Page up", show=False, id="lines.page_up", tooltip="A screen up"),
        Binding("n", "hit(1)", "Next", show=False, id="lines.next", tooltip="Next hit of the search"),
        Binding("N", "hit(-1)", "Before", show=False, id="lines.before", tooltip="Hit before this one"),
        Binding("W", "wrap", "Wrap", show=False, id="lines.wrap", tooltip="Go on below, or to the right, where a line is too long"),
        Binding("left", "sideways(-8)", "Left", show=False, id="lines.left", tooltip="To the left, without wrapping"),
        Binding("right", "sideways(8)", "Right", show=False, id="lines.right", tooltip="To the right, without wrapping"),
    ]  # fmt: skip
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lines--gutter", "lines--cursor", "lines--hit", "lines--empty", *(f"lines--{name}" for name in STYLES),
    }  # fmt: skip
    DEFAULT_CSS = """
    LinesView { overflow-x: hidden; }
    LinesView > .lines--gutter { color: $foreground 45%; }
    LinesView > .lines--empty { color: $foreground 50%; }
    LinesView > .lines--cursor { background: $foreground 12%; }
    LinesView:focus > .lines--cursor { background: $accent 30%; }
    LinesView > .lines--hit { background: $warning; color: $background; text-style: bold; }
    LinesView > .lines--success { color: $success; }
    LinesView > .lines--warning { color: $warning; }
    LinesView > .lines--error { color: $error; text-style: bold; }
    LinesView > .lines--accent { color: $accent; }
    LinesView > .lines--dim { color: $foreground 55%; }
    LinesView > .lines--bold { text-style: bold; }
    """

    class Moved(Message):
        """The cursor stands on another line, or the search found something else."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LinesView.Moved)

    def __init__(self, *, id: str | None = None, empty: str = "", follow: bool = False) -> None:
        super().__init__(id=id)
        self.empty = empty
        self.wrap = True
        self.cursor = 0
        self.following = follow  # the end, until the reader goes up
        self._follows = follow
        self._lines: list[TextLine] = []
        self._rows: list[tuple[int, int, int]] = []  # line, first and last character
        self._starts: list[int] = []  # the first row of each line
        self._gutter = 0
        self._sideways = 0
        self._width = 0
        self._search: re.Pattern[str] | None = None
        self.hits: list[int] = []  # lines

    # --- what it shows ------------------------------------------------------------------------------------------

    @property
    def lines(self) -> Sequence[TextLine]:
        return self._lines

    @property
    def line(self) -> TextLine | None:
        """Under the cursor."""
        return self._lines[self.cursor] if 0 <= self.cursor < len(self._lines) else None

    def set(self, lines: Iterable[TextLine], *, cursor: int | None = None, above: int | None = None) -> None:
        """Other lines. The cursor stays where it was unless it is said; `above` so many rows show above it."""
        self._lines = list(lines)
        self.cursor = max(0, min(self.cursor if cursor is None else cursor, len(self._lines) - 1))
        self._lay_out()
        self._find()
        if self.following and cursor is None:
            self.cursor = max(0, len(self._lines) - 1)
        if above is not None and self._starts:
            self.scroll_to(y=max(0, self._starts[self.cursor] - above), animate=False, force=True)
        self._keep_in_view()

    def append(self, lines: Iterable[TextLine]) -> None:
        new = list(lines)
        first = len(self._lines)
        self._lines += new
        gutter = max((cell_len(line.gutter) for line in new), default=0)
        if gutter > self._gutter:
            self._lay_out()
        else:
            self._break(first)
            self._resize()
        if self._search is not None:
            self._find()
        if self.following:
            self.cursor = max(0, len(self._lines) - 1)
            self._keep_in_view()
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        if self.scrollable_content_region.width != self._width:
            self._lay_out()
        self._keep_in_view()

    def _lay_out(self) -> None:
        self._width = self.scrollable_content_region.width
        self._gutter = max((cell_len(line.gutter) for line in self._lines), default=0)
        self._rows, self._starts = [], []
        self._break(0)
        self._resize()
        self.refresh()

    @property
    def _room(self) -> int:
        return max(1, self._width - self._gutter - (1 if self._gutter else 0))

    def _break(self, first: int) -> None:
        room = self._room
        for number in range(first, len(self._lines)):
            text = self._lines[number].text
            self._starts.append(len(self._rows))
            if not self.wrap or (len(text) <= room and text.isascii()):
                self._rows.append((number, 0, min(len(text), _LONGEST)))
                continue
            start = 0
            text = text[:_LONGEST]
            while True:
                end = start + fitting(text[start : start + room], room)
                self._rows.append((number, start, end))
                start = end
                if start >= len(text):
                    break

    def _resize(self) -> None:
        self.virtual_size = Size(max(1, self._width), max(1, len(self._rows)))

    # --- drawing ------------------------------------------------------------------------------------------------

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"lines--{name}", partial=True) if name else Style()

    def render_line(self, y: int) -> Strip:
        width, base = self.scrollable_content_region.width, self.rich_style
        at = int(self.scroll_offset.y) + y
        if not self._lines:
            text = self.empty if y == 0 else ""
            return Strip([Segment(text, base + self._style("empty"))]).adjust_cell_length(width, base)
        if at >= len(self._rows):
            return Strip.blank(width, base)
        number, start, end = self._rows[at]
        line = self._lines[number]
        if number == self.cursor:
            # Not partial: a partial style has the background of the theme's variable without its share of opacity.
            behind = self.get_component_rich_style("lines--cursor").bgcolor
            base = base + (Style(bgcolor=behind) if behind is not None else Style(reverse=True))
        segments = []
        if self._gutter:
            gutter = line.gutter if start == 0 else ""
            style = base + self._style("gutter" if line.style not in ("error", "success") else line.style)
            segments.append(Segment(set_cell_size(gutter.rjust(self._gutter), self._gutter) + " ", style))
        if not self.wrap:
            start, end = self._sideways, self._sideways + width
        segments += self._pieces(line, start, end, base)
        return Strip(segments).adjust_cell_length(width, base)

    def _pieces(self, line: TextLine, start: int, end: int, base: Style) -> list[Segment]:
        """The characters `start` to `end` of a line, in as many pieces as there are styles."""
        whole = base + self._style(line.style)
        spans = [span for span in line.spans if span[1] > start and span[0] < end]
        if self._search is not None:
            spans += [(m.start(), m.end(), "hit") for m in self._search.finditer(line.text[:_LONGEST]) if m.end() > m.start()]  # fmt: skip
        edges = sorted({start, end, *(min(max(at, start), end) for span in spans for at in span[:2])})
        pieces = []
        for left, right in itertools.pairwise(edges):
            style = whole
            for first, last, name in spans:
                if first <= left and right <= last:
                    style = style + self._style(name)
            pieces.append(Segment(line.text[left:right], style))
        return pieces

    # --- moving -------------------------------------------------------------------------------------------------

    def go_to(self, line: int) -> None:
        self._go(line)

    def _go(self, line: int) -> None:
        line = max(0, min(line, len(self._lines) - 1))
        self.following = self._follows and line >= len(self._lines) - 1
        if line != self.cursor:
            self.cursor = line
            self.refresh()
            self.post_message(self.Moved())
        self._keep_in_view()

    def _keep_in_view(self) -> None:
        if not self._starts or not self.scrollable_content_region.height:
            return
        height = self.scrollable_content_region.height
        first = self._starts[self.cursor]
        last = self._starts[self.cursor + 1] - 1 if self.cursor + 1 < len(self._starts) else len(self._rows) - 1
        top = int(self.scroll_offset.y)
        if first < top:
            self.scroll_to(y=first, animate=False, force=True)
        elif last >= top + height:
            self.scroll_to(
                y=min(first, last - height + 1) if last - first < height else first, animate=False, force=True
            )

    def action_move(self, step: int) -> None:
        self._go(self.cursor + step)

    def action_page(self, step: int) -> None:
        height = max(1, self.scrollable_content_region.height - 1)
        if not self._starts:
            return
        row = max(0, min(self._starts[self.cursor] + step * height, len(self._rows) - 1))
        self._go(self._rows[row][0])

    def action_edge(self, side: int) -> None:
        self._go(0 if side < 0 else len(self._lines) - 1)

    def action_wrap(self) -> None:
        self.wrap, self._sideways = not self.wrap, 0
        self._lay_out()
        self._keep_in_view()

    def action_sideways(self, step: int) -> None:
        if not self.wrap:
            self._sideways = max(0, self._sideways + step)
            self.refresh()

    def on_click(self, event: Click) -> None:
        at = int(self.scroll_offset.y) + event.y
        if at < len(self._rows):
            self._go(self._rows[at][0])

    # --- searching ----------------------------------------------------------------------------------------------

    def search(self, text: str) -> None:
        """Marks what matches and goes to the first hit from the cursor on. A regular expression if it is one; case counts only if
        there is a capital letter."""
        self._search = compiled(text)
        self._find()
        if self.hits:
            self._go(next((hit for hit in self.hits if hit >= self.cursor), self.hits[0]))
        self.refresh()
        self.post_message(self.Moved())

    def _find(self) -> None:
        search = self._search
        self.hits = [n for n, line in enumerate(self._lines) if search.search(line.text)] if search is not None else []

    def action_hit(self, step: int) -> None:
        if not self.hits:
            return
        later = [hit for hit in self.hits if hit > self.cursor] if step > 0 else [hit for hit in self.hits if hit < self.cursor][::-1]  # fmt: skip
        self._go(later[0] if later else self.hits[0 if step > 0 else -1])

    @property
    def hit_words(self) -> str:
        """`2 of 7 hits`, "" without a search."""
        if self._search is None:
            return ""
        if not self.hits:
            return "no hits"
        before = sum(hit <= self.cursor for hit in self.hits)
        return f"{before} of {len(self.hits)} hits"


def fitting(text: str, room: int) -> int:
    """How many characters of `text` fit into `room` cells; at least one."""
    if text.isascii():
        return len(text)
    cells = 0
    for number, character in enumerate(text):
        cells += cell_len(character)
        if cells > room:
            return max(1, number)
    return len(text)


def compiled(text: str) -> re.Pattern[str] | None:
    if not text:
        return None
    flags = re.NOFLAG if any(character.isupper() for character in text) else re.IGNORECASE
    try:
        return re.compile(text, flags)
    except re.error:
        return re.compile(re.escape(text), flags)
