"""A running container's standard streams, as its monitor has them: output to the log and to whoever is attached, input
from whoever is attached to the program. Nothing blocks, and a full disk makes the program wait instead of losing lines.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable

from engine.linux import pty
from engine.runtime import protocol
from engine.runtime.jsonlog import Log, Splitter
from engine.runtime.launch import Started
from engine.runtime.loop import READ, WRITE, Loop
from engine.runtime.ringlog import RingLog

_CHUNK = 65536
_RETRY = 0.25  # seconds between attempts to write to a full disk
_FULL_PIPE = 1 << 20  # bytes: what a stream that fills its pipe gets, so that fewer turns move more
STDIN_BUFFER = 1 << 20  # bytes waiting for the program, beyond which attached clients are not read


class Streams:
    """`send` is called with (protocol.STDOUT or STDERR, bytes) for those who are attached."""

    def __init__(self, loop: Loop, log: Log | RingLog | None, send: Callable[[int, bytes], None]) -> None:
        self._loop, self._log, self._send = loop, log, send
        self._outputs: dict[int, int] = {}  # our end → protocol.STDOUT or STDERR
        self._splitters: dict[int, Splitter] = {}
        self._grown: set[int] = set()
        self._stdin = -1
        self._stdin_buffer = bytearray()
        self._stdin_ending = False
        self._master = -1
        self._waiting = False  # for room on the disk
        if isinstance(log, Log):
            log.ready = self._go_on

    def open(self, started: Started) -> None:
        self._master, self._stdin = started.master, started.stdin
        for fd, kind in ((started.stdout, protocol.STDOUT), (started.stderr, protocol.STDERR)):
            if fd >= 0:
                os.set_blocking(fd, False)
                self._outputs[fd] = kind
                self._splitters[kind] = Splitter(protocol.STREAM_NAMES[kind], self._log.extra if self._log else b"")
                self._loop.watch(fd, READ, self._on_output)
        if self._stdin >= 0 and self._stdin != self._master:
            os.set_blocking(self._stdin, False)

    @property
    def tty(self) -> bool:
        return self._master >= 0

    # --- output --------------------------------------------------------------------------------------

    def _on_output(self, fd: int, _events: int) -> None:
        try:
            data = os.read(fd, _FULL_PIPE if fd in self._grown else _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: a terminal whose last slave is closed
            data = b""
        if not data:
            self._loop.forget(fd)
            self._outputs.pop(fd)
            self._grown.discard(fd)
            if fd != self._master:
                os.close(fd)
            return
        if len(data) == _CHUNK and fd != self._master and fd not in self._grown:
            self._grow(fd)
        self._output(self._outputs[fd], data)

    def _grow(self, fd: int) -> None:
        self._grown.add(fd)
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _FULL_PIPE)
        except OSError:  # beyond /proc/sys/fs/pipe-max-size
            pass

    def _output(self, kind: int, data: bytes) -> None:
        if self._log is not None:
            self._log.write(self._splitters[kind].feed(data, time.time_ns()))
            if self._log.blocked and not self._waiting:
                # The disk is full: leave the rest in the pipe, so that the program waits instead of losing lines.
                self._waiting = True
                for fd in self._outputs:
                    self._loop.forget(fd)
                self._loop.later(_RETRY, self._retry)
        self._send(kind, data)

    def _retry(self) -> None:
        if not self._waiting or self._log is None:
            return
        self._log.flush()
        if self._log.blocked:
            self._loop.later(_RETRY, self._retry)
            return
        self._go_on()

    def _go_on(self) -> None:
        """The log has room again."""
        if not self._waiting:
            return
        self._waiting = False
        for fd in self._outputs:
            self._loop.watch(fd, READ, self._on_output)
        self._watch_stdin()

    def catch_up(self) -> None:
        """What is written so far, of processes that are stopped."""
        for fd, kind in self._outputs.items():
            self._empty(fd, kind)

    def _empty(self, fd: int, kind: int) -> None:
        while True:
            try:
                data = os.read(fd, _CHUNK)
            except OSError:
                return
            if not data:
                return
            if self._log is not None:
                self._log.write(self._splitters[kind].feed(data, time.time_ns()))
            self._send(kind, data)

    def drain(self) -> None:
        """What the streams still hold at the end. Everything in the pid namespace is dead, so it is finite."""
        for fd, kind in list(self._outputs.items()):
            self._loop.forget(fd)
            self._empty(fd, kind)
            if fd != self._master:
                os.close(fd)
        if self._log is not None:
            for splitter in self._splitters.values():
                self._log.write(splitter.finish(time.time_ns()))
        self._close_stdin()
        if self._master >= 0:
            os.close(self._master)
        self._outputs.clear()
        self._grown.clear()
        self._master, self._waiting = -1, False

    # --- input ---------------------------------------------------------------------------------------

    @property
    def stdin_full(self) -> bool:
        return len(self._stdin_buffer) > STDIN_BUFFER

    def feed(self, data: bytes) -> None:
        """Bytes for the program's stdin."""
        if self._stdin < 0:
            return
        self._stdin_buffer += data
        try:
            while self._stdin_buffer:
                done = os.write(self._stdin, self._stdin_buffer[:_CHUNK])
                del self._stdin_buffer[:done]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: the program closed its stdin
            self._stdin_buffer.clear()
            self._stdin_ending = not self.tty
        self._watch_stdin()
        if self._stdin_ending and not self._stdin_buffer and not self.tty:
            self._close_stdin()

    def end_stdin(self) -> None:
        """No more input, once what was fed has gone. A terminal has no such end."""
        if not self.tty:
            self._stdin_ending = True
            self.feed(b"")

    def resize(self, rows: int, columns: int) -> bool:
        if self._master < 0:
            return False
        pty.resize(self._master, rows, columns)
        return True

    def _close_stdin(self) -> None:
        if self._stdin >= 0 and self._stdin != self._master:
            self._loop.forget(self._stdin)
            os.close(self._stdin)
        self._stdin = -1
        self._stdin_buffer.clear()
        self._stdin_ending = False

    def _watch_stdin(self) -> None:
        """Waits for room while there is something to write."""
        full = bool(self._stdin_buffer)
        if self._stdin == self._master:
            if self._master in self._outputs and not self._waiting:
                self._loop.watch(self._master, READ | (WRITE if full else 0), self._on_terminal)
        elif full:
            self._loop.watch(self._stdin, WRITE, lambda _fd, _events: self.feed(b""))
        else:
            self._loop.forget(self._stdin)

    def _on_terminal(self, fd: int, events: int) -> None:
        if events & WRITE:
            self.feed(b"")
        if events & READ and fd in self._outputs:
            self._on_output(fd, events)
