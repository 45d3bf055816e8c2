"""`engine.api.LogBook` for an engine that has no log files to read from: the last rows of each log, and what follows them."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from engine.base.clock import rfc3339
from engine.errors import EngineError
from engine.model import LogExtent, LogHit, LogLine, LogQuery, LogRow
from engine.service.log_match import Matcher
from engine.service.log_source import LogPlace, replaced
from engine.service.logs import full_stamp

TAIL = 10_000  # rows of each log to begin with
MOST = 50_000  # rows that are kept
_SLACK = 1000


Follow = Callable[[str, int], AsyncIterator[LogLine]]
Find = Callable[[str], Awaitable[LogPlace]]


class TailBook:
    """`follow(name, since)` gives the last `TAIL` lines of a container that are younger than `since` (ns since the epoch; 0: all) and
    then goes on: `Engine.logs` with `follow` and `tail`. `find` says which container bears a name now; it raises `NotFound`."""

    def __init__(self, names: Sequence[str], places: Sequence[LogPlace], follow: Follow, find: Find) -> None:
        self.names = tuple(names)
        self._places, self._follow, self._find = list(places), follow, find
        self._earlier: list[asyncio.Task[None]] = []
        self._latest = [0] * len(names)  # times of the last lines
        self._rows: list[LogRow] = []
        self._fresh: list[LogRow] = []
        self._kept: list[int] = []  # places
        self._dropped = [0, 0]  # rows, kept rows
        self._query: Matcher | None = None
        self._search: Matcher | None = None
        self._since = ""
        self._news = asyncio.Event()
        self._trouble: EngineError | None = None
        self._tasks = [asyncio.create_task(self._read(index, follow(name, 0))) for index, name in enumerate(names)]

    @classmethod
    async def open(cls, names: Sequence[str], follow: Follow, find: Find) -> TailBook:
        """Raises `NotFound`."""
        return cls(names, [await find(name) for name in names], follow, find)

    async def renew(self) -> None:
        for source, name in enumerate(self.names):
            before, now = self._places[source], await self._find(name)
            same = now.id == before.id
            if same and not self._tasks[source].done():
                continue
            same = same or (now.path != "" and now.path == before.path)  # whoever replaced it writes its own rule
            if not same:
                self._take(LogRow(0, source, "workbench", full_stamp(rfc3339(now.created)), replaced(before.id, now)))
            self._places[source] = now
            self._earlier.append(self._tasks[source])  # goes on to its end: the last words of the one before
            since = self._latest[source] + 1 if same and self._latest[source] else 0
            self._tasks[source] = asyncio.create_task(self._read(source, self._follow(name, since)))

    async def _read(self, source: int, lines: AsyncIterator[LogLine]) -> None:
        try:
            async for line in lines:
                self._latest[source] = max(self._latest[source], line.time)
                self._take(LogRow(0, source, line.stream, full_stamp(rfc3339(line.time)), line.text))
        except EngineError as error:
            self._trouble = error
            self._news.set()

    def _take(self, row: LogRow) -> None:
        insort(self._fresh, row, key=lambda one: one.stamp)
        self._news.set()

    async def advance(self) -> LogExtent:
        """Raises what reading a log has raised, once."""
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        first = self._dropped[0] + len(self._rows)
        fresh = [row._replace(place=first + index) for index, row in enumerate(self._fresh)]
        self._fresh = []
        self._rows += fresh
        self._kept += self._keep(fresh)
        if len(self._rows) > MOST + _SLACK:
            del self._rows[:-MOST]
            self._dropped[0] = self._rows[0].place
            gone = bisect_left(self._kept, self._dropped[0])
            del self._kept[:gone]
            self._dropped[1] += gone
        end = self._dropped[1] + len(self._kept)
        return LogExtent(self._dropped[1], end, self._dropped[0] + len(self._rows), len(self._hits()), 1.0)

    def _keep(self, rows: Sequence[LogRow]) -> list[int]:
        rows = [row for row in rows if row.stamp >= self._since]
        if self._query is not None:
            test = self._query.test
            rows = [row for row in rows if row.stream == "workbench" or test(row.text)]
        return [row.place for row in rows]

    def _hits(self) -> list[int]:
        """Numbers of kept rows."""
        if self._search is None:
            return []
        test, first, gone = self._search.test, self._dropped[1], self._dropped[0]
        return [first + at for at, place in enumerate(self._kept) if test(self._rows[place - gone].text)]

    async def changed(self) -> None:
        await self._news.wait()
        self._news.clear()

    async def select(self, query: LogQuery | None, *, since: int = 0) -> None:
        self._query = Matcher(query) if query and query.text else None
        self._since = full_stamp(rfc3339(since)) if since else ""
        self._kept, self._dropped[1] = self._keep(self._rows), 0

    async def search(self, query: LogQuery | None) -> None:
        self._search = Matcher(query) if query and query.text else None

    async def rows(self, first: int, count: int) -> Sequence[LogRow]:
        at = max(0, first - self._dropped[1])
        return [self._rows[place - self._dropped[0]] for place in self._kept[at : at + count]]

    async def row_of(self, place: int) -> int:
        return self._dropped[1] + bisect_left(self._kept, place)

    async def next_hit(self, row: int, *, forward: bool = True) -> LogHit | None:
        hits = self._hits()
        if not hits:
            return None
        if forward:
            number = next((index for index, hit in enumerate(hits) if hit > row), 0)
        else:
            number = next((index for index in range(len(hits) - 1, -1, -1) if hits[index] < row), len(hits) - 1)
        return LogHit(hits[number], number + 1)

    async def close(self) -> None:
        tasks = self._earlier + self._tasks
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
