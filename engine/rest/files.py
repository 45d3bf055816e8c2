"""Bodies as files for work on other threads: a request's body to read from, a sink whose bytes become a response."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from engine.api import Sink
from engine.rest.http import Body

T = TypeVar("T")
_PARTS = 8  # chunks between the thread that writes and the client that reads


class BodyFile(io.RawIOBase):
    """A request's body for a thread to read. `close` (from the loop) ends a read that waits, with an error."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._chunks = aiter(body)
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._waiting: Future[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                self._rest = memoryview(self._waiting.result())
            except CancelledError:
                raise ConnectionResetError("the client went away") from None
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    async def drain(self) -> None:
        """What stands behind the end of an archive: padding. Only then can the client's going be noticed."""
        async for _ in self._chunks:
            pass

    def abandon(self) -> None:
        """The reader gets an error from now on."""
        if self._waiting is not None:
            self._waiting.cancel()


class _Pipe:
    """`engine.api.Sink` on one side, an iterator on the other; the writer waits while the reader is behind."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_PARTS)
        self._gone = False

    def write(self, data: bytes | memoryview) -> int:
        if self._gone:
            raise ConnectionResetError("the client went away")
        try:
            asyncio.run_coroutine_threadsafe(self.queue.put(bytes(data)), self._loop).result()
        except CancelledError:
            raise ConnectionResetError("the client went away") from None
        return len(data)

    def abandon(self) -> None:
        self._gone = True
        while not self.queue.empty():
            self.queue.get_nowait()


async def piped(produce: Callable[[Sink], Awaitable[object]]) -> AsyncIterator[bytes]:
    """What `produce` writes into its sink, as it comes. The first bytes are waited for before the head is sent by the caller."""
    pipe = _Pipe()

    async def run() -> None:
        try:
            await produce(pipe)
        except Exception as error:
            await pipe.queue.put(error)
        else:
            await pipe.queue.put(None)

    task = asyncio.ensure_future(run())
    try:
        while (item := await pipe.queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        pipe.abandon()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def begun(stream: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same stream, once its first item is there: what fails before it can still be answered with a status."""
    try:
        first = [await anext(stream)]
    except StopAsyncIteration:
        first = []

    async def rest() -> AsyncIterator[T]:
        for item in first:
            yield item
        async for item in stream:
            yield item

    return rest()
