"""Logs and events of the in-process engine: files and rows that every process reads for itself."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import model
from engine.base.lazy import lazy
from engine.errors import InvalidInput
from engine.local.base import Services
from engine.local.hints import Hints

if TYPE_CHECKING:
    import asyncio

    from engine.local.log_book import LocalLogBook
    from engine.model import EngineEvent, LogLine, LogRecord
    from engine.service.logs import LogReader
else:
    asyncio = lazy("asyncio")

_COMMIT = 0.02  # seconds


class LogsPart(Services):
    """What was said, and what happened."""

    async def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[LogLine]:
        async with contextlib.aclosing(self._follow(name, follow, tail, since, until)) as readers:
            async for reader in readers:
                for line in reader.lines():
                    yield line

    async def log_records(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[Sequence[LogRecord]]:
        async with contextlib.aclosing(self._follow(name, follow, tail, since, until)) as readers:
            async for reader in readers:
                for batch in reader.records():
                    yield batch

    async def _follow(
        self, name: str, follow: bool, tail: int | None, since: int, until: int
    ) -> AsyncGenerator[LogReader, None]:
        """The reader each time that it may have more."""
        from engine.service.logs import LogReader

        path, bundle = await self._do(self._log_of, name)
        if not path.exists():
            if not follow or self._runtime.state(bundle).status != "created":
                return
            path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640))
        with (
            Hints([str(path.parent), str(bundle)] if follow else []) as hints,
            await self._do(LogReader, path, tail=tail, since=since, until=until) as reader,
        ):
            while True:
                state = self._runtime.state(bundle)
                alive = follow and bundle.exists() and (state.active or state.status == "created")
                yield reader
                left = (until - time.time_ns()) / 1e9 if until else 5.0
                if not alive or left <= 0:
                    return
                await hints.wait(min(left, 5.0))

    def _log_of(self, name: str) -> tuple[Path, Path]:
        """Where a container's log is, and its bundle."""
        container_id, record = self._containers.resolve(name)
        if (record["spec"].get("log_config") or {}).get("type") == "none":
            raise InvalidInput(
                "configured logging driver does not support reading", hint="it was made with --log-driver"
            )
        return Path(str(record["log_path"])), self._containers.bundle(container_id)

    async def open_logs(self, names: Sequence[str]) -> LocalLogBook:
        from engine.local.log_book import LocalLogBook
        from engine.service.log_source import LogPlace

        def find(name: str) -> LogPlace:
            path, bundle = self._log_of(name)
            return LogPlace(bundle.name, str(path), int(self._containers.resolve(bundle.name)[1]["created"]))

        return await LocalLogBook.open(names, find)

    async def write_rule(self, log_path: str, text: str) -> None:
        await self._do(self._containers.write_rule, log_path, text)

    async def events(
        self, *, since: int | None = None, since_time: int | None = None, until: int | None = None
    ) -> AsyncIterator[EngineEvent]:
        records = self._store.records
        await self._do(self._containers.life.reconcile)
        (row,) = await self._do(records.read, "SELECT max(seq) AS last FROM events")
        last = row["last"] or 0  # before what is older is read: what comes in between is then read as new
        if since_time is not None:
            rows = await self._do(records.read, "SELECT * FROM events WHERE time >= ? ORDER BY time, seq", since_time)
            seq = max((int(row["seq"]) for row in rows), default=last)
            for row in rows:
                if until is None or row["time"] <= until:
                    yield _event(row)
        else:
            seq = last if since is None else since
        with Hints([str(self._store.root), str(self._store.containers)]) as hints:
            watched: set[str] = set()
            while until is None or time.time_ns() < until:
                for path in self._store.containers.iterdir():
                    if path.name not in watched:
                        watched.add(path.name)
                        hints.add(str(path))
                await self._do(self._containers.life.reconcile)
                for attempt in range(2):
                    rows = await self._do(records.read, "SELECT * FROM events WHERE seq > ? ORDER BY seq", seq)
                    for row in rows:
                        seq = int(row["seq"])
                        yield _event(row)
                    if rows or attempt:
                        break
                    # Another process's commit is in the file, which is the hint, a moment before it is in SQLite's shared memory,
                    # which makes it visible and gives no hint.
                    await asyncio.sleep(_COMMIT)
                await hints.wait(30.0 if until is None else max(min((until - time.time_ns()) / 1e9, 30.0), 0.0))


def _event(row: sqlite3.Row) -> EngineEvent:
    return model.EngineEvent(
        int(row["seq"]), row["time"], row["type"], row["action"], row["id"], json.loads(row["attributes"])
    )
