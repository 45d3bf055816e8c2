"""The cells of a screen: printing, erasing, scrolling, and the lines that went out at the top."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from rich.cells import get_character_cell_size

from workbench.terminal.pen import PLAIN, Pen

HISTORY = 10_000  # lines
_RUNS = re.compile(r"[\x20-\x7e]+|[^\x20-\x7e]+")
_MOST_PILED = 8  # combining characters on one cell


class Row:
    """One line. A character of two cells has "" in the second. `seen` is what a widget drew of it; None: draw anew."""

    __slots__ = ("chars", "pens", "seen", "wrapped")

    def __init__(self, columns: int, pen: Pen = PLAIN) -> None:
        self.chars: list[str] = [" "] * columns
        self.pens: list[Pen] = [pen] * columns
        self.wrapped = False  # goes on in the next line
        self.seen: object = None

    @classmethod
    def of(cls, text: str, columns: int, pen: Pen, rest: Pen) -> Row:
        row = cls.__new__(cls)
        row.chars = list(text.ljust(columns))
        row.pens = [pen] * len(text) + [rest] * (columns - len(text))
        row.wrapped, row.seen = False, None
        return row

    @property
    def text(self) -> str:
        return "".join(self.chars)

    def resize(self, columns: int) -> None:
        more = columns - len(self.chars)
        if more > 0:
            self.chars += [" "] * more
            self.pens += [PLAIN] * more
        elif more < 0:
            del self.chars[columns:], self.pens[columns:]
            self.mend(columns - 1)
        self.seen = None

    def mend(self, column: int) -> None:
        """Half a wide character is none."""
        if 0 <= column < len(self.chars):
            char = self.chars[column]
            if (char == "" and (column == 0 or get_character_cell_size(self.chars[column - 1][:1] or " ") != 2)) or (
                get_character_cell_size(char[:1] or " ") == 2
                and (column + 1 >= len(self.chars) or self.chars[column + 1] != "")
            ):
                self.chars[column] = " "

    def fill(self, start: int, end: int, pen: Pen) -> None:
        start, end = max(start, 0), min(end, len(self.chars))
        if end > start:
            self.chars[start:end] = [" "] * (end - start)
            self.pens[start:end] = [pen] * (end - start)
            self.mend(start - 1)
            self.mend(end)
        self.seen = None


class Grid:
    """`top` and `bottom` are the lines of the scrolling region, both included. Erased cells take the background of `pen`."""

    def __init__(self, rows: int, columns: int, *, history: bool) -> None:
        self.rows, self.columns = rows, columns
        self.lines = [Row(columns) for _ in range(rows)]
        self.history: deque[Row] | None = deque(maxlen=HISTORY) if history else None
        self.gone = 0  # lines that ever went into the history
        self.x = self.y = 0
        self.pen = PLAIN
        self.top, self.bottom = 0, rows - 1
        self.wrap_next = False  # the last column was written: the next character begins a line

    # --- printing -----------------------------------------------------------------------------------------

    def write(self, text: str, *, wrap: bool, insert: bool) -> None:
        if text.isascii():
            self._write_ascii(text, wrap, insert)
            return
        for run in _RUNS.findall(text):
            if run.isascii():
                self._write_ascii(run, wrap, insert)
            else:
                for char in run:
                    self._write_one(char, wrap, insert)

    def _write_ascii(self, text: str, wrap: bool, insert: bool) -> None:
        at, size = 0, len(text)
        while at < size:
            self._begin(wrap)
            room = self.columns - self.x
            if not wrap and size - at > room:  # what comes last stays in the last column
                text, size = text[: at + room - 1] + text[-1], at + room
            piece = text[at : at + room]
            row, start, end = self.lines[self.y], self.x, self.x + len(piece)
            if insert:
                self.insert_cells(len(piece))
            row.chars[start:end] = piece
            row.pens[start:end] = [self.pen] * len(piece)
            row.mend(start - 1)
            row.mend(end)
            row.seen = None
            at += len(piece)
            self.x = min(end, self.columns - 1)
            self.wrap_next = end >= self.columns

    def takes_lines(self, lines: Sequence[str]) -> bool:
        """Whether `write_lines` does what writing them one by one would."""
        at_end = self.y == self.bottom == self.rows - 1 and self.top == 0 and self.x == 0 and not self.wrap_next
        return at_end and self.lines[self.y].text.isspace() and max(map(len, lines)) <= self.columns

    def write_lines(self, lines: Sequence[str]) -> None:
        """Whole lines of ASCII, each with its newline, on a last line that is empty."""
        kept = lines[-(HISTORY + self.rows) :]
        fresh = [Row.of(line, self.columns, self.pen, self._erased) for line in kept]
        rows = [*self.lines[:-1], *fresh, self._blank()]
        out = rows[: -self.rows]
        if self.history is not None:
            self.history.extend(out)
            self.gone += len(lines)
        self.lines = rows[-self.rows :]

    def _write_one(self, char: str, wrap: bool, insert: bool) -> None:
        width = get_character_cell_size(char)
        if width == 0:
            self._combine(char)
            return
        self._begin(wrap)
        if self.x + width > self.columns:
            if not wrap or self.columns < 2:
                return
            self.wrap_next = True
            self._begin(wrap)
        row, start = self.lines[self.y], self.x
        if insert:
            self.insert_cells(width)
        row.chars[start : start + width] = [char, ""][:width]
        row.pens[start : start + width] = [self.pen] * width
        row.mend(start - 1)
        row.mend(start + width)
        row.seen = None
        self.x = min(start + width, self.columns - 1)
        self.wrap_next = start + width >= self.columns

    def _combine(self, char: str) -> None:
        row = self.lines[self.y]
        at = self.x if self.wrap_next else self.x - 1
        while at > 0 and row.chars[at] == "":
            at -= 1
        if at >= 0 and len(row.chars[at]) < _MOST_PILED and char.isprintable():
            row.chars[at] += char
            row.seen = None

    def _begin(self, wrap: bool) -> None:
        if self.wrap_next:
            self.wrap_next = False
            if wrap:
                self.lines[self.y].wrapped = True
                self.x = 0
                self.line_feed()

    # --- moving -------------------------------------------------------------------------------------------

    def line_feed(self) -> None:
        self.wrap_next = False
        if self.y == self.bottom:
            self.scroll_up(1)
        elif self.y < self.rows - 1:
            self.y += 1

    def reverse_line_feed(self) -> None:
        self.wrap_next = False
        if self.y == self.top:
            self.scroll_down(1)
        elif self.y > 0:
            self.y -= 1

    def go_to(self, x: int, y: int) -> None:
        self.x, self.y = min(max(x, 0), self.columns - 1), min(max(y, 0), self.rows - 1)
        self.wrap_next = False

    # --- scrolling, inserting, erasing --------------------------------------------------------------------

    def _blank(self) -> Row:
        return Row(self.columns, self._erased)

    @property
    def _erased(self) -> Pen:
        return PLAIN if self.pen.bg is None else Pen(bg=self.pen.bg)

    def scroll_up(self, count: int, top: int | None = None) -> None:
        """Lines go out at the top of the region; into the history when that is the top of the screen."""
        first = self.top if top is None else top
        for _ in range(min(count, self.bottom - first + 1)):
            row = self.lines.pop(first)
            self.lines.insert(self.bottom, self._blank())
            if first == 0 and top is None and self.history is not None:
                self.history.append(row)
                self.gone += 1

    def scroll_down(self, count: int, top: int | None = None) -> None:
        first = self.top if top is None else top
        for _ in range(min(count, self.bottom - first + 1)):
            self.lines.pop(self.bottom)
            self.lines.insert(first, self._blank())

    def insert_lines(self, count: int) -> None:
        if self.top <= self.y <= self.bottom:
            self.scroll_down(count, self.y)
            self.x, self.wrap_next = 0, False

    def delete_lines(self, count: int) -> None:
        if self.top <= self.y <= self.bottom:
            self.scroll_up(count, self.y)
            self.x, self.wrap_next = 0, False

    def insert_cells(self, count: int) -> None:
        row, count = self.lines[self.y], min(count, self.columns - self.x)
        row.chars[self.x : self.x] = [" "] * count
        row.pens[self.x : self.x] = [self._erased] * count
        row.mend(self.x - 1)
        row.mend(self.x + count)
        row.resize(self.columns)

    def delete_cells(self, count: int) -> None:
        row, count = self.lines[self.y], min(count, self.columns - self.x)
        del row.chars[self.x : self.x + count], row.pens[self.x : self.x + count]
        row.mend(self.x - 1)
        row.mend(self.x)
        row.chars += [" "] * count
        row.pens += [self._erased] * count
        row.seen = None
        self.wrap_next = False

    def erase_cells(self, count: int) -> None:
        self.lines[self.y].fill(self.x, self.x + count, self._erased)
        self.wrap_next = False

    def erase_line(self, how: int) -> None:
        start, end = ((self.x, self.columns), (0, self.x + 1), (0, self.columns))[how if how in (1, 2) else 0]
        row = self.lines[self.y]
        row.fill(start, end, self._erased)
        if how != 1:
            row.wrapped = False
        self.wrap_next = False

    def erase_screen(self, how: int) -> None:
        if how == 3:
            if self.history is not None:
                self.history.clear()
            return
        if how == 2 and self.history is not None:  # what was on the screen can still be read
            last = max((index for index, row in enumerate(self.lines) if not row.text.isspace()), default=-1)
            self.history.extend(self.lines[: last + 1])
            self.gone += last + 1
        if how == 2:
            self.lines = [self._blank() for _ in range(self.rows)]
            self.wrap_next = False
            return
        self.erase_line(how)
        for index in range(self.y + 1, self.rows) if how == 0 else range(self.y):
            self.lines[index] = self._blank()

    def resize(self, rows: int, columns: int) -> None:
        """Lines go into the history when they no longer fit, those below the cursor last; widths are cut or filled."""
        while len(self.lines) > rows:
            if self.y < len(self.lines) - 1:
                self.lines.pop()
            else:
                row = self.lines.pop(0)
                self.y -= 1
                if self.history is not None:
                    self.history.append(row)
                    self.gone += 1
        self.rows, self.columns = rows, columns
        self.lines += [Row(columns) for _ in range(rows - len(self.lines))]
        for row in self.lines:
            row.resize(columns)
        self.top, self.bottom = 0, rows - 1
        self.go_to(self.x, self.y)
