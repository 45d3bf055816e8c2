"""Monitors that were killed, noticed by the supervisor, whose children they are: an engine is started that records what became of
their containers, and starts again what has a restart policy (`service.life`). It goes on without any engine at hand.

Who has ended otherwise has recorded so itself. Of the children of a supervisor that was killed nobody hears; the next one looks for
their sockets when it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from typing import Any

from engine.runtime import outside

COMMAND = "caretaker.json"  # in the run directory: the command of that engine
_FIRST = 0.2  # seconds after the supervisor's start
_OFTEN, _LONGEST = (
    10.0,
    60.0,
)  # one so soon after the other waits longer each time: what cannot live is not tried for ever


class Deaths:
    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, _heard)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._deadline: float | None = time.monotonic() + _FIRST
        self._helper, self._certain = 0, False
        self._last, self._pause = -_OFTEN, 0.0

    def fds(self) -> list[int]:
        return [self._read]

    def due(self) -> float | None:
        """When `turn` has something to do (time.monotonic)."""
        return None if self._helper else self._deadline

    def turn(self, ready: list[Any]) -> None:
        if self._read in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read, 4096):
                    pass
            self._reap()
        if self._deadline is not None and not self._helper and time.monotonic() >= self._deadline:
            self._deadline, self._last = None, time.monotonic()
            with contextlib.suppress(OSError):
                self._helper = os.fork()
                if not self._helper:
                    self._look()
            self._certain = False

    def _reap(self) -> None:
        killed = False
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._helper:
                    self._helper = 0
                else:
                    killed = killed or found[1] != 0
        if killed and not self._certain:
            self._certain = True
            now = time.monotonic()
            soon = now - self._last < _OFTEN
            self._pause = min(max(2 * self._pause, 1.0), _LONGEST) if soon else 0.0
            self._deadline = now + self._pause

    def close(self) -> None:
        """In a child: its own children are its affair alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def _look(self) -> None:
        """In a child: starts the engine, when a monitor has left its socket, on which nobody listens, or was seen to die."""
        try:
            self.close()
            folder = os.path.join(self._run_dir, "c")
            if self._certain or any(_deserted(os.path.join(folder, name)) for name in os.listdir(folder)):
                with open(os.path.join(self._run_dir, COMMAND), encoding="utf-8") as file:
                    outside.spawn([str(word) for word in json.loads(file.read())])
        except (OSError, ValueError):
            pass
        finally:
            os._exit(0)


def _heard(_number: int, _frame: object) -> None:
    """The descriptor wakes the loop."""


def _deserted(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:  # it is busy, or just gone
            pass
    return False
