"""Logs as numbered rows: merged, filtered, searched, growing, put aside, damaged."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from engine.base.patterns import LIMIT, SlowPattern
from engine.errors import InvalidInput
from engine.model import LogExtent, LogQuery
from engine.runtime.jsonlog import Log, Splitter, compress_file
from engine.service import log_index, log_source
from engine.service.log_index import LogIndex
from engine.service.log_source import LogSource

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def write(path: Path, lines: list[tuple[int, str]], stream: str = "stdout") -> None:
    """Lines with their times in ms behind START."""
    with path.open("ab") as file:
        splitter = Splitter(stream)
        for milliseconds, text in lines:
            file.write(splitter.feed(text.encode() + b"\n", START + milliseconds * 1_000_000))


def all_of(index: LogIndex) -> LogExtent:
    while (extent := index.advance()).share < 1:
        pass
    return extent


def texts(index: LogIndex, first: int = 0, count: int = 10**9) -> list[str]:
    return [row.text for row in index.rows(first, count)]


def book(*paths: Path) -> LogIndex:
    return LogIndex([LogSource(path, path.stem) for path in paths])


def test_rows_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(n, f"line {n}") for n in range(20_000)])
    index = book(path)
    assert all_of(index) == LogExtent(0, 20_000, 20_000, 0, 1.0)
    assert texts(index, 12_345, 3) == ["line 12345", "line 12346", "line 12347"]
    assert texts(index, 19_999, 5) == ["line 19999"]
    assert texts(index, 20_000, 5) == []
    row = index.rows(777, 1)[0]
    assert (row.place, row.stream, row.stamp) == (777, "stdout", "2023-11-14T22:13:20.777000000Z")


def test_it_grows_and_no_row_changes_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    index = book(path)
    assert all_of(index).end == 0, "a log that is not there yet"
    chance, written = random.Random(1), 0
    while written < 5000:
        more = chance.randrange(1, 700)
        write(path, [(n, f"line {n}") for n in range(written, written + more)])
        written += more
        assert all_of(index).end == written
        at = chance.randrange(written)
        assert texts(index, at, 1) == [f"line {at}"]
    half = json.dumps({"log": "half\n", "stream": "stdout", "time": "2023-11-14T22:13:20Z"}).encode()
    with path.open("ab") as file:
        file.write(half)
    assert all_of(index).end == written, "what has no end is no record yet"
    with path.open("ab") as file:
        file.write(b"\n")
    assert all_of(index).end == written + 1


def test_merged_by_time(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.log", "b.log", "c.log")]
    chance = random.Random(2)
    expected = []
    for path, count in zip(paths, (9000, 3000, 10), strict=True):
        times = sorted(chance.sample(range(100_000), count))
        write(path, [(when, f"{path.stem} {when}") for when in times])
        expected += [(when, path.stem) for when in times]
    expected.sort()
    index = book(*paths)
    assert all_of(index).end == len(expected)
    rows = index.rows(0, len(expected))
    assert [row.place for row in rows] == list(range(len(expected)))
    stamps = [row.stamp for row in rows]
    assert stamps == sorted(stamps)
    assert sorted((int(row.text.split()[1]), row.text.split()[0]) for row in rows) == expected
    assert all(row.text.startswith("abc"[row.source]) for row in rows)
    write(paths[2], [(200_000, "c late")])
    assert all_of(index).end == len(expected) + 1
    assert texts(index, len(expected)) == ["c late"]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (LogQuery("n 7"), lambda text: "n 7" in text.lower()),
        (LogQuery("EN 7"), lambda text: "EN 7" in text),
        (LogQuery(r"n (1|2)00\b", regex=True), lambda text: text.endswith((" 100", " 200"))),
        (LogQuery("n 1", inverse=True), lambda text: "n 1" not in text.lower()),
        (LogQuery('"quoted"'), lambda text: '"quoted"' in text),
        (LogQuery("grün 4"), lambda text: "grün 4" in text),
    ],
)
def test_a_query_keeps_what_matches(tmp_path: Path, query: LogQuery, kept: object) -> None:
    path = tmp_path / "a.log"
    lines = [
        f"Then {n}" if n % 3 else f'"quoted" \x1b[31mgrün\x1b[0m {n}' if n % 2 else f"T\x1b[1mHEN {n}"
        for n in range(4000)
    ]
    write(path, list(enumerate(lines)))
    index = book(path)
    index.select(query)
    plain = [line.replace("\x1b[31m", "").replace("\x1b[0m", "").replace("\x1b[1m", "") for line in lines]
    wanted = [n for n, line in enumerate(plain) if kept(line)]  # type: ignore[operator]
    assert wanted
    assert all_of(index).end == len(wanted)
    assert [row.place for row in index.rows(0, 10**6)] == wanted
    middle = len(wanted) // 2
    assert index.row_of(wanted[middle]) == middle
    index.select(None)
    assert all_of(index).end == 4000
    assert index.rows(index.row_of(wanted[middle]), 1)[0].text == lines[wanted[middle]], "in its context"


def test_rules_stay_whatever_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(n, f"line {n}") for n in range(2000)])
    write(path, [(2000, "── rebuilt ──")], "workbench")
    write(path, [(3000, "wanted")])
    index = book(path)
    index.select(LogQuery("wanted"))
    all_of(index)
    assert texts(index) == ["── rebuilt ──", "wanted"]


def test_since(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(n, f"line {n}") for n in range(5000)])
    index = book(path)
    index.select(None, since=START + 4321 * 1_000_000)
    assert all_of(index).end == 5000 - 4321
    assert texts(index, 0, 1) == ["line 4321"]


def test_search_goes_round(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(n, "needle" if n % 1500 == 700 else f"hay {n}") for n in range(6000)])
    index = book(path)
    index.search(LogQuery("needle"))
    assert all_of(index).hits == 4
    places, at = [], -1
    for _ in range(5):
        hit = index.next_hit(at)
        assert hit is not None
        places.append(hit)
        at = hit.row
    assert [tuple(hit) for hit in places] == [(700, 1), (2200, 2), (3700, 3), (5200, 4), (700, 1)]
    back = [index.next_hit(2200, forward=False), index.next_hit(700, forward=False), index.next_hit(0, forward=False)]
    assert [hit and tuple(hit) for hit in back] == [(700, 1), (5200, 4), (5200, 4)]
    index.select(LogQuery("needle"))
    all_of(index)
    hit = index.next_hit(1)
    assert hit is not None
    assert tuple(hit) == (2, 3), "among the rows that are kept"
    index.search(LogQuery("nowhere"))
    assert all_of(index).hits == 0
    assert index.next_hit(0) is None


@pytest.mark.parametrize("compress", [False, True])
def test_files_put_aside_and_dropped(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "a.log"

    def squeeze(aside: str, done: object) -> None:
        compress_file(aside)
        done()  # type: ignore[operator]

    log = Log(str(path), max_size=20_000, max_files=3, compress=squeeze if compress else None)
    splitter = Splitter("stdout")
    index = book(path)
    for n in range(6000):
        log.write(splitter.feed(f"line {n}\n".encode(), START + n * 1_000_000))
        if n % 50 == 0:
            extent = all_of(index)
            assert extent.end == n + 1
            assert texts(index, n, 1) == [f"line {n}"]
    log.close()
    extent = all_of(index)
    assert extent.end == 6000
    assert 0 < extent.first < 6000 - 3 * 150
    rows = index.rows(extent.first, 10**6)
    assert [row.text for row in rows] == [f"line {n}" for n in range(extent.first, 6000)]
    assert [row.place for row in rows] == list(range(extent.first, 6000))
    late = book(path)
    extent = all_of(late)
    assert texts(late)[-1] == "line 5999"
    assert extent.first == 0


def test_many_segments_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_index, "MOST", 8)
    paths = [tmp_path / "a.log", tmp_path / "b.log"]
    for path in paths:
        write(path, [(n, f"{path.stem} {n}" + "." * 100) for n in range(30_000)])
    index = book(*paths)
    index.search(LogQuery("299."))
    assert all_of(index).end == 60_000
    assert len(index._segments) < 20
    assert [row.text.split(".")[0] for row in index.rows(40_000, 2)] == ["a 20000", "b 20000"]
    index.select(LogQuery("a 1"))
    assert all_of(index).end == sum(str(n).startswith("1") for n in range(30_000))


def test_what_is_damaged_is_a_row_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(1, "before")])
    with path.open("ab") as file:
        file.write(b'\0\0\0{"log":"cut sh\n[1]\n{"log":7,"stream":"stdout","time":"x"}\n')
    write(path, [(2, "behind")])
    index = book(path)
    assert all_of(index).end == 5
    found = texts(index)
    assert (found[0], found[-1]) == ("before", "behind")
    assert all("damaged record" in text for text in found[1:-1])


def test_a_file_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(n, f"line {n}") for n in range(100)])
    index = book(path)
    assert all_of(index).end == 100
    path.write_bytes(b"")
    write(path, [(200, "new")])
    all_of(index)
    assert texts(index) == ["new"]


def test_long_lines_are_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    write(path, [(1, "x" * 300_000), (2, "\x01" * 200_000), (3, "end")])
    index = book(path)
    all_of(index)
    rows = index.rows(0, 1000)
    assert max(len(row.text) for row in rows) <= 16384
    assert "".join(row.text for row in rows) == "x" * 300_000 + "\x01" * 200_000 + "end"
    assert sum(row.whole for row in rows) == 3


def test_no_regular_expression(tmp_path: Path) -> None:
    index = book(tmp_path / "a.log")
    with pytest.raises(InvalidInput, match="no regular expression"):
        index.select(LogQuery("(", regex=True))


def test_an_expression_that_would_never_end(tmp_path: Path) -> None:
    """Said within a moment; then the index works as before."""
    write(tmp_path / "a.log", [(1, "a" * 60 + "b"), (2, "end")])
    index = book(tmp_path / "a.log")
    for begin in (index.select, index.search):
        begin(LogQuery("(a|aa)+$", regex=True))
        before = time.process_time()
        with pytest.raises(SlowPattern, match="takes too long"):
            all_of(index)
        assert time.process_time() - before < 10 * LIMIT
        begin(None)
    all_of(index)
    assert texts(index) == ["a" * 60 + "b", "end"]
    index.select(LogQuery("^(a+)+b", regex=True))
    all_of(index)
    assert texts(index) == ["a" * 60 + "b"]


def test_memory_does_not_grow_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_source, "_KEPT", 0)
    path = tmp_path / "a.log"
    record = b'{"log":"' + b"y" * 100 + b'\\n","stream":"stdout","time":"2023-11-14T22:13:20.777Z"}\n'
    with path.open("wb") as file:
        for _ in range(100):
            file.write(record * 10_000)
    index = book(path)
    assert all_of(index).end == 1_000_000
    assert len(index._segments) <= log_index.MOST
    assert len(index._parsed) <= 8
    assert len(texts(index, 999_990)) == 10
