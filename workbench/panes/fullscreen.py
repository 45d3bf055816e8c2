"""The whole terminal for one program: the app stands aside, and comes back with F12 or when the program ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from workbench.terminal.screen import Screen

if TYPE_CHECKING:
    from textual.app import App

LEAVE = b"\x1b[24~"  # F12
# Modes that a program has set before and would not set again: cursor keys, wrapping, the cursor itself, the mouse, pastes.
_MODES = (1, 9, 1000, 1002, 1003, 1004, 1006, 2004)


class Program(Protocol):
    """What the terminal is given to."""

    screen: Screen
    ended: bool
    mirror: Callable[[bytes], None] | None

    def send(self, data: bytes) -> None: ...


def handed_over(screen: Screen) -> bytes:
    """What makes the real terminal show and do what `screen` does."""
    modes = "".join(f"\x1b[?{mode}h" for mode in _MODES if mode in screen.modes)
    grid = screen.grid
    lines = "\r\n".join(row.text.rstrip() for row in grid.lines).rstrip()
    begin = "\x1b[?1049h" if screen.is_alternate else ""
    text = f"{begin}\x1b[0m\x1b[H\x1b[2J{lines}{modes}\x1b[{grid.y + 1};{grid.x + 1}H"
    return text.encode("utf-8", "replace")


def taken_back() -> bytes:
    modes = "".join(f"\x1b[?{mode}l" for mode in _MODES)
    return f"\x1b[?1049l{modes}\x1b[?25h\x1b[!p\x1b[0m\x1b[H\x1b[2J".encode()


async def give_terminal(
    app: App[Any], program: Program, resize: Callable[[int, int], Coroutine[Any, Any, None]]
) -> bool:
    """Until F12 or the program's end. False where there is no terminal to give."""
    driver = app._driver
    if driver is None or not driver.can_suspend or not sys.__stdin__ or not os.isatty(sys.__stdin__.fileno()):
        return False
    # Nothing of the app may be drawn meanwhile, though its loop goes on: it carries the program's bytes.
    with app.batch_update(), app.suspend():
        await _converse(program, resize, sys.__stdin__.fileno())
    return True


async def _converse(program: Program, resize: Callable[[int, int], Coroutine[Any, Any, None]], fd: int) -> None:
    import termios
    import tty

    loop, left, jobs = asyncio.get_running_loop(), asyncio.Event(), set[asyncio.Task[None]]()
    out = sys.__stderr__.fileno() if sys.__stderr__ else 2  # where Textual writes

    def write(data: bytes) -> None:
        while data:
            try:
                data = data[os.write(out, data) :]
            except OSError:  # the terminal is gone: the app ends by itself
                left.set()
                return

    def read() -> None:
        try:
            data = os.read(fd, 1 << 16)
        except OSError:
            data = b""
        before, key, _behind = data.partition(LEAVE)
        program.send(before)
        if key or not data:
            left.set()

    def sized(*_: object) -> None:
        size = shutil.get_terminal_size()
        program.screen.resize(size.lines, size.columns)
        job = loop.create_task(resize(size.lines, size.columns))
        jobs.add(job)
        job.add_done_callback(jobs.discard)

    def said(data: bytes) -> None:
        write(data) if data else left.set()

    answer, program.screen.answer = program.screen.answer, lambda data: None  # the real one answers now
    saved, handler = termios.tcgetattr(fd), signal.getsignal(signal.SIGWINCH)
    tty.setraw(fd, termios.TCSANOW)
    try:
        write(handed_over(program.screen))
        program.mirror = said
        loop.add_reader(fd, read)
        loop.add_signal_handler(signal.SIGWINCH, sized)
        sized()
        if not program.ended:
            await left.wait()
    finally:
        program.mirror = None
        loop.remove_reader(fd)
        loop.remove_signal_handler(signal.SIGWINCH)
        signal.signal(signal.SIGWINCH, handler)
        program.screen.answer = answer
        write(taken_back())
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
