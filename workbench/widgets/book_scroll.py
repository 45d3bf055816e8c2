"""Where the rows of a log stand on the screen, and moving among them: only the rows that are seen are known here, and only they are
drawn.

The widget knows how many rows there are, asks for those it lacks with `Wanted`, and is given them with `supply`. The cursor is a
row; while it is the last one, the view follows the end. A row wider than the pane goes on below or, without wrapping, to the right.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.api import LogRow
from workbench.widgets.book_rows import GUTTER, Look, Part, RowPainter

KNOWN = 4000  # rows that are kept
DRAWN = 1000
_SIDEWAYS = 16


class BookScroller(ScrollView, can_focus=True):
    BINDINGS = [
        Binding("j,down", "move(1)", "Down", show=False, id="log.down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="log.up"),
        Binding("pagedown,ctrl+d", "page(1)", "Page down", show=False, id="log.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="log.page_up"),
        Binding("g,home", "top", "Top", show=False, id="log.top"),
        Binding("G,end", "bottom", "Follow", show=False, id="log.bottom"),
        Binding("left", "sideways(-1)", "Left", show=False, id="log.left"),
        Binding("right", "sideways(1)", "Right", show=False, id="log.right"),
    ]

    class Wanted(Message, namespace="book_view"):
        """Rows that the view would draw and does not have."""

        def __init__(self, view: BookScroller, first: int, count: int) -> None:
            super().__init__()
            self.view, self.first, self.count = view, first, count

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, BookScroller.Wanted)

    class Moved(Message, namespace="book_view"):
        """The cursor, what is selected, or whether the view follows has changed."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, BookScroller.Moved)

    def __init__(self, *, id: str | None = None, empty: str = "") -> None:
        super().__init__(id=id)
        self.empty = empty
        self.following = True
        self.cursor = 0
        self.unseen_from = 0  # `end` when the view stopped following
        self._first, self._end = 0, 0
        self._painter = RowPainter(self)
        self._known: OrderedDict[int, LogRow] = OrderedDict()
        self._drawn: OrderedDict[int, list[Part]] = OrderedDict()  # without cursor and selection
        self._below = 0  # rows of the screen by which the topmost row begins above it
        self._sideways = 0
        self._map: list[tuple[int, int]] | None = None  # row and its part, for each line of the screen
        self._own = False  # whether it is this widget that scrolls

    # --- what it is told ----------------------------------------------------------------------------------

    @property
    def extent(self) -> tuple[int, int]:
        return self._first, self._end

    @property
    def look(self) -> Look:
        return self._painter.look

    @look.setter
    def look(self, look: Look) -> None:
        if look != self._painter.look:
            self._painter.look = look
            self._drawn.clear()
            self._sideways = 0 if look.wrap else self._sideways
            self._settle()

    @property
    def marks(self) -> set[int]:
        """Of rows, by place."""
        return self._painter.marks

    @marks.setter
    def marks(self, marks: set[int]) -> None:
        self._painter.marks = marks

    @property
    def unseen(self) -> int:
        """Rows that came since the view stopped following."""
        return 0 if self.following else max(0, self._end - self.unseen_from)

    def restart(self, *, cursor: int | None = None) -> None:
        """Row numbers mean other rows from now on. None: at the end."""
        self._known.clear()
        self._drawn.clear()
        self._first = self._end = 0
        self.following, self.cursor = cursor is None, cursor or 0
        self._settle()

    def grow(self, first: int, end: int, start: int = 0, rows: Sequence[LogRow] = ()) -> None:
        """There are the rows `first` to `end` - 1 now; of these come `rows`, from number `start` on."""
        if (first, end) == (self._first, self._end) and not rows:
            return
        top = self._top
        self._first, self._end = first, end
        self._keep(start, rows)
        if self.following:
            self.cursor = max(first, end - 1)
            self._go(*self._last_position())
        else:
            self.cursor = min(max(self.cursor, first), max(first, end - 1))
            self._go(max(top, first), self._below if top >= first else 0)

    def supply(self, start: int, rows: Sequence[LogRow]) -> None:
        """The rows that were wanted."""
        self._keep(start, rows)
        if self.following:
            self._go(*self._last_position())
        else:
            self._settle()

    def _keep(self, start: int, rows: Sequence[LogRow]) -> None:
        for number, row in enumerate(rows, start):
            if self._known.get(number) != row:
                self._known[number] = row
                self._drawn.pop(number, None)
            self._known.move_to_end(number)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def row(self, number: int) -> LogRow | None:
        return self._known.get(number)

    @property
    def selecting(self) -> bool:
        """Rows are held: the view does not follow."""
        return False

    # --- moving -------------------------------------------------------------------------------------------

    @property
    def page(self) -> int:
        return max(1, self.scrollable_content_region.height)

    @property
    def _top(self) -> int:
        return self._first + round(self.scroll_y)

    def go_to(self, row: int, *, middle: bool = True) -> None:
        """The cursor to a row, and that row onto the screen."""
        self.cursor = min(max(row, self._first), max(self._first, self._end - 1))
        shown = [number for number, _part in self._lines()]
        if self.cursor in shown[: len(shown)]:
            self._settle()
        elif middle:
            self._go(max(self._first, self.cursor - self.page // 2), 0)
        else:
            self._go(self.cursor, 0)
        self._follow(self.cursor >= self._end - 1)
        self._tell()

    def action_move(self, step: int) -> None:
        if step < 0 and self.following:
            self._follow(False)
        height = self._height(self.cursor)
        bottom, part = self._lines()[-1] if self._lines() else (0, 0)
        if step > 0 and self.cursor == bottom and part < height - 1:  # a row longer than what is left of the screen
            self._down(1)
        elif step < 0 and self.cursor == self._top and self._below > 0:
            self._up(1)
        else:
            self.cursor = min(max(self.cursor + step, self._first), max(self._first, self._end - 1))
            self._show_cursor(step)
        self._follow(self.cursor >= self._end - 1 and self._at_end())
        self._tell()

    def _show_cursor(self, step: int) -> None:
        lines = self._lines()
        if step < 0:
            if self.cursor < self._top or (self.cursor == self._top and self._below):
                self._go(self.cursor, max(0, self._height(self.cursor) - self.page))
            elif self.cursor not in {number for number, _part in lines}:
                self._go(self.cursor, 0)
        else:
            wanted = self._height(self.cursor)
            for _ in range(min(wanted, self.page)):
                shown = sum(number == self.cursor for number, _part in self._lines())
                if shown >= min(wanted, self.page) or not self._down(1):
                    break
        self._settle()

    def action_page(self, step: int) -> None:
        """By a screenful, less a line. The cursor goes along."""
        for _ in range(max(1, self.page - 1)):
            if not (self._down(1) if step > 0 else self._up(1)):
                break
        self._clamp_cursor(end=step > 0 and self._at_end(), top=step < 0 and self._top == self._first)

    def action_top(self) -> None:
        self.cursor = self._first
        self._go(self._first, 0)
        self._follow(self._end - self._first <= 1)
        self._tell()

    def action_bottom(self) -> None:
        self.cursor = max(self._first, self._end - 1)
        self._follow(True)
        self._go(*self._last_position())
        self._tell()

    def action_sideways(self, step: int) -> None:
        if not self.look.wrap:
            self._sideways = max(0, self._sideways + step * _SIDEWAYS)
            self._settle()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        event.prevent_default()
        self._wheel(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        event.prevent_default()
        self._wheel(-3)

    def _wheel(self, lines: int) -> None:
        for _ in range(abs(lines)):
            if not (self._down(1) if lines > 0 else self._up(1)):
                break
        self._clamp_cursor(end=lines > 0 and self._at_end())

    def _clamp_cursor(self, *, end: bool = False, top: bool = False) -> None:
        shown = [number for number, _part in self._lines()]
        if shown:
            self.cursor = min(max(self.cursor, shown[0]), shown[-1])
        if end:
            self.cursor = max(self._first, self._end - 1)
        elif top:
            self.cursor = self._first
        self._follow(end)
        self._settle()
        self._tell()

    def _down(self, lines: int) -> bool:
        last = self._last_position()
        if (self._top, self._below) >= last:
            return False
        top, below = self._top, self._below + lines
        while below >= self._height(top):
            below -= self._height(top)
            top += 1
        self._go(*min((top, below), last))
        return True

    def _up(self, lines: int) -> bool:
        top, below = self._top, self._below - lines
        while below < 0 and top > self._first:
            top -= 1
            below += self._height(top)
        if below < 0:
            return False
        self._go(top, below)
        return True

    def _at_end(self) -> bool:
        return (self._top, self._below) >= self._last_position()

    def _follow(self, yes: bool) -> None:
        yes = yes and not self.selecting
        if self.following and not yes:
            self.unseen_from = self._end
        self.following = yes

    def _tell(self) -> None:
        self.post_message(self.Moved())

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if not self._own and round(old) != round(new):  # somebody drags the bar
            self._below = 0
            self._map = None
            self._clamp_cursor(end=self._at_end())

    # --- where things are ---------------------------------------------------------------------------------

    def _go(self, top: int, below: int) -> None:
        """Makes row `top` the topmost, `below` lines of it above the screen."""
        last = self._last_position()
        top, below = min((max(top, self._first), below), last)
        self._own = True
        try:
            self.virtual_size = Size(max(1, self.scrollable_content_region.width), last[0] - self._first + self.page)
            self.scroll_target_y = self.scroll_y = top - self._first
        finally:
            self._own = False
        self._below = below
        self._settle()

    def _last_position(self) -> tuple[int, int]:
        """The topmost row, and how much of it is above the screen, when the last row ends at the bottom."""
        if not self.look.wrap:
            return max(self._first, self._end - self.page), 0
        left, row = self.page, self._end
        while row > self._first and left > 0:
            row -= 1
            left -= self._height(row)
        return row, max(0, -left)

    def _height(self, row: int) -> int:
        return len(self._parts(row)) if self.look.wrap and row in self._known else 1

    def _lines(self) -> list[tuple[int, int]]:
        if self._map is None:
            found: list[tuple[int, int]] = []
            row, part = self._top, self._below
            while row < self._end and len(found) < self.page:
                found += [(row, index) for index in range(part, self._height(row))]
                row, part = row + 1, 0
            self._map = found[: self.page]
        return self._map

    def _settle(self) -> None:
        """Something has changed: draws anew, and asks for what is missing."""
        self._map = None
        if not self.is_mounted:
            return
        self.refresh()
        lines = self._lines()
        if lines and any(row not in self._known for row, _part in lines):
            first = max(self._first, lines[0][0] - 2 * self.page)
            self.post_message(self.Wanted(self, first, min(self._end, lines[-1][0] + 2 * self.page) - first))

    def on_resize(self) -> None:
        self._drawn.clear()
        self._map = None
        self._go(*(self._last_position() if self.following else (self._top, 0)))

    def notify_style_update(self) -> None:
        self._drawn.clear()
        super().notify_style_update()

    # --- drawing ------------------------------------------------------------------------------------------

    def _style(self, name: str) -> Style:
        return self.rich_style + self.get_component_rich_style(name, partial=True)

    def _parts(self, number: int) -> list[Part]:
        row, width = self._known.get(number), self.scrollable_content_region.width
        if row is None or width < 1:
            strip = Strip([Segment(" " * GUTTER + "…", self._style("log--empty"))]).adjust_cell_length(width)
            return [Part(strip, GUTTER, 0, 1)]
        if (found := self._drawn.get(number)) is None:
            found = self._drawn[number] = self._painter.paint(row, width, self._sideways)
            if len(self._drawn) > DRAWN:
                self._drawn.popitem(last=False)
        return found

    def redraw(self, number: int) -> None:
        """A row whose mark has changed."""
        self._drawn.pop(number, None)
        self._settle()
