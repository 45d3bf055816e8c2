"""Waiting for files to change."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.linux.inotify import Inotify

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = lazy("asyncio")


class Hints:
    """inotify as a hint that a look is worth while; a time-out looks anyway. Without paths there is nothing to hint at."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._inotify: Inotify | None = None
        with contextlib.suppress(OSError):  # out of instances: the time-outs below still look
            self._inotify = Inotify() if paths else None
        if self._inotify is not None:
            self._loop.add_reader(self._inotify.fd, self._ready)
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        if self._inotify is not None:
            with contextlib.suppress(OSError):
                self._inotify.add(path)

    def _ready(self) -> None:
        if self._inotify is not None and self._inotify.drain():
            self._event.set()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds if self._inotify else 0.2)
        self._event.clear()

    def __enter__(self) -> Hints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        ended, self._inotify = self._inotify, None
        if ended is not None:
            self._loop.remove_reader(ended.fd)
            ended.close_beside()
