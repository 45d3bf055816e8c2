"""This terminal and a container's streams: raw mode, resizing, signals, detach keys. For `run`, `exec`, `attach`, `start -a`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import TYPE_CHECKING

from engine.base.keys import KeyFilter
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.api import Stream


class Detached(Exception):
    """The user pressed the detach keys: the container goes on."""

    @staticmethod
    def told() -> int:
        """For who joined what runs already (`attach`, `exec`): the exit code, with Docker's word on it, since nothing has ended."""
        print("read escape sequence", file=sys.stderr)
        return 1


def terminal_size() -> tuple[int, int]:
    """(rows, columns) of this terminal, (0, 0) where there is none."""
    if not sys.stdout.isatty():
        return 0, 0
    size = shutil.get_terminal_size()
    return size.lines, size.columns


async def converse(
    stream: Stream,
    *,
    tty: bool,
    stdin: bool,
    forward: Callable[[str], Coroutine[object, object, None]] | None,
    keys: bytes = b"",
    end_stdin: bool = True,
    show: Collection[str] = ("stdout", "stderr"),
) -> None:
    """Bytes between this terminal and the container until its output ends. `forward` sends a signal on; without `stdin`
    the program's input ends if `end_stdin`; `show` are the streams that are printed. Raises Detached."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    detached = asyncio.Event()

    async def tried(coroutine: Coroutine[object, object, None]) -> None:
        with contextlib.suppress(EngineError):  # it ended in between; the exit code tells
            await coroutine

    def later(coroutine: Coroutine[object, object, None]) -> None:
        task = loop.create_task(tried(coroutine))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with _raw(tty and stdin), contextlib.ExitStack() as undo:
        if stdin:
            later(_feed(stream, loop, KeyFilter(keys if tty else b""), detached))
        elif end_stdin:
            await stream.close_stdin()
        if tty and sys.stdout.isatty():

            def resized() -> None:
                later(stream.resize(*terminal_size()))

            resized()
            loop.add_signal_handler(signal.SIGWINCH, resized)
            undo.callback(loop.remove_signal_handler, signal.SIGWINCH)
        if forward is not None:
            # With a terminal in raw mode the keys go through as bytes, so these come from elsewhere.
            for number in (
                signal.SIGINT,
                signal.SIGTERM,
                signal.SIGHUP,
                signal.SIGQUIT,
                signal.SIGUSR1,
                signal.SIGUSR2,
            ):
                loop.add_signal_handler(number, lambda number=number: later(forward(number.name)))  # type: ignore[misc]
                undo.callback(loop.remove_signal_handler, number)
        shown = loop.create_task(_show(stream, show))
        stop = loop.create_task(detached.wait())
        try:
            await asyncio.wait((shown, stop), return_when=asyncio.FIRST_COMPLETED)
            if shown.done():
                shown.result()
            if detached.is_set():
                await stream.detach()
                raise Detached
        finally:
            for task in (shown, stop, *tasks):
                task.cancel()


async def _show(stream: Stream, which: Collection[str]) -> None:
    while chunk := await stream.read():
        name, data = chunk
        if name not in which:
            continue
        out = sys.stderr.buffer if name == "stderr" else sys.stdout.buffer
        out.write(data)
        out.flush()


async def _feed(stream: Stream, loop: asyncio.AbstractEventLoop, keys: KeyFilter, detached: asyncio.Event) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    regular = False
    try:
        loop.add_reader(0, lambda: queue.put_nowait(os.read(0, 65536)))
    except PermissionError:  # a regular file, /dev/null: always ready, and epoll says so by refusing it
        regular = True
    try:
        while True:
            data = await asyncio.to_thread(os.read, 0, 65536) if regular else await queue.get()
            if not data:
                if not regular:
                    loop.remove_reader(0)
                await stream.close_stdin()
                return
            if passed := keys.feed(data):
                await stream.write(passed)
            if keys.found:
                detached.set()
                return
    finally:
        if not regular:
            loop.remove_reader(0)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """The terminal in raw mode, so that keys reach the container as they are; restored whatever happens."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
