"""`LogBook` in both kinds: over files, and over what an engine without files follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.api import LogBook, LogExtent, LogLine, LogQuery
from engine.local.log_book import LocalLogBook
from engine.service import log_tail
from engine.service.log_tail import TailBook
from engine.service.logs import LogReader
from tests.service.test_log_index import START, write


async def follow(path: Path) -> AsyncIterator[LogLine]:
    """As an engine follows a log, by the reader that `logs --follow` uses."""
    while not path.exists():
        await asyncio.sleep(0)
    with LogReader(path) as reader:
        while True:
            for line in reader.lines():
                yield line
            await asyncio.sleep(0.001)


@pytest.fixture(params=["files", "tail"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def opened(kind: str, *paths: Path) -> LogBook:
    if kind == "files":
        return await LocalLogBook.open([(path.stem, path) for path in paths])
    by_name = {path.stem: path for path in paths}
    return TailBook(list(by_name), lambda name: follow(by_name[name]))


async def until(book: LogBook, total: int) -> LogExtent:
    async with asyncio.timeout(20):
        while (extent := await book.advance()).total < total or extent.share < 1:
            if extent.share == 1:
                await book.changed()
    return extent


async def test_the_same_of_both(kind: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    write(one, [(n, f"one {n}") for n in range(0, 3000, 2)])
    write(two, [(n, f"two {n}") for n in range(1, 3000, 2)])
    book = await opened(kind, one, two)
    assert tuple(book.names) == ("one", "two")
    try:
        extent = await until(book, 3000)
        assert (extent.first, extent.end, extent.hits) == (0, 3000, 0)
        assert {row.source for row in await book.rows(0, 3000)} == {0, 1}
        await book.select(LogQuery("two 1"))
        extent = await until(book, 3000)
        kept = [row.text for row in await book.rows(0, 5000)]
        assert len(kept) == extent.end == sum(str(n).startswith("1") for n in range(1, 3000, 2))
        await book.search(LogQuery("two 19"))
        extent = await until(book, 3000)
        hit = await book.next_hit(-1)
        assert hit is not None
        assert (await book.rows(hit.row, 1))[0].text == "two 19"
        assert hit.number == 1
        assert extent.hits == sum(str(n).startswith("19") for n in range(1, 3000, 2))
        place = (await book.rows(hit.row, 1))[0].place
        assert await book.row_of(place) == hit.row
        await book.select(None, since=START + 2990 * 1_000_000)
        assert (await until(book, 3000)).end == 10
        await book.select(None)
        waiting = asyncio.create_task(until(book, 3001))
        await asyncio.sleep(0)
        write(one, [(3000, "news")])
        extent = await waiting
        assert [row.text for row in await book.rows(extent.end - 1, 9)] == ["news"]
    finally:
        await book.close()


async def test_containers_with_one_log_are_one(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, [(1, "hello")])
    book = await LocalLogBook.open([("web-1", path), ("web-2", path)])
    try:
        assert tuple(book.names) == ("web-1",)
        assert (await until(book, 1)).total == 1
    finally:
        await book.close()


async def test_a_tail_keeps_a_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "MOST", 100)
    monkeypatch.setattr(log_tail, "_SLACK", 10)
    path = tmp_path / "web.log"
    write(path, [(n, f"line {n}") for n in range(1000)])
    book = await opened("tail", path)
    try:
        extent = await until(book, 1000)
        assert extent.end == 1000
        assert extent.first >= 890
        rows = await book.rows(extent.first, 1000)
        assert [row.place for row in rows] == list(range(extent.first, 1000))
    finally:
        await book.close()
