"""`engine.api.LogBook` over log files: the index works on a thread, one call at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.base.lazy import lazy
from engine.local.hints import Hints
from engine.model import LogExtent, LogHit, LogQuery, LogRow
from engine.service.log_index import LogIndex
from engine.service.log_source import LogPlace, LogSource, replaced

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = lazy("asyncio")

T = TypeVar("T")
Find = Callable[[str], LogPlace]
_LOOK = 10.0  # seconds after which a log is looked at without a hint


class LocalLogBook:
    """`find` says where the container of a name writes now; it works on a thread and raises `NotFound`."""

    def __init__(self, sources: Sequence[LogSource], places: Sequence[LogPlace], find: Find) -> None:
        self._index = LogIndex(sources)
        self._places, self._find = list(places), find
        self._names = tuple(source.name for source in sources)
        self._lock = asyncio.Lock()
        self._hints = Hints(list(dict.fromkeys(os.path.dirname(place.path) for place in places)))
        self._closed = False

    @classmethod
    async def open(cls, names: Sequence[str], find: Find) -> LocalLogBook:
        """Of containers. Raises `NotFound`."""

        def make() -> dict[str, tuple[str, LogPlace]]:
            by_path: dict[str, tuple[str, LogPlace]] = {}
            for name in names:
                place = _present(find(name))
                by_path.setdefault(place.path, (name, place))
            return by_path

        found = (await asyncio.to_thread(make)).values()
        return cls([LogSource(Path(place.path), name) for name, place in found], [place for _, place in found], find)

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

    async def renew(self) -> None:
        places = await asyncio.to_thread(lambda: [_present(self._find(name)) for name in self._names])
        for source, (before, now) in enumerate(zip(self._places, places, strict=True)):
            if now.path != before.path:
                self._hints.add(os.path.dirname(now.path))
                work = partial(self._index.follow, source, Path(now.path), replaced(before.id, now), now.created)
                await self._do(work)
            self._places[source] = now

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


def _present(place: LogPlace) -> LogPlace:
    """With a folder to be watched, also before the first line."""
    Path(place.path).parent.mkdir(mode=0o710, parents=True, exist_ok=True)
    return place
