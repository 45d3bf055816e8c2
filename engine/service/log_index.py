"""Logs of any length, one or several merged by time, as rows with numbers, in memory that does not grow with them.

The book is cut into segments of about 64 KiB of each log: of a segment it keeps where it begins and how many rows it has,
how many of them the query keeps and how many the search finds. A row is found by its segment, which is read again. When
there are many segments, two become one. Counting rows is counting newlines, so a program that writes 100,000 lines a second
costs little until somebody looks at them.

Rows of several logs are merged within a segment; a segment ends at one time in all of them. What a log gets later with an
older time (its monitor was slower) comes after it, never is it lost.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.model import LogExtent, LogHit, LogQuery, LogRow
from engine.service.log_match import Matcher
from engine.service.log_source import LogSource
from engine.service.logs import full_stamp

CHUNK = 1 << 16  # bytes of each log in a segment
MOST = 4096  # segments
_PARSED = 8  # segments whose rows are kept
_GONE = "── no longer there: the log has reached its limit ──"
_TIME = b'"time":"'


@dataclass(slots=True)
class _Segment:
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    rows: int
    stamp: str  # of its first row
    kept: int = 0
    hits: int = 0


class LogIndex:
    """Not for several threads at once. `advance` looks at what is new, a little at a time; the rest answers for what is known."""

    def __init__(self, sources: Sequence[LogSource]) -> None:
        self._sources = list(sources)
        self._query: Matcher | None = None
        self._search: Matcher | None = None
        self._since = ""
        self._reset()

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def _reset(self) -> None:
        self._segments: list[_Segment] = []
        self._counted = 0  # segments whose `kept` and `hits` hold
        self._open = False  # whether the last segment may still grow
        self._done = False  # whether all that was there at the last look is counted
        self._gone = _Segment((), (), 0, "")  # sums of the segments whose files are gone
        self._sums: tuple[list[int], list[int], list[int]] | None = None
        self._parsed: OrderedDict[tuple[tuple[int, ...], tuple[int, ...]], list[LogRow]] = OrderedDict()

    def follow(self, source: int, path: Path, rule: str, created: int) -> None:
        """`LogSource.follow` of one of them: the rows that are there keep their numbers."""
        self._sources[source].follow(path, rule, created)

    # --- what is to be seen -------------------------------------------------------------------------------

    def select(self, query: LogQuery | None, since: int = 0) -> None:
        """Keeps only these rows (rules of the workbench always), from the time `since` (ns since the epoch) on. Raises
        `InvalidInput`."""
        self._query = Matcher(query) if query and query.text else None
        self._since = _stamp(since) if since else ""
        self._recount()

    def search(self, query: LogQuery | None) -> None:
        """What `next_hit` finds. Raises `InvalidInput`."""
        self._search = Matcher(query) if query and query.text else None
        self._recount()

    def _recount(self) -> None:
        self._counted, self._sums, self._done = 0, None, False
        self._gone.kept = 0

    # --- looking further ----------------------------------------------------------------------------------

    def advance(self, seconds: float = 0.02) -> LogExtent:
        """Works on for about that long."""
        end = time.monotonic() + seconds
        whole = [source.grow() for source in self._sources]
        if not all(whole):
            self._reset()
            for source in self._sources:
                source.grow()
        self._forget()
        if self._open:
            self._segments.pop()
            self._open = False
            self._counted = min(self._counted, len(self._segments))
        self._sums, self._done = None, False
        while True:
            if self._counted < len(self._segments):
                self._count(self._segments[self._counted])
                self._counted += 1
            elif not self._add_segment() or self._open:
                self._done = True
                break
            if time.monotonic() > end:
                break
        if len(self._segments) > MOST and self._counted == len(self._segments):
            self._halve()
        return self.extent()

    def extent(self) -> LogExtent:
        rows, kept, hits = self._cumulated()
        everything = sum(source.end - source.dropped for source in self._sources)
        seen = sum(at - source.dropped for at, source in zip(self._seen(), self._sources, strict=True))
        share = 1.0 if self._done or not everything else min(0.999, max(0.0, seen / everything))
        if not rows:
            return LogExtent(self._gone.kept, self._gone.kept, self._gone.rows, 0, share)
        return LogExtent(self._gone.kept, kept[-1], rows[-1], hits[-1], share)

    def _seen(self) -> tuple[int, ...]:
        if self._counted:
            return self._segments[self._counted - 1].ends
        return self._segments[0].starts if self._segments else (0,) * len(self._sources)

    def _add_segment(self) -> bool:
        """The next one, counted too. False when there is nothing."""
        at = self._segments[-1].ends if self._segments else (0,) * len(self._sources)
        found = [source.records(place, CHUNK) for source, place in zip(self._sources, at, strict=True)]
        if not any(data for data, *_ in found):
            return False
        cuts = [data for data, *_ in found]
        horizon = min((_last_stamp(data) for data, _start, _end, more in found if more and data), default="")
        if horizon and len(found) > 1:
            cuts = [_until(data, horizon) for data in cuts]
        starts = tuple(start for _data, start, _end, _more in found)
        ends = tuple(start + len(cut) for cut, start in zip(cuts, starts, strict=True))
        stamp = min((_first_stamp(cut) for cut in cuts if cut), default="")
        segment = _Segment(starts, ends, sum(cut.count(b"\n") for cut in cuts), stamp)
        self._segments.append(segment)
        self._count(segment, cuts)
        self._counted = len(self._segments)
        self._open = not any(more for *_, more in found)
        return True

    def _count(self, segment: _Segment, blocks: list[bytes] | None = None) -> None:
        segment.kept, segment.hits = segment.rows, 0
        if self._query is None and self._search is None and segment.stamp >= self._since:
            return
        blocks = self._blocks(segment) if blocks is None else blocks
        if self._since and all(_last_stamp(block) < self._since for block in blocks if block):
            segment.kept = 0
            return
        keeps_all = self._query is None and segment.stamp >= self._since
        may_keep = self._query is None or any(
            self._query.may_be_in(block) or b'"workbench"' in block for block in blocks
        )
        may_hit = self._search is not None and any(self._search.may_be_in(block) for block in blocks)
        if not may_keep:
            segment.kept = 0
        elif may_hit or not keeps_all:
            rows = self._kept(self._parse(segment, blocks))
            segment.kept = len(rows)
            segment.hits = len(self._hits(rows)) if may_hit else 0

    def _forget(self) -> None:
        """Segments all of whose files are gone; their numbers are not used again."""
        while self._segments and all(
            end <= source.dropped for end, source in zip(self._segments[0].ends, self._sources, strict=True)
        ):
            gone = self._segments.pop(0)
            counted = self._counted > 0
            self._counted = max(0, self._counted - 1)
            self._open = self._open and bool(self._segments)
            self._gone.rows += gone.rows
            self._gone.kept += gone.kept if counted else 0

    def _halve(self) -> None:
        """Two neighbours become one, but for the last, which may still grow."""
        pairs = self._segments[:-1]
        joined: list[_Segment] = []
        for one, two in zip(pairs[::2], pairs[1::2], strict=False):
            # Between them may be what a crash has torn.
            joined += [_join(one, two)] if one.ends == two.starts else [one, two]
        self._segments = joined + pairs[len(pairs) // 2 * 2 :] + self._segments[-1:]
        self._counted, self._sums = len(self._segments), None

    # --- rows ---------------------------------------------------------------------------------------------

    def rows(self, first: int, count: int) -> list[LogRow]:
        """Rows `first` to `first + count - 1` of those that the query keeps, as far as they are there."""
        _rows, kept, _hits = self._cumulated()
        found: list[LogRow] = []
        first = max(first, self._gone.kept)
        index = bisect_right(kept, first)
        while index < len(kept) and len(found) < count:
            before = kept[index - 1] if index else self._gone.kept
            rows = self._kept_rows(index)
            found += rows[max(0, first - before) : max(0, first - before) + count - len(found)]
            index += 1
        return found

    def row_of(self, place: int) -> int:
        """How many rows that the query keeps come before the row with this `place`: its own number, if it is one of them."""
        rows, kept, _hits = self._cumulated()
        index = bisect_right(rows, place)
        if index >= len(rows):
            return kept[-1] if kept else self._gone.kept
        before = kept[index - 1] if index else self._gone.kept
        return before + sum(row.place < place for row in self._kept_rows(index))

    def next_hit(self, row: int, *, forward: bool = True) -> LogHit | None:
        """The first row behind (or before) `row` that the search finds; at an end it goes on from the other one."""
        _rows, kept, hits = self._cumulated()
        if self._search is None or not hits or not hits[-1]:
            return None
        numbers = range(len(hits))
        here = min(bisect_right(kept, row), len(hits) - 1)
        around = [*numbers[here:], *numbers[: here + 1]] if forward else [*numbers[here::-1], *numbers[: here - 1 : -1]]
        if not forward and here == 0:
            around = [0, *numbers[::-1]]
        for turn, index in enumerate(around):
            before = hits[index - 1] if index else 0
            if hits[index] == before:
                continue
            start = kept[index - 1] if index else self._gone.kept
            found = [start + at for at in self._hits(self._kept_rows(index))]
            order = list(enumerate(found, before + 1))
            for number, at in order if forward else reversed(order):
                if turn > 0 or (at > row if forward else at < row):
                    return LogHit(at, number)
        return None

    def _cumulated(self) -> tuple[list[int], list[int], list[int]]:
        """Rows, kept rows and hits up to the end of each counted segment."""
        if self._sums is None:
            rows, kept, hits = self._gone.rows, self._gone.kept, 0
            sums: tuple[list[int], list[int], list[int]] = ([], [], [])
            for segment in self._segments[: self._counted]:
                rows, kept, hits = rows + segment.rows, kept + segment.kept, hits + segment.hits
                sums[0].append(rows)
                sums[1].append(kept)
                sums[2].append(hits)
            self._sums = sums
        return self._sums

    def _kept_rows(self, index: int) -> list[LogRow]:
        segment = self._segments[index]
        rows = self._kept(self._numbered(segment, index))
        # A file that was dropped between two looks: the numbers hold, the text says so.
        short = segment.kept - len(rows)
        return rows + [LogRow(-1, 0, "workbench", segment.stamp, _GONE)] * short if short > 0 else rows[: segment.kept]

    def _numbered(self, segment: _Segment, index: int) -> list[LogRow]:
        first = self._cumulated()[0][index] - segment.rows
        return [row._replace(place=row.place + first) for row in self._parse(segment)]

    def _kept(self, rows: list[LogRow]) -> list[LogRow]:
        if self._since:
            rows = [row for row in rows if row.stamp >= self._since]
        if self._query is None:
            return rows
        test = self._query.test
        return [row for row in rows if row.stream == "workbench" or test(row.text)]

    def _hits(self, rows: list[LogRow]) -> list[int]:
        """Indexes of those that the search finds."""
        if self._search is None:
            return []
        test = self._search.test
        return [index for index, row in enumerate(rows) if test(row.text)]

    def _blocks(self, segment: _Segment) -> list[bytes]:
        return [
            source.read(start, end)
            for source, start, end in zip(self._sources, segment.starts, segment.ends, strict=True)
        ]

    def _parse(self, segment: _Segment, blocks: list[bytes] | None = None) -> list[LogRow]:
        """Its rows, merged; numbered from 0."""
        key = (segment.starts, segment.ends)
        if (known := self._parsed.get(key)) is not None:
            self._parsed.move_to_end(key)
            return known
        blocks = self._blocks(segment) if blocks is None else blocks
        found: list[tuple[str, LogRow]] = []
        for source, block in enumerate(blocks):
            latest = ""
            for row in _parse_block(block, source):
                latest = max(latest, row.stamp)  # the order of a log holds, whatever the clock did
                found.append((latest, row))
        if sum(bool(block) for block in blocks) > 1:
            found.sort(key=lambda one: one[0])
        rows = [row._replace(place=place) for place, (_stamp, row) in enumerate(found)]
        self._parsed[key] = rows
        if len(self._parsed) > _PARSED:
            self._parsed.popitem(last=False)
        return rows


def _join(one: _Segment, two: _Segment) -> _Segment:
    return _Segment(one.starts, two.ends, one.rows + two.rows, one.stamp, one.kept + two.kept, one.hits + two.hits)


def _parse_block(block: bytes, source: int) -> list[LogRow]:
    raw = block.split(b"\n")[:-1]
    try:  # all at once, in C; a torn one makes that fail
        return [_row(entry, source) for entry in json.loads(b"[" + b",".join(raw) + b"]")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [_careful_row(record, source) for record in raw]


def _row(entry: Any, source: int) -> LogRow:
    text: str = entry["log"]
    whole = text.endswith("\n")
    text = text[:-1] if whole else text
    if not text.isascii():  # a character that was cut in two is one again
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return LogRow(0, source, entry["stream"], full_stamp(entry["time"]), text, whole)


def _careful_row(record: bytes, source: int) -> LogRow:
    try:
        return _row(json.loads(record.lstrip(b"\0")), source)
    except (ValueError, KeyError, TypeError, AttributeError):
        return LogRow(0, source, "workbench", "", f"── a damaged record of {len(record)} bytes ──")


def _first_stamp(block: bytes) -> str:
    return _stamp_of(block[: block.find(b"\n")])


def _last_stamp(block: bytes) -> str:
    return _stamp_of(block[block.rfind(b"\n", 0, len(block) - 1) + 1 :])


def _stamp_of(record: bytes) -> str:
    """ "" when it is damaged."""
    at = record.rfind(_TIME) + len(_TIME)
    stamp = record[at : record.find(b'"', at)]
    return full_stamp(stamp.decode("ascii", "replace")) if at >= len(_TIME) and stamp.endswith(b"Z") else ""


def _until(block: bytes, horizon: str) -> bytes:
    """The records up to the time `horizon`, included."""
    records = block.split(b"\n")[:-1]
    count = bisect_right(records, horizon, key=_stamp_of)
    return block[: sum(map(len, records[:count])) + count]


def _stamp(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"
