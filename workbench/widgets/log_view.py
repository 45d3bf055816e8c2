"""Lines at any rate: only what is on the screen is ever rendered."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.base.patterns import Pattern, SlowPattern
from engine.errors import InvalidInput
from workbench.state import neutral

MAX_LINES = 200_000
SLACK = 10_000  # lines beyond it before the oldest go, so that not every new line moves all others
MAX_LINE = 4000  # characters of one line that are shown
CACHE = 512


@dataclass(frozen=True, slots=True)
class Line:
    """`stream` "workbench" is a rule between generations."""

    text: str
    stream: str = "stdout"


class LogView(ScrollView, can_focus=True):
    """Follows its end until the reader scrolls up; `end` follows again. A filter shows the matching lines alone.

    A line wider than the pane goes on in the next row; a rule is shortened in its middle.
    """

    BINDINGS = [
        Binding("j,down", "scroll_down", "Down", show=False, id="log.down"),
        Binding("k,up", "scroll_up", "Up", show=False, id="log.up"),
        Binding("g,home", "top", "Top", show=False, id="log.top"),
        Binding("G,end", "bottom", "Follow", show=False, id="log.bottom"),
    ]
    COMPONENT_CLASSES = {"log--rule", "log--stderr", "log--empty"}
    following: reactive[bool] = reactive(True)

    def __init__(self, *, id: str, empty: str) -> None:
        super().__init__(id=id)
        self._all: list[Line] = []
        self._rows: list[tuple[Line, int, int]] = []  # a line, and the cells of it that the row shows
        self._filter: Pattern[str] | None = None
        self._empty = empty
        self._strips: OrderedDict[int, Strip] = OrderedDict()  # by row
        self._width = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def lines(self) -> list[Line]:
        """The lines that the filter lets through."""
        return [line for line in self._all if self._matches(line)]

    def clear(self) -> None:
        self._all = []
        self._wrap()

    def append(self, lines: Iterable[Line]) -> None:
        new = [Line(line.text[:MAX_LINE], line.stream) for line in lines]
        self._all += new
        if len(self._all) > MAX_LINES + SLACK:
            self._all = self._all[-MAX_LINES:]
            self._wrap()
        else:
            self._rows += self._rows_of(new)
            self._resize()
        if self.following:
            self._to_end()

    def filter(self, text: str) -> None:
        """Shows only lines that contain `text` (a regular expression where it is one); "" shows all."""
        self._filter = Pattern(text, ignore_case=True, literal=True) if text else None
        with contextlib.suppress(InvalidInput):
            self._filter = Pattern(text, ignore_case=True) if text else None
        self._wrap()
        self._to_end()

    def _matches(self, line: Line) -> bool:
        if self._filter is None or line.stream == "workbench":
            return True
        try:
            return self._filter.found_in(line.text)
        except SlowPattern as error:  # then it is taken for words
            self._filter = Pattern(error.pattern, ignore_case=True, literal=True)
            return self._filter.found_in(line.text)

    def _rows_of(self, lines: Iterable[Line]) -> list[tuple[Line, int, int]]:
        width = self._width or MAX_LINE
        return [(line, *span) for line in lines if self._matches(line) for span in _spans(line, width)]

    def _wrap(self) -> None:
        self._rows = self._rows_of(self._all)
        self._strips.clear()
        self._resize()

    def _resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), max(1, len(self._rows)))
        self.refresh()

    def _to_end(self) -> None:
        self.scroll_end(animate=False, immediate=True, x_axis=False)

    def on_resize(self) -> None:
        if self._width != self.scrollable_content_region.width:
            self._width = self.scrollable_content_region.width
            following = self.following
            self._wrap()
            if following:
                self._to_end()

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self.following = new >= self.max_scroll_y

    def action_top(self) -> None:
        self.scroll_home(animate=False)

    def action_bottom(self) -> None:
        self.following = True
        self.scroll_end(animate=False)

    def render_line(self, y: int) -> Strip:
        index, width = int(self.scroll_offset.y) + y, self.scrollable_content_region.width
        if not self._rows:
            text = self._empty if y == 0 else ""
            return Strip([Segment(text, self._style("log--empty"))]).adjust_cell_length(width, self.rich_style)
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        strip = self._strips.get(index)
        if strip is None or strip.cell_length != width:
            strip = self._strips[index] = self._draw(*self._rows[index], width)
            if len(self._strips) > CACHE:
                self._strips.popitem(last=False)
        return strip

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name)

    def _draw(self, line: Line, start: int, end: int, width: int) -> Strip:
        base = self.rich_style
        if line.stream == "workbench":
            return Strip([Segment(rule(line.text, width), self._style("log--rule"))]).adjust_cell_length(width, base)
        text_style = self._style("log--stderr") if line.stream == "stderr" else base
        rich = Text.from_ansi(neutral(line.text, colours=True), style=text_style, no_wrap=True, end="")
        segments = [Segment(s.text, base + (s.style or Style())) for s in rich.render(self.app.console) if s.text]
        return Strip(segments).crop(start, end).adjust_cell_length(width, base)


def _spans(line: Line, width: int) -> list[tuple[int, int]]:
    """The rows of a line as ranges of cells: broken behind a space where one is near the end. A rule has one row."""
    if line.stream == "workbench":
        return [(0, width)]
    text = line.text if line.text.isascii() and line.text.isprintable() else neutral(line.text)
    cells = cell_len(text)
    if cells <= width:
        return [(0, width)]
    spans, start = [], 0
    while cells - start > width:
        # Where a character is wider than a cell, indexes are no cells: then a row ends where it is full.
        space = text.rfind(" ", start + width // 2, start + width) if len(text) == cells else -1
        end = space + 1 if space > 0 else start + width
        spans.append((start, end))
        start = end
    return [*spans, (start, start + width)]


def rule(text: str, width: int) -> str:
    """`── text ────`, as wide as the pane. Where the text is too long its last part (the time it took) stays."""
    body = neutral(text).strip("─ ")
    room = max(1, width - 4)
    if cell_len(body) > room:
        head, dot, tail = body.rpartition(" · ")
        tail = f"…{dot}{tail}" if dot else "…"
        body = set_cell_size(head or body, max(0, room - cell_len(tail))) + tail
    return f"── {body} " + "─" * max(0, width - cell_len(body) - 4)
