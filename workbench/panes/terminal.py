"""Shells in containers and containers' own terminals, inside the app or on the whole terminal.

A session goes on while another pane is used, and while the program runs. F12 leaves it without ending anything: no program in
common use listens to it, and every terminal sends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from textual import on
from textual.binding import Binding
from textual.widget import Widget

from engine.api import ContainerSpec, ExecSpec, Stream
from engine.errors import Conflict, EngineError
from workbench import clipboard
from workbench.messages import Said
from workbench.panes.base import Pane
from workbench.panes.fullscreen import give_terminal
from workbench.state import neutral
from workbench.subjects import Subject
from workbench.terminal.screen import Screen
from workbench.widgets.terminal_view import TerminalView

What = Literal["shell", "attach"]
SHELL = (
    "/bin/sh",
    "-c",
    "export LANG=${LANG:-C.UTF-8}; if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi",
)
ENVIRONMENT = ("TERM=xterm-256color", "COLORTERM=truecolor")
HELP = "E on a container opens a shell in it, a attaches to the program that it runs."


@dataclass(eq=False)
class Session:
    """One program with a terminal of ours."""

    name: str  # of the container, as it was called when this was opened
    container: str  # its id
    what: What
    screen: Screen
    stream: Stream
    terminal: bool = True  # False: an attached program without one, whose output is only shown
    ended: bool = False
    out: list[bytes] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    mirror: Callable[[bytes], None] | None = (
        None  # while it has the whole terminal: takes what it writes, b"" at its end
    )

    def send(self, data: bytes) -> None:
        if not self.ended:
            self.out.append(data)
            self.ready.set()


class TerminalPane(Pane):
    NAME, TITLE = "terminal", "terminal"
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("F", "fullscreen", "Full screen", id="terminal.fullscreen", tooltip="Give the program the whole terminal; F12 comes back"),
        Binding("n", "next", "Next", show=False, id="terminal.next", tooltip="The next open terminal"),
        Binding("X", "close", "Close", id="terminal.close", tooltip="Let go: a shell ends, an attached program goes on"),
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.view = TerminalView(id="terminal-view")
        self.sessions: list[Session] = []
        self.session: Session | None = None
        self._last_size = (24, 80)

    def content(self) -> Iterable[Widget]:
        yield self.view

    @property
    def main(self) -> Widget:
        return self.view

    def on_mount(self) -> None:
        self.say("empty", HELP)

    def open(self, subject: Subject, what: What) -> None:
        """Opens a terminal on the container `subject`: the app has brought this pane to the front."""
        for session in self.sessions:
            if (session.container, session.what, session.ended) == (subject.id, what, False):
                self._show(session)
                self.view.inside = True
                return
        self.say("busy", f"opening {'a shell in ' if what == 'shell' else ''}{neutral(subject.name)} …")
        self.work(self._open, subject, what, group="open")

    async def _open(self, subject: Subject, what: What) -> None:
        screen = Screen(*self._rows_and_columns())
        try:
            session = await (self._shell if what == "shell" else self._program)(subject, screen)
        except EngineError as error:
            self.say("error", f"{neutral(error.message)}{f' — {neutral(error.hint)}' if error.hint else ''}")
            return
        self.sessions.append(session)
        self._show(session)
        self.view.inside = True
        self.view.focus()
        # Not in a group: each session reads on whatever else is opened.
        self.work(self._read, session, group=f"read-{id(session)}")
        self.work(self._write, session, group=f"write-{id(session)}")

    def _rows_and_columns(self) -> tuple[int, int]:
        size = self.view.size
        return (size.height, size.width) if size.height > 0 and size.width > 0 else self._last_size

    async def _shell(self, subject: Subject, screen: Screen) -> Session:
        rows, columns = screen.grid.rows, screen.grid.columns
        spec = ExecSpec(SHELL, env=ENVIRONMENT, tty=True, stdin=True, tty_size=(rows, columns))
        try:
            stream = await self.bridge.engine.exec(subject.id, spec)
        except EngineError as error:
            if "not found" not in error.message and "no such file" not in error.message.lower():
                raise
            raise Conflict(
                f"{subject.name} has no shell: its image holds no /bin/sh",
                hint="`workbench cp` reads its files, and a command that it does have runs with `workbench exec`",
            ) from None
        return self._joined(Session(subject.name, subject.id, "shell", screen, stream))

    async def _program(self, subject: Subject, screen: Screen) -> Session:
        engine, name = self.bridge.engine, subject.name
        spec: ContainerSpec = (await engine.container(subject.id)).spec
        stream = await engine.attach(subject.id, stdin=spec.open_stdin)
        if not spec.tty:
            screen.newline = True
        session = self._joined(Session(name, subject.id, "attach", screen, stream, terminal=spec.tty))
        if spec.tty:  # another size and back: programs draw their screen anew
            rows, columns = screen.grid.rows, screen.grid.columns
            await stream.resize(max(1, rows - 1), columns)
            await stream.resize(rows, columns)
        else:
            says = "what is typed goes to it" if spec.open_stdin else "its input is closed"
            screen.feed(f"\x1b[2m{neutral(name)} has no terminal: its output from now on; {says}\x1b[0m\n".encode())
        return session

    @staticmethod
    def _joined(session: Session) -> Session:
        session.screen.answer = session.send
        return session

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Inside, the keys are the program's: the footer does not offer what they would do outside."""
        return not self.view.inside

    # --- bytes both ways ----------------------------------------------------------------------------------

    async def _read(self, session: Session) -> None:
        code: int | None = None
        try:
            while (chunk := await session.stream.read()) is not None:
                before = session.screen.grid.gone
                session.screen.feed(chunk[1])
                if session.mirror is not None:
                    session.mirror(chunk[1])
                elif session is self.session and self.on_screen:
                    self.view.changed(session.screen.grid.gone - before)
                    self._say_title()
                await asyncio.sleep(0)
            code = await session.stream.wait()
        finally:
            session.ended = True
            session.ready.set()
            if session.mirror is not None:
                session.mirror(b"")
            with contextlib.suppress(EngineError, OSError):
                await session.stream.close()
        end = "ended" if code in (0, None) else f"ended with {code}"
        session.screen.feed(f"\r\n\x1b[0m── {end} ──\r\n".encode())
        if session is self.session:
            self.view.inside = False
            self.view.changed()
            self._say_title()

    async def _write(self, session: Session) -> None:
        while not session.ended:
            await session.ready.wait()
            session.ready.clear()
            data, session.out = b"".join(session.out), []
            if not session.terminal:
                data = data.replace(b"\r", b"\n")
            if data:
                await session.stream.write(data)

    @on(TerminalView.Typed)
    def _typed(self, message: TerminalView.Typed) -> None:
        message.stop()
        if self.session is not None:
            self.session.send(message.data)

    @on(TerminalView.Sized)
    def _sized(self, message: TerminalView.Sized) -> None:
        message.stop()
        self._last_size = (message.rows, message.columns)
        if self.session is not None and self.session.terminal and not self.session.ended:
            self.work(self._resize, self.session, message.rows, message.columns, group="resize")

    async def _resize(self, session: Session, rows: int, columns: int) -> None:
        with contextlib.suppress(EngineError):  # it has just ended
            await session.stream.resize(rows, columns)

    # --- what the user does -------------------------------------------------------------------------------

    def _show(self, session: Session | None) -> None:
        self.session = session
        self.say("" if session else "empty", "" if session else HELP)
        self.view.attach(session.screen if session else None)
        self._say_title()

    @on(TerminalView.Moved)
    def _moved(self, message: TerminalView.Moved) -> None:
        message.stop()
        self._say_title()
        self.app_.keys.draw()

    def _say_title(self) -> None:
        session, view = self.session, self.view
        if session is None:
            self.border_subtitle = ""
            return
        parts = [session.name]
        if session.screen.title:
            parts.append(session.screen.title)
        if len(self.sessions) > 1:
            parts.append(f"{self.sessions.index(session) + 1}/{len(self.sessions)}")
        if view.above:
            parts.append(f"{view.above} {'line' if view.above == 1 else 'lines'} back")
        if session.ended:
            parts.append(f"{self._why_ended(session)} · enter opens it again · X closes")
        elif view.inside:
            parts.append("F12 leaves")
        else:
            parts.append("enter types · F full screen")
        subtitle = neutral(" · ".join(parts)).replace("[", "\\[")
        if str(self.border_subtitle or "") != subtitle:
            self.border_subtitle = subtitle

    def _why_ended(self, session: Session) -> str:
        now = self.app_.lists.container(session.name)
        return "ended: another container has its place" if now and now.id != session.container else "ended"

    @on(TerminalView.Entered)
    def _entered(self, message: TerminalView.Entered) -> None:
        """Enter, where keys go nowhere any more: the same again, in the container that has the name now."""
        message.stop()
        session = self.session
        if session is None or not session.ended:
            self.view.inside = session is not None
            return
        found = self.app_.lists.container(session.name)
        if found is None or not found.running:
            self.post_message(Said(f"{session.name} does not run"))
            return
        self.sessions.remove(session)
        self.open(Subject("container", found.id, found.name, found), session.what)

    @on(TerminalView.Yanked)
    def _yanked(self, message: TerminalView.Yanked) -> None:
        message.stop()
        lines = "1 line" if message.lines == 1 else f"{message.lines} lines"
        self.work(clipboard.copy, self.app, message.text, lines, group="yank")

    def action_next(self) -> None:
        if self.sessions and self.session is not None:
            self._show(self.sessions[(self.sessions.index(self.session) + 1) % len(self.sessions)])

    def action_close(self) -> None:
        session = self.session
        if session is not None:
            self.sessions.remove(session)
            self._show(self.sessions[-1] if self.sessions else None)
            self.work(self._let_go, session, group=f"close-{id(session)}")

    async def _let_go(self, session: Session) -> None:
        if session.ended:
            return
        if session.what == "attach":
            await session.stream.detach()
        else:
            session.ended = True
            await session.stream.close()

    def action_fullscreen(self) -> None:
        if self.session is None or self.session.ended:
            self.post_message(Said("no terminal is open"))
        else:
            self.work(self._fullscreen, self.session, group="fullscreen")

    async def _fullscreen(self, session: Session) -> None:
        rows, columns = self._rows_and_columns()

        async def resize(rows: int, columns: int) -> None:
            await self._resize(session, rows, columns)

        if not await give_terminal(self.app, session, resize):
            self.post_message(Said("there is no terminal to give away"))
            return
        session.screen.resize(rows, columns)
        self.view.attach(session.screen)
        await self._resize(session, rows, columns)
        self.view.inside = not session.ended
        self.app.refresh(layout=True)
