"""A log of any length on the screen: rows, lines and characters of them selected by keys and by the mouse. See `book_scroll`."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.strip import Strip
from textual.timer import Timer

from engine.api import LogRow
from workbench.widgets import log_format
from workbench.widgets.book_rows import Part
from workbench.widgets.book_scroll import BookScroller
from workbench.widgets.book_select import Spot, at_cell, cell_of, end_of, step_from, word_at, word_step

_DRAG = 1 / 20  # seconds between two lines while a drag is held beyond an edge


class BookView(BookScroller):
    ALLOW_SELECT = False  # it selects by itself: what it draws is not all there is
    BINDINGS = [
        Binding("ctrl+left", "word(-1)", "Word before", show=False, id="log.word_left"),
        Binding("ctrl+right", "word(1)", "Next word", show=False, id="log.word_right"),
        Binding("circumflex_accent", "side(-1)", "Begin of line", show=False, id="log.begin"),
        Binding("dollar_sign", "side(1)", "End of line", show=False, id="log.end"),
    ]
    COMPONENT_CLASSES = {
        "log--rule", "log--stderr", "log--empty", "log--cursor", "log--selected", "log--hit", "log--time",
    }  # fmt: skip
    DEFAULT_CSS = """
    BookView { overflow-x: hidden; overflow-y: scroll; }
    BookView > .log--rule { color: $accent; text-style: bold; }
    BookView > .log--stderr { color: $text-warning; }
    BookView > .log--empty { color: $foreground 50%; }
    BookView > .log--time { color: $foreground 60%; }
    BookView > .log--cursor { background: $foreground 15%; text-style: bold; }
    BookView > .log--selected { background: $accent 35%; }
    BookView > .log--hit { background: $warning; color: $background; text-style: bold; }
    """

    def __init__(self, *, id: str | None = None, empty: str = "") -> None:
        super().__init__(id=id, empty=empty)
        self.select_from: Spot | None = None  # the other end of a selection
        self.by_character = False  # else whole rows are selected
        self.column = 0  # the character of the cursor's row at which a selection by characters ends
        self._pressed: Spot | None = None  # where the mouse was pressed
        self._pointer = (0, 0)
        self._dragged: Timer | None = None

    def restart(self, *, cursor: int | None = None) -> None:
        self.select_from = None
        super().restart(cursor=cursor)

    # --- selecting ----------------------------------------------------------------------------------------

    @property
    def selecting(self) -> bool:
        return self.select_from is not None

    @property
    def selected(self) -> tuple[int, int]:
        """First and last row of the selection; without one both are the cursor's."""
        other = self.cursor if self.select_from is None else self.select_from.row
        return min(self.cursor, other), max(self.cursor, other)

    @property
    def span(self) -> tuple[Spot, Spot] | None:
        """First and last character of a selection by characters."""
        if self.select_from is None or not self.by_character:
            return None
        head = Spot(self.cursor, min(self.column, max(0, len(self.plain(self.cursor)) - 1)))
        return min(self.select_from, head), max(self.select_from, head)

    def plain(self, number: int) -> str:
        """A row's text as it is read; "" when it is not known here."""
        row = self._known.get(number)
        return self.text_of(row) if row is not None else ""

    def text_of(self, row: LogRow) -> str:
        """As it is read here: a line of JSON made readable, if that is how it shows."""
        return self._painter.plain(row)

    def begin_selection(self, *, by_character: bool, start: Spot | None = None) -> None:
        """From the cursor on, or from `start`; one that is begun already only changes its kind."""
        if self.select_from is None:
            self.column = start.at if start else 0
        self.select_from = start or self.select_from or Spot(self.cursor, self.column)
        self.by_character = by_character
        self._follow(False)
        self._settle()
        self._tell()

    def end_selection(self) -> None:
        self.select_from = None
        self._follow(self.cursor >= self._end - 1 and self._at_end())
        self._settle()
        self._tell()

    def _to_column(self, text: str, column: int) -> None:
        """The end of the selection to a character of the cursor's row; what is outside is in the row before or behind."""
        if column < 0 and self.cursor > self._first:
            self.action_move(-1)
            column = max(0, len(self.plain(self.cursor)) - 1)
        elif column >= len(text) and self.cursor < self._end - 1:
            self.action_move(1)
            column = 0
        self.column = max(0, min(column, max(0, len(self.plain(self.cursor)) - 1)))
        self._settle()
        self._tell()

    def action_word(self, step: int) -> None:
        if self.span is not None:
            text = self.plain(self.cursor)
            self._to_column(text, word_step(text, self.column, step))

    def action_side(self, side: int) -> None:
        if self.span is not None:
            text = self.plain(self.cursor)
            self._to_column(text, len(text) - 1 if side > 0 and text else 0)

    def _spot(self, x: int, y: int) -> Spot | None:
        lines = self._lines()
        if not lines:
            return None
        row, index = lines[max(0, min(y, len(lines) - 1))]
        parts = self._parts(row)
        part = parts[min(index, len(parts) - 1)]
        cell = part.start + max(0, min(x - part.lead, part.end - part.start - 1))
        return Spot(row, at_cell(self.plain(row), cell))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1:
            self._pressed = self._spot(event.x, event.y)
            self._pointer = (event.x, event.y)
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._pressed is None or (self._spot(event.x, event.y) == self._pressed and self._dragged is None):
            return
        self._pointer = (event.x, event.y)
        if self._dragged is None:
            self.select_from = None
            self.begin_selection(by_character=True, start=self._pressed)
            self._dragged = self.set_interval(_DRAG, self._drag_on)
        self._drag()

    def _drag_on(self) -> None:
        """The pointer is held above or below the view."""
        if self._pointer[1] < 0:
            self._up(1)
        elif self._pointer[1] >= self.page:
            self._down(1)
        else:
            return
        self._drag()

    def _drag(self) -> None:
        if (spot := self._spot(*self._pointer)) is not None:
            self.cursor, self.column = spot
            self._settle()
            self._tell()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._pressed is None:
            return
        self.release_mouse()
        self._pressed = None
        if self._dragged is not None:
            self._dragged.stop()

    def on_click(self, event: events.Click) -> None:
        """One goes there and ends a selection; two select the word, three the row."""
        dragged, self._dragged = self._dragged, None
        spot = self._spot(event.x, event.y)
        if dragged is not None or spot is None or event.y >= len(self._lines()):
            return
        self.cursor = spot.row
        self.select_from = None
        if event.chain == 1:
            self._follow(self.cursor >= self._end - 1)
            self._settle()
            self._tell()
        else:
            text = self.plain(spot.row)
            first, last = word_at(text, spot.at) if event.chain == 2 else (0, max(0, len(text) - 1))
            self.begin_selection(by_character=True, start=Spot(spot.row, first))
            self.column = last

    def action_sideways(self, step: int) -> None:
        if self.span is not None:
            text = self.plain(self.cursor)
            self._to_column(text, step_from(text, self.column, step))
        else:
            super().action_sideways(step)

    # --- drawing ------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width, lines = self.scrollable_content_region.width, self._lines()
        if not lines and y == 0:
            empty = self._style("log--empty")
            return Strip([Segment(log_format.safe(self.empty), empty)]).adjust_cell_length(width, self.rich_style)
        if y >= len(lines):
            return Strip.blank(width, self.rich_style)
        row, index = lines[y]
        parts = self._parts(row)
        part = parts[min(index, len(parts) - 1)]
        return self._highlighted(part, row).adjust_cell_length(width, self.rich_style)

    def _highlighted(self, part: Part, row: int) -> Strip:
        first, last = self.selected
        span, strip = self.span, part.strip
        if span is not None:
            return self._with_span(part, row, *span) if first <= row <= last else strip
        if self.select_from is not None and first <= row <= last:
            name = "log--selected"
        elif row == self.cursor and not self.following and self.has_focus:
            name = "log--cursor"
        else:
            return strip
        style = self.get_component_rich_style(name)
        return Strip(list(Segment.apply_style(strip, None, style)), strip.cell_length)

    def _with_span(self, part: Part, row: int, first: Spot, last: Spot) -> Strip:
        """The cells of the selected characters; the one at which it ends stands out, for who moves it by keys."""
        text, strip = self.plain(row), part.strip
        start = cell_of(text, first.at) if row == first.row else 0
        end = cell_of(text, end_of(text, last.at)) if row == last.row else part.end
        strip = self._styled(strip, part, start, end, self.get_component_rich_style("log--selected"))
        if row == self.cursor:
            head = first if self.select_from == last and first != last else last
            begin = cell_of(text, head.at)
            strip = self._styled(strip, part, begin, cell_of(text, end_of(text, head.at)), Style(reverse=True))
        return strip

    @staticmethod
    def _styled(strip: Strip, part: Part, start: int, end: int, style: Style) -> Strip:
        """With a style on the cells `start` to `end` - 1 of the row's text, as far as this part shows them."""
        begin, stop = (part.lead + max(part.start, min(cell, part.end)) - part.start for cell in (start, end))
        if stop <= begin:
            return strip
        middle = Segment.apply_style(strip.crop(begin, stop), None, style)
        return Strip([*strip.crop(0, begin), *middle, *strip.crop(stop, strip.cell_length)], strip.cell_length)
