"""`engine.api.LogBook` over log files: the index works on a thread, one call at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.base.lazy import lazy
from engine.local.hints import Hints
from engine.model import LogExtent, LogHit, LogQuery, LogRow
from engine.service.log_index import LogIndex
from engine.service.log_source import LogSource

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = lazy("asyncio")

T = TypeVar("T")
_LOOK = 10.0  # seconds after which a log is looked at without a hint


class LocalLogBook:
    def __init__(self, sources: Sequence[LogSource]) -> None:
        self._index = LogIndex(sources)
        self._names = tuple(source.name for source in sources)
        self._lock = asyncio.Lock()
        self._hints = Hints([str(path) for path in dict.fromkeys(source.path.parent for source in sources)])
        self._closed = False

    @classmethod
    async def open(cls, logs: Sequence[tuple[str, Path]]) -> LocalLogBook:
        """Of containers and their log files."""
        by_path: dict[Path, str] = {}
        for name, path in logs:
            by_path.setdefault(path, name)

        def make() -> list[LogSource]:
            for path in by_path:
                path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            return [LogSource(path, name) for path, name in by_path.items()]

        return cls(await asyncio.to_thread(make))

    @property
    def names(self) -> Sequence[str]:
        return self._names

    async def _do(self, work: Callable[[], T]) -> T:
        async with self._lock:
            # The thread goes on when the waiting task is cancelled; the next one must not start beside it.
            job = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(job)
            except asyncio.CancelledError:
                await asyncio.wait([job])
                raise

    async def advance(self) -> LogExtent:
        return await self._do(self._index.advance)

    async def changed(self) -> None:
        await self._hints.wait(_LOOK)

    async def select(self, query: LogQuery | None, *, since: int = 0) -> None:
        await self._do(lambda: self._index.select(query, since))

    async def search(self, query: LogQuery | None) -> None:
        await self._do(lambda: self._index.search(query))

    async def rows(self, first: int, count: int) -> Sequence[LogRow]:
        return await self._do(lambda: self._index.rows(first, count))

    async def row_of(self, place: int) -> int:
        return await self._do(lambda: self._index.row_of(place))

    async def next_hit(self, row: int, *, forward: bool = True) -> LogHit | None:
        return await self._do(lambda: self._index.next_hit(row, forward=forward))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._hints.close()
            await self._do(self._index.close)
