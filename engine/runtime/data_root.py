"""The data root that a supervisor works for. Once it is removed nobody asks the supervisor for anything any more, and it would wait for
ever: it ends when the last container has ended and its networks are gone. The watch is inotify(7)'s; a root that was made anew at the
same place is watched in its turn."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from engine.linux.inotify import IN_DELETE_SELF, Inotify
from engine.runtime import bridges, protocol
from engine.runtime.deaths import COMMAND

_AGAIN = 2.0  # seconds from one look to the next, while there is no root and containers go on


class DataRoot:
    def __init__(self, run_dir: str) -> None:
        self._run_dir, self._root = run_dir, _root_of(run_dir)
        self._events: Inotify | None = None
        self._deadline: float | None = None  # set while it is gone
        if self._root:
            try:
                self._events = Inotify()
            except OSError:
                return  # no instance left: then it stays, as long as its folder does
            self._watch()

    def fds(self) -> list[int]:
        return [] if self._events is None else [self._events.fd]

    def due(self) -> float | None:
        """When to look again (time.monotonic)."""
        return self._deadline

    def turn(self, ready: list[Any]) -> None:
        if self._events is None:
            return
        if (self._events.fd in ready and self._events.drain()) or (
            self._deadline is not None and time.monotonic() >= self._deadline
        ):
            self._watch()

    def over(self) -> bool:
        """It is gone, and nothing of it is left to look after."""
        return self._deadline is not None and not _some(self._run_dir)

    def close(self) -> None:
        """In a monitor: it is not its affair."""
        if self._events is not None:
            self._events.close()

    def _watch(self) -> None:
        assert self._events is not None
        try:
            self._events.add(self._root, IN_DELETE_SELF)
        except FileNotFoundError:
            self._deadline = time.monotonic() + _AGAIN
        except OSError:
            self._deadline = None  # no watch left, or not ours to see: it is there
        else:
            self._deadline = None


def _root_of(run_dir: str) -> str:
    """The last word of the command that sees to containers (`client.Runtime.caretaker`); "" if there is none."""
    try:
        with open(os.path.join(run_dir, COMMAND), encoding="utf-8") as file:
            words = json.load(file)
    except (OSError, ValueError):
        return ""
    return str(words[-1]) if words and os.path.isabs(str(words[-1])) else ""


def _some(run_dir: str) -> bool:
    """Whether a monitor answers, or a network is left."""
    try:
        if os.listdir(os.path.join(run_dir, bridges.FOLDER)):
            return True
    except OSError:
        pass
    try:
        names = [name for name in os.listdir(os.path.join(run_dir, "c")) if name.endswith(".sock")]
    except OSError:
        return False
    for name in names:
        try:
            protocol.connect(os.path.join(run_dir, "c"), name).close()
        except OSError:
            continue
        return True
    return False
