"""How a row of a log is drawn: its mark, its name, its time, and its text in one or several lines of the screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip

from engine.api import LogRow
from engine.base.patterns import Pattern, SlowPattern
from workbench.widgets import log_format
from workbench.widgets.log_view import rule

if TYPE_CHECKING:
    from workbench.widgets.book_scroll import BookScroller

GUTTER = 2  # cells: a mark, and the sign of stderr
_NAME = 16  # cells of a container's name at most
_NAME_STYLES = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")


@dataclass(frozen=True, slots=True)
class Look:
    """What changes how every row is drawn."""

    wrap: bool = True
    times: bool = False
    readable: bool = True  # lines that are JSON objects as level, message, fields
    names: tuple[str, ...] = ()  # of the sources, where there are several
    search: Pattern[str] | None = None


class Part(NamedTuple):
    """A line of the screen: `lead` cells, then the cells `start` to `end` - 1 of the row's text."""

    strip: Strip
    lead: int
    start: int
    end: int


class RowPainter:
    """Draws rows with the styles of a view. `look` and `marks` (by place) are what it draws them by."""

    def __init__(self, view: BookScroller) -> None:
        self._view = view
        self.look = Look()
        self.marks: set[int] = set()

    def plain(self, row: LogRow) -> str:
        """The text as it is read, without what stands before it."""
        return log_format.safe(row.text) if row.stream == "workbench" else self._text(row).plain

    def paint(self, row: LogRow, width: int, sideways: int = 0) -> list[Part]:
        """The lines of a row. `sideways` are cells that are left of the screen, without wrapping."""
        base = self._view.rich_style
        if row.stream == "workbench":
            strip = Strip([Segment(rule(log_format.safe(row.text), width), self._style("log--rule"))])
            return [Part(strip, 0, 0, width)]
        prefix, look = self._prefix(row), self.look
        text = self._text(row)
        lead = sum(cell_len(segment.text) for segment in prefix)
        room = max(2, width - lead)
        body = Strip(self._segments(text, self._style("log--stderr") if row.stream == "stderr" else base))
        if not look.wrap:
            cut = body.crop(sideways, sideways + room)
            if body.cell_length > sideways + room:
                cut = Strip([*cut.crop(0, room - 1), Segment("›", self._style("log--empty"))])
            return [Part(Strip([*prefix, *cut]), lead, sideways, sideways + room)]
        first, *_more = log_format.spans(text.plain, room)
        parts = [Part(Strip([*prefix, *body.crop(*first)]), lead, *first)]
        if first[1] < body.cell_length:
            behind = body.crop(first[1])
            for start, end in log_format.spans(behind.text, max(2, width - GUTTER)):
                strip = Strip([Segment(" " * GUTTER, base), *behind.crop(start, end)])
                parts.append(Part(strip, GUTTER, first[1] + start, first[1] + end))
        return parts

    def _style(self, name: str) -> Style:
        return self._view.rich_style + self._view.get_component_rich_style(name, partial=True)

    def _segments(self, text: Text, base: Style) -> list[Segment]:
        return [Segment(s.text, base + (s.style or Style())) for s in text.render(self._view.app.console) if s.text]

    def _prefix(self, row: LogRow) -> list[Segment]:
        mark, sign = "◆" if row.place in self.marks else " ", "!" if row.stream == "stderr" else " "
        found = [Segment(mark + sign, self._style("log--stderr" if sign != " " else "log--rule"))]
        if len(self.look.names) > 1:
            size = min(_NAME, max(cell_len(name) for name in self.look.names))
            name = set_cell_size(log_format.safe(self.look.names[row.source]), size)
            colour = _NAME_STYLES[row.source % len(_NAME_STYLES)]
            found.append(Segment(f"{name} │ ", self._view.rich_style + Style(color=colour)))
        if self.look.times:
            found.append(Segment(f"{log_format.clock(row.stamp)} ", self._style("log--time")))
        return found

    def _text(self, row: LogRow) -> Text:
        look = self.look
        fields = log_format.parse_fields(row.text) if look.readable and row.whole else None
        text = log_format.readable(fields) if fields is not None else log_format.styled(row.text)
        if look.search is not None:
            hit = self._view.get_component_rich_style("log--hit")
            try:
                for start, end in look.search.spans(text.plain):
                    if end > start:
                        text.stylize(hit, start, end)
            except SlowPattern:  # whoever counts the hits says so
                self.look = replace(look, search=None)
        return text
