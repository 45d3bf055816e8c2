"""What every part of a remote engine shares: the client, files between threads and the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from engine import calls
from engine.errors import NotFound
from engine.remote.client import CHUNK, Client
from engine.remote.errors import beyond
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

    async def _is_workbench(self) -> bool:
        await self._client.negotiate()
        return self._client.is_workbench

    async def _own(self, method: str, what: str, **arguments: object) -> Any:
        """Asks another workbench (`engine.calls`). `what` names it in the `Unsupported` that is raised for any other engine."""
        if not await self._is_workbench():
            raise beyond(what)
        try:
            answer = await self._client.post(f"{calls.PATH}/{method}", body=calls.encode(arguments))
        except NotFound as error:
            if "page not found" in error.message or "there is no call" in error.message:
                raise beyond(what, "the workbench over there is an older one") from error
            raise
        return calls.decode(calls.hints(method)["return"], answer.get("result") if isinstance(answer, dict) else None)


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
