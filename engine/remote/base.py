"""What every part of a remote engine shares: the client, files between threads and the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, BinaryIO

from engine.remote.client import CHUNK, Client
from engine.remote.hosts import Target

if TYPE_CHECKING:
    from engine.api import Sink
    from engine.model import LogLine


class Remote:
    """Everything that the parts are methods of."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._client = Client(target)
        self._endings: dict[str, asyncio.Future[int]] = {}  # exit codes that are waited for since before a start
        # Of the inner loop that works through this engine: see `logs`.
        self._log_paths: dict[str, str] = {}  # by container
        self._rules: dict[str, list[LogLine]] = {}
        self._seen: dict[str, int] = {}
        self._listeners: dict[str, set[asyncio.Queue[LogLine | BaseException | None]]] = {}

    async def close(self) -> None:
        for ending in self._endings.values():
            ending.cancel()
        await asyncio.gather(*self._endings.values(), return_exceptions=True)
        await self._client.close()


async def reading(source: BinaryIO, seen: Callable[[int], None] | None = None) -> AsyncGenerator[bytes, None]:
    """A file's bytes, read on a thread; `seen` hears how many there were."""
    while data := await asyncio.to_thread(source.read, CHUNK):
        if seen is not None:
            seen(len(data))
        yield data


async def writing(parts: AsyncIterator[bytes], out: Sink) -> None:
    """Bytes into a sink, which is called on a thread."""
    async for part in parts:
        view = memoryview(part)
        while view:
            written = await asyncio.to_thread(out.write, bytes(view))
            view = view[written if isinstance(written, int) and written > 0 else len(view) :]
