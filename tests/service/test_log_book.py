"""`LogBook` in both kinds: over files, and over what an engine without files follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.api import LogBook, LogExtent, LogLine, LogQuery
from engine.errors import NotFound
from engine.local.log_book import LocalLogBook
from engine.service import log_tail
from engine.service.log_source import LogPlace
from engine.service.log_tail import TailBook
from engine.service.logs import LogReader
from tests.patience import PATIENCE
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
        return await LocalLogBook.open([path.stem for path in paths], places_of(*paths))
    by_name = {path.stem: path for path in paths}
    find = places_of(*paths)

    async def place(name: str) -> LogPlace:
        return find(name)

    return await TailBook.open(list(by_name), lambda name, since: follow(by_name[name]), place)


def places_of(*paths: Path) -> Callable[[str], LogPlace]:
    by_name = {path.stem: path for path in paths}
    return lambda name: LogPlace(name, str(by_name[name]), START)


async def until(book: LogBook, total: int) -> LogExtent:
    async with asyncio.timeout(PATIENCE):
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


async def test_what_another_container_of_the_name_writes_goes_on_behind_a_rule(kind: str, tmp_path: Path) -> None:
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    write(one / "web.log", [(n, f"one {n}") for n in range(5000)])
    now = [LogPlace("1" * 64, str(one / "web.log"), START)]

    def find(name: str) -> LogPlace:
        if not now:
            raise NotFound(f"No such container: {name}")
        return now[0]

    async def find_later(name: str) -> LogPlace:
        return find(name)

    book: LogBook = await (
        LocalLogBook.open(["web"], find)
        if kind == "files"
        else TailBook.open(["web"], lambda _name, _since: follow(Path(now[0].path)), find_later)
    )
    try:
        await book.select(LogQuery("0"))
        place = (await book.rows((await until(book, 5000)).end - 1, 1))[0].place
        now.clear()
        (one / "web.log").rename(tmp_path / "removed")
        with pytest.raises(NotFound):
            await book.renew()
        now.append(LogPlace("2" * 64, str(two / "web.log"), START + 6_000_000_000))
        await book.renew()
        await book.renew()
        assert [row.stream for row in (await book.rows((await until(book, 5001)).end - 1, 5))] == ["workbench"]
        write(two / "web.log", [(7000 + n, f"two {n}") for n in range(100)])
        end = (await until(book, 5101)).end
        rows = await book.rows(end - 11, 99)
        assert "1111→2222 · another container" in rows[0].text
        assert [row.text for row in rows[1:]] == [f"two {10 * n}" for n in range(10)]
        assert (await book.rows(await book.row_of(place), 1))[0].text == "one 4990"
    finally:
        await book.close()


async def test_containers_with_one_log_are_one(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, [(1, "hello")])
    book = await LocalLogBook.open(["web-1", "web-2"], lambda name: LogPlace(name, str(path), START))
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
