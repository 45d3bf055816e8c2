"""What a program writes, byte by byte, onto two grids: the one with a history, and the alternate one of full-screen programs."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

from workbench.terminal.grid import Grid
from workbench.terminal.pen import PLAIN, Pen, sgr

_PENDING = 1 << 16  # characters of a sequence without an end, then it is dropped
_TOKEN = re.compile(
    r"(?P<lines>(?:[\x20-\x7e]*\r\n){3,})"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|\x1b\[(?P<mark>[<-?]?)(?P<numbers>[0-9:;]*)(?P<between>[ -/]*)(?P<csi>[@-~])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])"
    r"|\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*(?:\x1b(?!\\)[^\x1b]*)*\x1b\\"
    r"|\x1b(?P<designate>[ -/]+)(?P<set>[0-~])"
    r"|\x1b(?P<escape>[0-OQ-WYZ\\`-~])"
    r"|(?P<broken>\x1b\[[0-?]*[ -/]*(?=[^0-?@-~ -/])|\x1b(?=[\x00-\x1b\x7f-\x9f\u00a0-\U0010ffff]))"
)
# DEC's line drawing characters, for the letters from ` on.
_LINES = str.maketrans("`afgjklmnopqrstuvwxyz{|}~", "◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")


@dataclass(slots=True)
class _Saved:
    x: int = 0
    y: int = 0
    pen: Pen = PLAIN
    origin: bool = False
    drawing: tuple[bool, bool] = (False, False)
    shift: int = 0


class Screen:
    """`answer` gets what the program has asked for (where the cursor is, what terminal this is). Nothing that it writes reaches
    beyond the grid: titles are text, clipboards and colours of the terminal around it are not its business."""

    def __init__(self, rows: int, columns: int, answer: Callable[[bytes], None] = lambda data: None) -> None:
        self.answer = answer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self.title = ""
        self.bells = 0
        self._reset(max(1, rows), max(1, columns))

    def _reset(self, rows: int, columns: int) -> None:
        self._main = Grid(rows, columns, history=True)
        self._alternate = Grid(rows, columns, history=False)
        self.grid = self._main
        self._saved = {False: _Saved(), True: _Saved()}
        self.modes: set[int] = {7, 25}  # of DEC, those that are set
        self.insert = self.newline = self.keypad = False
        self._drawing = [False, False]  # whether G0 and G1 are line drawing
        self._shift = 0
        self._tabs = set(range(8, 1000, 8))
        self._last = " "

    # --- asked by the widget ------------------------------------------------------------------------------

    @property
    def is_alternate(self) -> bool:
        return self.grid is self._alternate

    @property
    def mouse(self) -> str:
        """What the program wants to know of the mouse: "", "click", "drag" or "move"."""
        for mode, what in ((1003, "move"), (1002, "drag"), (1000, "click"), (9, "click")):
            if mode in self.modes:
                return what
        return ""

    def resize(self, rows: int, columns: int) -> None:
        for grid in (self._main, self._alternate):
            grid.resize(max(1, rows), max(1, columns))

    # --- what is written ----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        at, size, match_at = 0, len(text), _TOKEN.match
        while at < size:
            match = match_at(text, at)
            if match is None:
                self._rest = text[at:]
                if len(self._rest) > _PENDING:
                    self._rest = ""
                return
            at = match.end()
            match match.lastgroup:
                case "text":
                    self._print(match[0])
                case "lines":
                    self._print_lines(match[0])
                case "csi":
                    self._csi(match["mark"], match["numbers"], match["between"], match["csi"])
                case "control":
                    self._control(match[0])
                case "osc":
                    self._osc(match["osc"])
                case "set":
                    self._designate(match["designate"], match["set"])
                case "escape":
                    self._escape(match["escape"])
                case _:
                    pass

    def _print(self, text: str) -> None:
        if self._drawing[self._shift]:
            text = text.translate(_LINES)
        self.grid.write(text, wrap=7 in self.modes, insert=self.insert)
        self._last = text[-1]

    def _print_lines(self, text: str) -> None:
        """Line after line of plain text: the flood of a build or a `cat`."""
        lines = text.split("\r\n")[:-1]
        plain = 7 in self.modes and not self.insert and not self._drawing[self._shift]
        for at, line in enumerate(lines):
            if plain and self.grid.takes_lines(lines[at:]):
                self.grid.write_lines(lines[at:])
                break
            if line:
                self._print(line)
            self._control("\r")
            self._control("\n")
        self._last = lines[-1][-1:] or self._last

    def _control(self, char: str) -> None:
        grid = self.grid
        match char:
            case "\n" | "\x0b" | "\x0c":
                grid.line_feed()
                if self.newline:
                    grid.x = 0
            case "\r":
                grid.go_to(0, grid.y)
            case "\b":
                grid.go_to(grid.x - 1, grid.y)
            case "\t":
                self._tab(1)
            case "\a":
                self.bells += 1
            case "\x0e":
                self._shift = 1
            case "\x0f":
                self._shift = 0
            case _:
                pass

    def _tab(self, count: int) -> None:
        grid = self.grid
        stops = sorted(self._tabs) if count > 0 else sorted(self._tabs | {0}, reverse=True)
        for _ in range(min(abs(count), grid.columns)):
            beyond = (stop for stop in stops if (stop > grid.x if count > 0 else stop < grid.x))
            grid.go_to(next(beyond, grid.columns - 1 if count > 0 else 0), grid.y)

    def _osc(self, text: str) -> None:
        kind, _, value = text.partition(";")
        if kind in ("0", "2"):
            self.title = "".join(char for char in value[:200] if char.isprintable())

    def _designate(self, between: str, name: str) -> None:
        if between in ("(", ")"):
            self._drawing[between == ")"] = name == "0"
        elif between == "#" and name == "8":  # DECALN
            grid = self.grid
            for row in grid.lines:
                row.chars, row.pens, row.seen = ["E"] * grid.columns, [PLAIN] * grid.columns, None
            grid.go_to(0, 0)

    def _escape(self, char: str) -> None:
        grid = self.grid
        match char:
            case "7":
                self._save()
            case "8":
                self._restore()
            case "D":
                grid.line_feed()
            case "E":
                grid.line_feed()
                grid.x = 0
            case "M":
                grid.reverse_line_feed()
            case "H":
                self._tabs.add(grid.x)
            case "c":
                self._reset(grid.rows, grid.columns)
            case "=" | ">":
                self.keypad = char == "="
            case "Z":
                self.answer(b"\x1b[?62;22c")
            case _:
                pass

    def _save(self) -> None:
        grid = self.grid
        drawing = (self._drawing[0], self._drawing[1])
        self._saved[self.is_alternate] = _Saved(grid.x, grid.y, grid.pen, 6 in self.modes, drawing, self._shift)

    def _restore(self) -> None:
        saved, grid = self._saved[self.is_alternate], self.grid
        grid.go_to(saved.x, saved.y)
        grid.pen, self._shift, self._drawing = saved.pen, saved.shift, list(saved.drawing)
        (self.modes.add if saved.origin else self.modes.discard)(6)

    # --- control sequences --------------------------------------------------------------------------------

    def _csi(self, mark: str, numbers: str, between: str, final: str) -> None:
        if mark or between:
            self._special(mark, numbers, between, final)
            return
        grid = self.grid
        if final == "m":
            grid.pen = sgr(grid.pen, numbers)
            return
        values = [int(each[:5]) if each.isdigit() else 0 for each in numbers.split(";")]
        first = values[0]
        count = max(first, 1)
        match final:
            case "A" | "F":
                stop = grid.top if grid.y >= grid.top else 0
                grid.go_to(0 if final == "F" else grid.x, max(grid.y - count, stop))
            case "B" | "e" | "E":
                stop = grid.bottom if grid.y <= grid.bottom else grid.rows - 1
                grid.go_to(0 if final == "E" else grid.x, min(grid.y + count, stop))
            case "C" | "a":
                grid.go_to(grid.x + count, grid.y)
            case "D":
                grid.go_to(grid.x - count, grid.y)
            case "G" | "`":
                grid.go_to(count - 1, grid.y)
            case "d":
                self._go_to(grid.x, count - 1)
            case "H" | "f":
                self._go_to(max(values[1] if len(values) > 1 else 1, 1) - 1, count - 1)
            case "I":
                self._tab(count)
            case "Z":
                self._tab(-count)
            case "J":
                grid.erase_screen(first)
            case "K":
                grid.erase_line(first)
            case "L":
                grid.insert_lines(count)
            case "M":
                grid.delete_lines(count)
            case "@":
                grid.insert_cells(count)
            case "P":
                grid.delete_cells(count)
            case "X":
                grid.erase_cells(count)
            case "S":
                grid.scroll_up(count)
            case "T":
                grid.scroll_down(count)
            case "b":
                grid.write(self._last * min(count, grid.columns * grid.rows), wrap=7 in self.modes, insert=self.insert)
            case "g":
                self._tabs = set() if first == 3 else self._tabs - {grid.x}
            case "h" | "l":
                self._ansi_modes(values, final == "h")
            case "r":
                self._margins(values)
            case "s":
                self._save()
            case "u":
                self._restore()
            case "c":
                self.answer(b"\x1b[?62;22c")
            case "n":
                self._report(first)
            case _:
                pass

    def _go_to(self, x: int, y: int) -> None:
        grid = self.grid
        if 6 in self.modes:
            y = min(y + grid.top, grid.bottom)
        grid.go_to(x, y)

    def _margins(self, values: list[int]) -> None:
        grid = self.grid
        top, bottom = max(values[0], 1) - 1, (values[1] if len(values) > 1 and values[1] else grid.rows) - 1
        if top < min(bottom, grid.rows - 1):
            grid.top, grid.bottom = top, min(bottom, grid.rows - 1)
            self._go_to(0, 0)

    def _report(self, what: int) -> None:
        if what == 5:
            self.answer(b"\x1b[0n")
        elif what == 6:
            above = self.grid.top if 6 in self.modes else 0
            self.answer(b"\x1b[%d;%dR" % (self.grid.y - above + 1, self.grid.x + 1))

    def _ansi_modes(self, values: list[int], on: bool) -> None:
        for value in values:
            if value == 4:
                self.insert = on
            elif value == 20:
                self.newline = on

    def _special(self, mark: str, numbers: str, between: str, final: str) -> None:
        values = [int(each[:5]) if each.isdigit() else 0 for each in numbers.split(";")]
        match mark, between, final:
            case "?", "", "h" | "l":
                for value in values:
                    self._mode(value, final == "h")
            case "?", "$", "p":  # DECRQM
                state = 1 if values[0] in self.modes else 2
                self.answer(b"\x1b[?%d;%d$y" % (values[0], state))
            case ">", "", "c":
                self.answer(b"\x1b[>1;100;0c")
            case "?", "", "n":
                self._report(values[0])
            case "?", "", "J":
                self.grid.erase_screen(values[0])
            case "?", "", "K":
                self.grid.erase_line(values[0])
            case "", "!", "p":  # DECSTR
                self.modes = (self.modes - {1, 6}) | {7, 25}
                self.insert = self.keypad = False
                self.grid.pen, self.grid.top, self.grid.bottom = PLAIN, 0, self.grid.rows - 1
            case _:
                pass

    def _mode(self, mode: int, on: bool) -> None:
        (self.modes.add if on else self.modes.discard)(mode)
        if mode == 6:
            self._go_to(0, 0)
        elif mode == 1048:
            (self._save if on else self._restore)()
        elif mode in (47, 1047, 1049) and on != self.is_alternate:
            if on and mode == 1049:
                self._save()
            pen, x, y = self.grid.pen, self.grid.x, self.grid.y
            self.grid = self._alternate if on else self._main
            self.grid.pen = pen
            if on:
                self.grid.go_to(x, y)
                if mode != 47:
                    self.grid.pen = PLAIN
                    self.grid.erase_screen(2)
                    self.grid.pen = pen
            elif mode == 1049:
                self._restore()
            for row in self.grid.lines:
                row.seen = None
