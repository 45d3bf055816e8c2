"""Lines at any rate: only what is on the screen is ever rendered."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from workbench.state import neutral

MAX_LINES = 200_000
MAX_LINE = 4000  # characters of one line that are shown
CACHE = 512


@dataclass(frozen=True, slots=True)
class Line:
    """`stream` "workbench" is a rule between generations."""

    text: str
    stream: str = "stdout"


class LogView(ScrollView, can_focus=True):
    """Follows its end until the reader scrolls up; `end` follows again. A filter shows the matching lines alone."""

    BINDINGS = [
        Binding("j,down", "scroll_down", "Down", show=False, id="log.down"),
        Binding("k,up", "scroll_up", "Up", show=False, id="log.up"),
        Binding("g,home", "top", "Top", show=False, id="log.top"),
        Binding("G,end", "bottom", "Follow", show=False, id="log.bottom"),
    ]
    following: reactive[bool] = reactive(True)

    def __init__(self, *, id: str, empty: str) -> None:
        super().__init__(id=id)
        self._all: list[Line] = []
        self._shown: list[Line] = []
        self._filter: re.Pattern[str] | None = None
        self._empty = empty
        self._strips: OrderedDict[tuple[int, int], Strip] = OrderedDict()
        self._first = 0  # lines dropped so far: keeps cache keys apart

    def __len__(self) -> int:
        return len(self._all)

    @property
    def lines(self) -> list[Line]:
        return list(self._shown)

    def clear(self) -> None:
        self._all, self._shown = [], []
        self._strips.clear()
        self._resize()

    def append(self, lines: Iterable[Line]) -> None:
        new = [Line(line.text[:MAX_LINE], line.stream) for line in lines]
        self._all += new
        self._shown += [line for line in new if self._matches(line)] if self._filter else new
        if len(self._all) > MAX_LINES:
            dropped = len(self._all) - MAX_LINES
            self._first += dropped
            self._all = self._all[dropped:]
            self._shown = [line for line in self._all if self._matches(line)]
        self._resize()
        if self.following:
            self.scroll_end(animate=False, immediate=True, x_axis=False)

    def filter(self, text: str) -> None:
        """Shows only lines that contain `text` (a regular expression where it is one); "" shows all."""
        try:
            self._filter = re.compile(text, re.IGNORECASE) if text else None
        except re.error:
            self._filter = re.compile(re.escape(text), re.IGNORECASE)
        self._shown = [line for line in self._all if self._matches(line)]
        self._strips.clear()
        self._resize()
        self.scroll_end(animate=False, immediate=True, x_axis=False)

    def _matches(self, line: Line) -> bool:
        return self._filter is None or line.stream == "workbench" or bool(self._filter.search(line.text))

    def _resize(self) -> None:
        self.virtual_size = Size(max(1, self.size.width), max(1, len(self._shown)))
        self.refresh()

    def on_resize(self) -> None:
        self._strips.clear()
        self._resize()

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
        if not self._shown:
            return Strip([Segment(self._empty if y == 0 else "", self._style("log--empty"))]).adjust_cell_length(
                width, self.rich_style
            )
        if index >= len(self._shown):
            return Strip.blank(width, self.rich_style)
        key = (self._first + index, width)
        strip = self._strips.get(key)
        if strip is None:
            strip = self._strips[key] = self._draw(self._shown[index], width)
            if len(self._strips) > CACHE:
                self._strips.popitem(last=False)
        return strip

    COMPONENT_CLASSES = {"log--rule", "log--stderr", "log--empty"}

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name)

    def _draw(self, line: Line, width: int) -> Strip:
        base = self.rich_style
        if line.stream == "workbench":
            text = neutral(line.text).strip("─ ")
            body = f"── {text} "
            fill = "─" * max(0, width - cell_len(body))
            return Strip([Segment(body + fill, self._style("log--rule"))]).adjust_cell_length(width, base)
        text_style = self._style("log--stderr") if line.stream == "stderr" else base
        rich = Text.from_ansi(neutral(line.text, colours=True), style=text_style, no_wrap=True, end="")
        segments = [Segment(s.text, base + (s.style or Style())) for s in rich.render(self.app.console) if s.text]
        return Strip(segments).adjust_cell_length(width, base)
