"""Logs and events of another engine."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Literal, cast
from urllib.parse import parse_qsl, quote

from engine.base.clock import parse_rfc3339
from engine.model import EngineEvent, LogLine, LogRecord
from engine.remote import read
from engine.remote.containers import ContainersPart
from engine.remote.streams import demultiplexed
from engine.service.log_source import LogPlace
from engine.service.log_tail import TAIL, TailBook

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) (\S*) ")
_PAUSE = 0.3  # seconds without a line, after which a rule that was written before is shown


class LogsPart(ContainersPart):
    """What was said, and what happened.

    A log stays with each container. The rules that the inner loop writes between two generations are kept here, by the name of
    the log that they would be in, and stand between the lines that this process reads: another one does not see them."""

    async def log_records(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[Sequence[LogRecord]]:
        detail = await self.container(name)
        params: dict[str, str | int | bool] = {
            "stdout": True,
            "stderr": True,
            "timestamps": True,
            "details": True,
            "follow": follow,
            "tail": "all" if tail is None else tail,
            "since": _seconds(since),
            "until": _seconds(until),
        }
        where = f"/containers/{quote(detail.summary.id, safe='')}/logs"
        async with self._client.answer("GET", where, params) as answer:
            parts = _terminal_lines(answer.aiter_raw()) if detail.spec.tty else demultiplexed(answer.aiter_raw())
            stamps: dict[str, tuple[str, dict[str, str]]] = {}
            async for stream, data in parts:
                record = _record(stream, data, stamps)
                if record.text:
                    yield (record,)

    async def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[LogLine]:
        identity = (await self.container(name)).summary.id
        path = self._log_paths.get(identity, "")
        lines = _lines(self.log_records(identity, follow=follow, tail=tail, since=since, until=until))
        if not path:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield line
            return
        async with contextlib.aclosing(self._with_rules(path, lines, live=follow)) as merged:
            async for line in merged:
                if line.offset > since:  # the engine's lines are so; rules are ours
                    yield line

    async def _with_rules(
        self, path: str, lines: AsyncGenerator[LogLine, None], *, live: bool
    ) -> AsyncGenerator[LogLine, None]:
        """Rules where they were written: those from before by their place, new ones as they come."""
        queue: asyncio.Queue[LogLine | BaseException | None] = asyncio.Queue(1000)
        waiting = list(self._rules.get(path, ()))

        async def pump() -> None:
            try:
                async with contextlib.aclosing(lines):
                    async for line in lines:
                        await queue.put(line)
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(None)

        listeners = self._listeners.setdefault(path, set())
        if live:
            listeners.add(queue)
        task = asyncio.create_task(pump())
        try:
            while True:
                try:
                    item = await asyncio.wait_for(queue.get(), _PAUSE if waiting else None)
                except TimeoutError:
                    yield waiting.pop(0)
                    continue
                if isinstance(item, BaseException):
                    raise item
                while waiting and (item is None or waiting[0].offset < item.offset):
                    yield waiting.pop(0)
                if item is None:
                    return
                self._seen[path] = max(self._seen.get(path, 0), item.offset)
                yield item
        finally:
            listeners.discard(queue)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def open_logs(self, names: Sequence[str]) -> TailBook:
        async def find(name: str) -> LogPlace:
            one = (await self.container(name)).summary
            return LogPlace(one.id, self._log_paths.get(one.id, ""), one.created)

        return await TailBook.open(
            names, lambda name, since: self.logs(name, follow=True, tail=TAIL, since=since), find
        )

    async def write_rule(self, log_path: str, text: str) -> None:
        # Its place is behind the last line that was read: times of two hosts cannot be compared.
        self._seen[log_path] = offset = self._seen.get(log_path, 0) + 1
        line = LogLine(text, "workbench", offset, offset)
        self._rules.setdefault(log_path, []).append(line)
        for queue in self._listeners.get(log_path, set()):
            with contextlib.suppress(asyncio.QueueFull):  # a reader this far behind takes it from its place later
                queue.put_nowait(line)

    # --- events -----------------------------------------------------------------------------------------

    async def events(
        self, *, since: int | None = None, since_time: int | None = None, until: int | None = None
    ) -> AsyncIterator[EngineEvent]:
        first = since_time if since_time is not None else since + 1 if since is not None else 0
        params = {"since": _seconds(first), "until": _seconds(until or 0)}
        async with contextlib.aclosing(self._client.lines("GET", "/events", params)) as lines:
            async for line in lines:
                if line.get("Type") or line.get("status"):
                    yield read.event(line)


def _seconds(ns: int) -> str:
    """Docker's time stamps: seconds, and nine digits behind the point."""
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d}" if ns else ""


def _record(stream: str, data: bytes, before: dict[str, tuple[str, dict[str, str]]]) -> LogRecord:
    """A frame is one record, with a stamp in front; a part of a long line may be without (this engine's own server)."""
    if head := _STAMP.match(data):
        stamp = head[1].decode()
        pairs = dict(pair for text in head[2].decode().split(",") for pair in parse_qsl(text, keep_blank_values=True))
        before[stream] = (stamp, pairs)
        data = data[head.end() :]
    stamp, attributes = before.get(stream, ("1970-01-01T00:00:00.000000000Z", {}))
    return LogRecord(data.decode("utf-8", "surrogateescape"), stream, stamp, attributes)


async def _terminal_lines(
    parts: AsyncIterator[bytes],
) -> AsyncGenerator[tuple[Literal["stdout", "stderr"], bytes], None]:
    """A terminal's log has no frames: its lines are the records."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield "stdout", line + b"\n"
    if rest:
        yield "stdout", rest


async def _lines(batches: AsyncIterator[Sequence[LogRecord]]) -> AsyncGenerator[LogLine, None]:
    """Whole lines. `offset` is the time of a line, made to grow: it serves to tell what was shown already."""
    parts: dict[str, str] = {}
    offset = 0
    async with contextlib.aclosing(cast("AsyncGenerator[Sequence[LogRecord], None]", batches)):
        async for batch in batches:
            for record in batch:
                text = parts.pop(record.stream, "") + record.text
                if not text.endswith("\n"):
                    parts[record.stream] = text
                    continue
                when = parse_rfc3339(record.stamp)
                offset = max(offset + 1, when)
                text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                yield LogLine(text[:-1], cast("Literal['stdout', 'stderr']", record.stream), when, offset)
    for stream, text in parts.items():
        offset += 1
        yield LogLine(text, cast("Literal['stdout', 'stderr']", stream), 0, offset)
