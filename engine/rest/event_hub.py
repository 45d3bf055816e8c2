"""One reader of the engine's events for every client that follows them: fifty streams cost what one does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from engine.api import Engine, EngineEvent
from engine.errors import EngineError

BEHIND = 10_000  # events that a client may be behind; then its stream ends: it would hear of them in the wrong order, or never

_Queue = asyncio.Queue["EngineEvent | EngineError | None"]


class EventHub:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clients: set[_Queue] = set()
        self._reader: asyncio.Task[None] | None = None

    @property
    def listeners(self) -> int:
        """How many clients follow."""
        return len(self._clients)

    async def follow(self, since: int | None, until: int | None) -> AsyncGenerator[EngineEvent]:
        """What happened since `since` (nanoseconds; None: nothing of the past), and what happens until `until`.

        Raises what reading the events raises.
        """
        last = -1
        with self._listening() as queue:
            if since is not None:
                now = time.time_ns()
                past = self._engine.events(since_time=since, until=now if until is None else min(now, until))
                async for event in _closing(past):
                    last = max(last, event.seq)
                    yield event
            async for event in _until(queue, until):
                if event.seq > last:
                    yield event

    @contextlib.contextmanager
    def _listening(self) -> Iterator[_Queue]:
        queue: _Queue = asyncio.Queue(BEHIND)
        self._clients.add(queue)
        if self._reader is None:
            self._reader = asyncio.ensure_future(self._read(time.time_ns()))
        try:
            yield queue
        finally:
            self._clients.discard(queue)
            if not self._clients and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    async def _read(self, since: int) -> None:
        failure: EngineError | None = None
        try:
            async for event in _closing(self._engine.events(since_time=since)):
                for queue in tuple(self._clients):
                    try:
                        queue.put_nowait(event)
                    except asyncio.QueueFull:
                        self._end(queue, None)
        except EngineError as error:
            failure = error
        for queue in tuple(self._clients):
            self._end(queue, failure)
        self._reader = None

    def _end(self, queue: _Queue, failure: EngineError | None) -> None:
        self._clients.discard(queue)
        while queue.full():
            queue.get_nowait()
        queue.put_nowait(failure)


async def _closing(events: AsyncIterator[EngineEvent]) -> AsyncGenerator[EngineEvent]:
    try:
        async for event in events:
            yield event
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _until(queue: _Queue, until: int | None) -> AsyncGenerator[EngineEvent]:
    while True:
        left = None if until is None else (until - time.time_ns()) / 1e9
        try:
            async with asyncio.timeout(None if left is None else max(left, 0)):
                item = await queue.get()
        except TimeoutError:
            return
        if isinstance(item, EngineError):
            raise item
        if item is None or (until is not None and item.time > until):
            return
        yield item
