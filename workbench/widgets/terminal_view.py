"""A terminal on the screen: its grid drawn, keys, pastes and the mouse sent to the program.

`inside`: every key goes to the program but F12, which lets go. Outside, the app's keys work again and the lines that went out
at the top are read and copied.
"""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from workbench.terminal.grid import Row
from workbench.terminal.input import program_has_keys
from workbench.terminal.keys import key_bytes, mouse_bytes, paste_bytes
from workbench.terminal.pen import rich_style
from workbench.terminal.screen import Screen

LEAVE = "f12"
_WHEEL = 3


class TerminalView(Widget, can_focus=True):
    BINDINGS = [
        Binding("enter,i", "enter", "Type", id="terminal.enter", tooltip="Type into the program again"),
        Binding("j,down", "move(1)", "Down", show=False, id="terminal.down", tooltip="One line down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="terminal.up", tooltip="One line up, also into what was scrolled away"),
        Binding("pagedown,ctrl+d", "page(1)", "Page down", show=False, id="terminal.page_down", tooltip="One screen down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="terminal.page_up", tooltip="One screen up"),
        Binding("g,home", "top", "Top", show=False, id="terminal.top", tooltip="The oldest line"),
        Binding("G,end", "bottom", "Bottom", show=False, id="terminal.bottom", tooltip="The newest line"),
        Binding("v", "select", "Select", show=False, id="terminal.select", tooltip="Begin to select lines, or end it"),
        Binding("y", "yank", "Copy", id="terminal.yank", tooltip="Copy the selected lines, or the one under the cursor"),
    ]  # fmt: skip
    COMPONENT_CLASSES = {"terminal--cursor", "terminal--selected", "terminal--line"}
    DEFAULT_CSS = """
    TerminalView > .terminal--cursor { text-style: reverse; }
    TerminalView > .terminal--selected { background: $accent 35%; }
    TerminalView > .terminal--line { background: $foreground 15%; }
    """
    inside: reactive[bool] = reactive(False)

    class Typed(Message):
        def __init__(self, data: bytes) -> None:
            super().__init__()
            self.data = data

    class Sized(Message):
        def __init__(self, rows: int, columns: int) -> None:
            super().__init__()
            self.rows, self.columns = rows, columns

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TerminalView.Sized)

    class Yanked(Message):
        def __init__(self, text: str, lines: int) -> None:
            super().__init__()
            self.text, self.lines = text, lines

    class Entered(Message):
        """The user wants to type into it."""

    class Moved(Message):
        """It was entered or left, or shows other lines."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.screen_: Screen | None = None
        self.line = 0  # under the cursor outside, counted from the oldest line of the history
        self.select_from: int | None = None
        self._above = 0  # lines of the history that are shown
        self._button = 0

    def attach(self, screen: Screen | None) -> None:
        """Shows another terminal, with the size of this pane."""
        self.screen_ = screen
        self._above, self.select_from = 0, None
        if screen is not None:
            self._forget_drawn()
            self._fit()
        self.refresh()

    def changed(self, scrolled: int = 0) -> None:
        """The program has written; `scrolled` lines went into the history. What is read stays where it is."""
        if self._above:
            self._above = min(self._above + scrolled, self._history)
        self.refresh()

    # --- sizes --------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        screen, (columns, rows) = self.screen_, self.size
        if screen is not None and rows and columns and (screen.grid.rows, screen.grid.columns) != (rows, columns):
            screen.resize(rows, columns)
            self.post_message(self.Sized(rows, columns))

    @property
    def _history(self) -> int:
        screen = self.screen_
        return len(screen.grid.history) if screen is not None and screen.grid.history is not None else 0

    @property
    def _total(self) -> int:
        return self._history + (self.screen_.grid.rows if self.screen_ is not None else 0)

    def _row(self, number: int) -> Row | None:
        """By its number from the oldest line on."""
        screen = self.screen_
        if screen is None:
            return None
        grid, history = screen.grid, self._history
        if number < history:
            assert grid.history is not None
            return grid.history[number]
        return grid.lines[number - history] if number - history < len(grid.lines) else None

    # --- drawing ------------------------------------------------------------------------------------------

    def _forget_drawn(self) -> None:
        screen = self.screen_
        if screen is not None:
            for row in (*screen.grid.lines, *(screen.grid.history or ())):
                row.seen = None

    def notify_style_update(self) -> None:
        self._forget_drawn()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        number = self._history - self._above + y
        row = self._row(number)
        if row is None:
            return Strip.blank(width, base)
        strip = row.seen
        if not isinstance(strip, Strip):
            row.seen = strip = _draw(row, base)
        strip = self._pointed(strip, number)
        return strip.adjust_cell_length(width, base)

    def _pointed(self, strip: Strip, number: int) -> Strip:
        screen = self.screen_
        assert screen is not None
        if self.inside and not self._above:
            grid = screen.grid
            if number == self._history + grid.y and 25 in screen.modes and self.has_focus:
                style = self.get_component_rich_style("terminal--cursor", partial=True)
                chars = grid.lines[grid.y].chars
                wide = grid.x + 1 < len(chars) and chars[grid.x + 1] == ""
                return _restyle(strip, grid.x, grid.x + (2 if wide else 1), style)
            return strip
        first, last = self.selected
        if self.select_from is not None and first <= number <= last:
            return _restyle(strip, 0, strip.cell_length, self.get_component_rich_style("terminal--selected"))
        if not self.inside and number == self.line and self.has_focus:
            return _restyle(strip, 0, strip.cell_length, self.get_component_rich_style("terminal--line"))
        return strip

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.inside = False

    # --- inside -------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not self.inside

    def watch_inside(self, inside: bool) -> None:
        program_has_keys(inside)
        if inside:
            self._above, self.select_from = 0, None
        elif self.screen_ is not None:
            self.line = self._history + self.screen_.grid.y
        self.refresh()
        self.refresh_bindings()
        self.post_message(self.Moved())

    async def on_key(self, event: events.Key) -> None:
        screen = self.screen_
        if not self.inside or screen is None:
            return
        event.stop()
        event.prevent_default()
        if event.key == LEAVE:
            self.inside = False
            return
        self._send(key_bytes(event.key, event.character, application=1 in screen.modes))

    async def on_paste(self, event: events.Paste) -> None:
        if self.inside and self.screen_ is not None:
            event.stop()
            self._send(paste_bytes(event.text, bracketed=2004 in self.screen_.modes))

    def _send(self, data: bytes) -> None:
        if data:
            if self._above:
                self._above = 0
                self.refresh()
            self.post_message(self.Typed(data))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if not self.inside and self.screen_ is not None:
            self.focus()
            self.post_message(self.Entered())
            return
        self._button = max(event.button - 1, 0)
        self._mouse(event, self._button, pressed=True)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._mouse(event, self._button, pressed=False)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        wants = self.screen_.mouse if self.screen_ is not None else ""
        if wants == "move" or (wants == "drag" and event.button):
            self._mouse(event, 32 + (self._button if event.button else 3), pressed=True)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: events.MouseEvent, step: int) -> None:
        event.stop()
        screen = self.screen_
        if screen is None:
            return
        if self.inside and screen.mouse:
            self._mouse(event, 65 if step > 0 else 64, pressed=True)
        elif self.inside and screen.is_alternate:  # less and man, which know nothing of a mouse
            key = key_bytes("down" if step > 0 else "up", None, application=1 in screen.modes)
            self._send(key * _WHEEL)
        else:
            self._scroll(step * _WHEEL)

    def _mouse(self, event: events.MouseEvent, button: int, *, pressed: bool) -> None:
        screen = self.screen_
        if screen is None or not self.inside or not screen.mouse:
            return
        event.stop()
        held = 4 * event.shift + 8 * event.meta + 16 * event.ctrl
        self._send(mouse_bytes(button + held, event.x, event.y, pressed=pressed, sgr=1006 in screen.modes))

    # --- outside ------------------------------------------------------------------------------------------

    @property
    def selected(self) -> tuple[int, int]:
        other = self.line if self.select_from is None else self.select_from
        return min(self.line, other), max(self.line, other)

    def action_enter(self) -> None:
        self.post_message(self.Entered())

    def action_move(self, step: int) -> None:
        self.line = min(max(self.line + step, 0), max(0, self._total - 1))
        top, rows = self._history - self._above, self.size.height
        if self.line < top:
            self._above = self._history - self.line
        elif self.line >= top + rows:
            self._above = max(0, self._history - (self.line - rows + 1))
        self.refresh()
        self.post_message(self.Moved())

    def action_page(self, step: int) -> None:
        """The lines and the cursor in them; at an end of the lines the cursor goes there."""
        lines = step * max(1, self.size.height - 1)
        above = min(max(self._above - lines, 0), self._history)
        moved = above != self._above
        self._above = above
        if moved:
            self.line = min(max(self.line + lines, self._history - above), self._history - above + self.size.height - 1)
        self.action_move(0 if moved else lines)

    def action_top(self) -> None:
        self.action_move(-self._total)

    def action_bottom(self) -> None:
        self.action_move(self._total)

    def _scroll(self, lines: int) -> None:
        self._above = min(max(self._above - lines, 0), self._history)
        self.refresh()
        self.post_message(self.Moved())

    @property
    def above(self) -> int:
        """Lines of the history that are on the screen."""
        return self._above

    def action_select(self) -> None:
        self.select_from = self.line if self.select_from is None else None
        self.refresh()

    def action_yank(self) -> None:
        first, last = self.selected
        rows = [row for number in range(first, last + 1) if (row := self._row(number)) is not None]
        text = "".join(row.text if row.wrapped else row.text.rstrip() + "\n" for row in rows).removesuffix("\n")
        self.select_from = None
        self.refresh()
        self.post_message(self.Yanked(text, len(rows)))


def _draw(row: Row, base: Style) -> Strip:
    found: list[Segment] = []
    start, chars, pens = 0, row.chars, row.pens
    for at in range(1, len(chars) + 1):
        if at == len(chars) or (pens[at] is not pens[start] and pens[at] != pens[start]):
            found.append(Segment("".join(chars[start:at]), rich_style(pens[start], base)))
            start = at
    return Strip(found)


def _restyle(strip: Strip, start: int, end: int, style: Style) -> Strip:
    before, middle, behind = strip.crop(0, start), strip.crop(start, end), strip.crop(end)
    return Strip([*before, *Segment.apply_style(middle, None, style), *behind])
