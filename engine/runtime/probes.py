"""The monitor's health checks: runs the probe inside the container, at the times and with the results of `health`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from engine.runtime.exec_sessions import Listener, Session
from engine.runtime.health import MAX_OUTPUT, TIMED_OUT, Health, Healthcheck, clip
from engine.runtime.loop import READ, Loop, Timer

# Starts a command with these stdin, stdout, stderr (which it closes); None: the listener was told why not.
StartProbe = Callable[[tuple[str, ...], list[int], Listener], "Session | None"]


class Prober:
    """`changed` is called after each result; true: with a new status."""

    def __init__(self, loop: Loop, check: Healthcheck, start: StartProbe, changed: Callable[[bool], None]) -> None:
        self.health = Health(check)
        self._loop, self._start, self._changed = loop, start, changed
        self._timer: Timer | None = None
        self._probe: _Probe | None = None
        self._since = time.monotonic()

    def begin(self) -> None:
        """The container runs (again, after a pause)."""
        self._timer = self._loop.later(self.health.next_delay(self._running_for()), self._ring)

    def stop(self) -> None:
        """It is paused or has ended. A probe under way counts for nothing."""
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.abandon()
            self._probe = None
        self.health.stopped()

    def _running_for(self) -> float:
        return time.monotonic() - self._since

    def _ring(self) -> None:
        self._probe = _Probe(self._loop, self._took)
        self._probe.running_for = self._running_for()
        self._probe.run(self.health.check, self._start)

    def _took(self, probe: _Probe, code: int, output: str) -> None:
        self._probe = None
        changed = self.health.probed(code, output, probe.started_ns, time.time_ns(), running_for=probe.running_for)
        # By what it is now: one that has become healthy is asked at its interval, also within its start period.
        self._timer = self._loop.later(self.health.next_delay(self._running_for()), self._ring)
        self._changed(changed)


class _Probe:
    """One run of the command. Tells (exit code, output) once."""

    def __init__(self, loop: Loop, done: Callable[[_Probe, int, str], None]) -> None:
        self._loop, self._done = loop, done
        self._output = bytearray()
        self._read = -1
        self._session: Session | None = None
        self._limit: Timer | None = None
        self._told = False
        self.started_ns = time.time_ns()
        self.running_for = 0.0

    def run(self, check: Healthcheck, start: StartProbe) -> None:
        self._read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._loop.watch(self._read, READ, self._on_output)
        self._limit = self._loop.later(check.timeout, lambda: self._late(check.timeout))
        self._session = start(check.args, [null, write, os.dup(write)], self)

    def _on_output(self, fd: int, _events: int) -> None:
        while True:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return
            if not data:
                self._loop.forget(fd)
                return
            if len(self._output) <= MAX_OUTPUT:
                self._output += data

    def _tell(self, code: int, output: str) -> None:
        if self._told:
            return
        self._told = True
        if self._limit is not None:
            self._limit.cancel()
        self._loop.forget(self._read)
        os.close(self._read)
        self._done(self, code, output)

    def _late(self, timeout: float) -> None:
        if self._session is not None:
            self._session.kill()
        shown = f"{timeout:g}s" if timeout >= 1 else f"{timeout * 1000:g}ms"
        self._tell(TIMED_OUT, f"Health check exceeded timeout ({shown})")

    def abandon(self) -> None:
        if self._session is not None:
            self._session.kill()
        self._done = lambda _probe, _code, _output: None
        self._tell(TIMED_OUT, "")

    # --- what the exec says --------------------------------------------------------------------------

    def terminal(self, fds: list[int]) -> None:
        """It has none."""

    def started(self, pid: int) -> None:
        """Known already."""

    def failed(self, message: str, code: int, number: int) -> None:
        self._tell(TIMED_OUT, message)

    def ended(self, code: int) -> None:
        if not self._told:
            self._on_output(self._read, READ)
            self._tell(code, clip(bytes(self._output)))
