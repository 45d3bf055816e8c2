"""A log that never makes the program wait (`--log-opt mode=non-blocking`): what the disk does not take in time is dropped.

A child of the monitor writes the file, since write(2) itself waits when the kernel throttles a writer. Between the two are a
pipe and a buffer of `max-buffer-size` bytes; as in Docker what is in the buffer stays and what comes next is dropped. Other
than there it is counted: a line in the log says how many at the place where they are missing, and so does `inspect`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from engine.linux import libc
from engine.runtime import outside
from engine.runtime.jsonlog import Log, compress_file, stamp
from engine.runtime.loop import WRITE, Loop

BUFFER = 1_000_000  # bytes, Docker's default
_BLOCK = 1 << 16
_RETRY = 0.05  # seconds between attempts to write to a full disk
_PATIENCE = 0.2  # seconds that one look at the end waits for the child

Compress = Callable[[str, Callable[[], None]], None]


class RingLog:
    """In place of a `Log`. `open_log(compress)` opens the real one, in the child; `told` is called with how many lines were
    dropped so far."""

    def __init__(
        self,
        loop: Loop,
        open_log: Callable[[Compress | None], Log],
        extra: bytes,
        *,
        size: int = BUFFER,
        told: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.extra = extra
        self.blocked = False
        self.dropped = 0
        self._loop, self._size, self._told = loop, size, told
        self._buffer = bytearray()
        self._unsaid = 0
        read, self._pipe = os.pipe2(os.O_CLOEXEC)
        self._pid = outside.fork()
        if self._pid == 0:
            _write_on(read, open_log)
        self._pidfd = os.pidfd_open(self._pid)
        os.close(read)
        os.set_blocking(self._pipe, False)

    def write(self, records: bytes) -> None:
        """Whole records; those that do not fit are dropped."""
        if not records:
            return
        room = self._size - len(self._buffer)
        # Docker takes one that is larger than all of it when there is nothing else.
        taken = len(records) if len(records) <= room else records.rfind(b"\n", 0, max(room, 0)) + 1
        if not taken and not self._buffer:
            taken = records.find(b"\n") + 1
        if taken:
            if self._unsaid:
                self._buffer += self._rule()
            self._buffer += records[:taken]
        if lost := records.count(b"\n", taken):
            self.dropped += lost
            self._unsaid += lost
            self._told(self.dropped)
        self._pump()

    def _rule(self) -> bytes:
        lines = "1 line was" if self._unsaid == 1 else f"{self._unsaid} lines were"
        text = f"── {lines} dropped here: the log could not keep up (mode=non-blocking) ──\n"
        self._unsaid = 0
        record = {"log": text, "stream": "workbench", "time": stamp(time.time_ns())}
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def _pump(self, _fd: int = -1, _events: int = 0) -> None:
        try:
            while self._buffer:
                del self._buffer[: os.write(self._pipe, memoryview(self._buffer)[:_BLOCK].tobytes())]
        except BlockingIOError:
            self._loop.watch(self._pipe, WRITE, self._pump)
            return
        except OSError:  # EPIPE: somebody has ended our child
            self.dropped += self._buffer.count(b"\n")
            self._told(self.dropped)
            self._buffer.clear()
        self._loop.forget(self._pipe)

    def flush(self) -> None:
        if self._pipe >= 0:
            self._pump()

    def settled(self) -> bool:
        """At the end: whether all that was taken is in the file. Waits a little for it."""
        end = time.monotonic() + _PATIENCE
        while self._buffer and time.monotonic() < end:
            select.select([], [self._pipe], [], _PATIENCE)
            self._pump()
        if self._buffer:
            return False
        if self._unsaid:
            self._buffer += self._rule()
            return self.settled()
        if self._pipe >= 0:
            self._loop.forget(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        if self._pidfd < 0:
            return True
        if not select.select([self._pidfd], [], [], _PATIENCE)[0]:
            return False
        os.waitpid(self._pid, 0)
        os.close(self._pidfd)
        self._pidfd = -1
        return True


# --- the child --------------------------------------------------------------------------------------------


class _Compression:
    """In a process of its own; one at a time, as `Log` has it."""

    def __init__(self) -> None:
        self._pid = 0
        self._done: Callable[[], None] | None = None

    def begin(self, path: str, done: Callable[[], None]) -> None:
        self._pid, self._done = os.fork(), done
        if self._pid == 0:
            status = 1
            try:
                libc.close_from(3)
                os.nice(10)
                compress_file(path)
                status = 0
            finally:
                os._exit(status)

    def look(self, *, wait: bool = False) -> None:
        if self._pid and os.waitpid(self._pid, 0 if wait else os.WNOHANG)[0]:
            self._pid = 0
            assert self._done is not None
            self._done()


def _write_on(source: int, open_log: Callable[[Compress | None], Log]) -> NoReturn:
    """Until the monitor closes the pipe, by its end as well."""
    try:
        if source != 3:  # dup3(2) refuses to exchange one for itself
            os.dup2(source, 3, inheritable=False)
        libc.close_from(4)
        libc.set_name("wb-log")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        compression = _Compression()
        log, rest = open_log(compression.begin), b""
        while block := os.read(3, _BLOCK):
            compression.look()
            rest += block
            whole = rest.rfind(b"\n") + 1
            if whole:
                log.write(rest[:whole])
                rest = rest[whole:]
            while log.blocked:  # a full disk, or the file before is being compressed: the monitor drops meanwhile
                time.sleep(_RETRY)
                compression.look()
                log.flush()
        with contextlib.suppress(OSError, ChildProcessError):
            compression.look(wait=True)
    finally:
        os._exit(0)
