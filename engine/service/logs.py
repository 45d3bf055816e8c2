"""Reading a container's json-file log: from the start, the last lines, or on and on as it grows, over the files put aside.

A record is Docker's `{"log": "…\\n", "stream": "stdout", "time": "…"}`; one whose text has no newline is a part of a longer
line. A torn record (a crash, a full disk) is passed over, it never stops the reading. Memory is constant: a block at a time.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.base.clock import parse_rfc3339
from engine.errors import Corrupt, NotFound, from_os_error
from engine.model import LogLine, LogRecord

BLOCK = 1 << 20
_HEAD = 200  # bytes by which a file is told from another one that got its inode
_NOTHING: Mapping[str, str] = {}


def open_log(path: Path) -> BinaryIO:
    """Opens a log for reading. It must be a regular file: a link in its place is not followed (CVE-2026-53489)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"no log at {path}") from None
    except OSError as error:
        raise from_os_error(error, "reading a log") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Corrupt(f"the log {path} is no regular file", hint="something has put another one in its place")
    return os.fdopen(fd, "rb", buffering=0)


def log_files(path: Path) -> list[Path]:
    """The log and the older ones put aside, newest first."""
    found = [path] if path.exists() else []
    older = []
    for candidate in path.parent.glob(f"{path.name}.*"):
        number = candidate.name.removeprefix(f"{path.name}.").removesuffix(".gz")
        if number.isdigit():
            older.append((int(number), candidate))
    return found + [candidate for _number, candidate in sorted(older)]


_LOOKS = 50


class Part:
    """One file of a log, open. A compressed one tells the inode number of the original."""

    def __init__(self, path: Path) -> None:
        raw = open_log(path)
        status = os.fstat(raw.fileno())
        self.compressed = path.name.endswith(".gz")
        self.modified = status.st_mtime_ns
        self.inode, self.size, self._raw = status.st_ino, status.st_size, raw
        self.file = raw
        if self.compressed:
            self.inode, self.size = _original(raw)
            # Reads what is asked for and no more: the pieces of a log that do not fit in memory never are.
            self.file = cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))

    @property
    def identity(self) -> tuple[int, bytes]:
        """The same for a file and what it was compressed to. The beginning, with its time, tells a reused inode."""
        if not self.compressed:
            return self.inode, os.pread(self._raw.fileno(), _HEAD, 0)
        at = self.file.tell()
        self.file.seek(0)
        head = self.file.read(_HEAD)
        self.file.seek(at)
        return self.inode, head

    def close(self) -> None:
        self._raw.close()


def _original(raw: BinaryIO) -> tuple[int, int]:
    """(inode number, size modulo 4 GiB) of what was compressed: RFC 1952's FNAME and ISIZE."""
    head = raw.read(64)
    end = raw.seek(0, os.SEEK_END)
    raw.seek(max(end - 4, 0))
    size = int.from_bytes(raw.read(4), "little")
    raw.seek(0)
    name = head[10 : head.find(b"\0", 10)] if head[3:4] and head[3] & 8 else b""
    return int(name) if name.isdigit() else -1, size


def open_parts(path: Path, until: tuple[int, bytes] | None = None) -> list[Part]:
    """The files of a log, oldest first. `until`: only those newer than the one with this identity. Looks again when files
    were put aside or compressed meanwhile: what was listed under one name is then under another."""
    for _attempt in range(_LOOKS):
        parts, sure = _look(path, until)
        if sure:
            break
        for part in parts:
            part.close()
    else:
        parts, _ = _look(path, until)  # it is put aside faster than one can look: what there is
    return parts[::-1]


def _look(path: Path, until: tuple[int, bytes] | None) -> tuple[list[Part], bool]:
    """One pass, from the newest on, so that a file put aside meanwhile is met twice (and known by its identity) rather
    than missed; and whether nothing moved."""
    before = _listing(path)
    parts: list[Part] = []
    met: set[tuple[int, bytes]] = set()
    for candidate in before[1]:
        try:
            part = Part(candidate)
        except NotFound:  # put further aside, compressed or dropped meanwhile
            return parts, False
        identity = part.identity
        if identity == until:
            part.close()
            return parts, True
        if identity in met:
            part.close()
            continue
        met.add(identity)
        parts.append(part)
    return parts, _listing(path) == before


def _listing(path: Path) -> tuple[int, list[Path]]:
    """The inode number of the present file, which changes with each that is put aside, and all of them."""
    try:
        inode = os.stat(path, follow_symlinks=False).st_ino
    except FileNotFoundError:
        inode = 0
    return inode, log_files(path)


class LogReader:
    """Gives the records there are, again and again; keeps what is incomplete until more arrives.

    `tail`: only the last lines (whole ones, and a last one that has no end). `since`, `until`: ns since the epoch.
    """

    def __init__(self, path: Path, *, tail: int | None = None, since: int = 0, until: int = 0) -> None:
        self._path = path
        self._parts = open_parts(path)
        if not self._parts:
            raise NotFound(f"no log at {path}")
        self._since, self._until = _stamp(since), _stamp(until)
        while since and len(self._parts) > 1 and self._parts[0].modified < since:
            self._parts.pop(0).close()
        self._base = 0
        self._rest = b""
        self._lines: dict[str, str] = {}
        if tail is not None:
            self._skip(tail)

    def close(self) -> None:
        for part in self._parts:
            part.close()
        self._parts = []

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _skip(self, tail: int) -> None:
        left = tail
        for index in range(len(self._parts) - 1, -1, -1):
            part = self._parts[index]
            offset, found = _tail_compressed(part, left) if part.compressed else _tail(part, left)
            left -= found
            if left <= 0:
                self._base = sum(older.size for older in self._parts[:index])
                for older in self._parts[:index]:
                    older.close()
                del self._parts[:index]
                part.file.seek(offset)
                return

    # --- blocks, records, lines --------------------------------------------------------------------------

    def _blocks(self) -> Iterator[tuple[list[bytes], int]]:
        """(whole records, offset in the log where they begin), up to the present end, over files put aside."""
        while True:
            part = self._parts[0]
            at = part.file.tell() - len(self._rest)
            block = part.file.read(BLOCK)
            if block:
                records = (self._rest + block).split(b"\n")
                self._rest = records.pop()
                yield records, self._base + at
            elif not self._next_part():
                return

    def _next_part(self) -> bool:
        """At the end of a file: whether there is another, or more in this one."""
        part = self._parts[0]
        if len(self._parts) == 1:
            if part.compressed or not self._was_put_aside(part):
                return False
            if os.fstat(part.file.fileno()).st_size > part.file.tell():
                return True  # written between our last read and its being put aside
            self._parts += open_parts(self._path, part.identity)
            if len(self._parts) == 1:
                return False
        self._base += part.file.tell()
        part.close()
        del self._parts[0]
        self._rest = b""
        return True

    def _was_put_aside(self, part: Part) -> bool:
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino != part.inode
        except FileNotFoundError:
            return False

    def _entries(self) -> Iterator[list[tuple[dict[str, Any], int]]]:
        for raw, offset in self._blocks():
            try:  # all at once, in C; a torn one makes that fail
                entries = json.loads(b"[" + b",".join(raw) + b"]")
            except ValueError:
                entries = [_entry(record) for record in raw]
            batch = []
            for record, entry in zip(raw, entries, strict=False):
                offset += len(record) + 1
                if type(entry) is dict and self._wanted(entry):
                    batch.append((entry, offset))
            yield batch

    def _wanted(self, entry: dict[str, Any]) -> bool:
        if not (self._since or self._until):
            return True
        try:
            when = full_stamp(entry["time"])
        except (KeyError, TypeError, AttributeError):
            return False
        return when >= self._since and (not self._until or when <= self._until)

    def records(self) -> Iterator[list[LogRecord]]:
        """Everything there is now, exactly as it was written, a block at a time."""
        if not (self._since or self._until):
            yield from self._fast_records()
            return
        for batch in self._entries():
            yield [record for entry, _offset in batch if (record := _record(entry)) is not None]

    def _fast_records(self) -> Iterator[list[LogRecord]]:
        for raw, _offset in self._blocks():
            try:
                entries = json.loads(b"[" + b",".join(raw) + b"]")
                yield [LogRecord(e["log"], e["stream"], e["time"], e.get("attrs", _NOTHING)) for e in entries]
            except (ValueError, KeyError, TypeError, AttributeError):
                yield [record for one in raw if (record := _record(_entry(one))) is not None]

    def lines(self) -> Iterator[LogLine]:
        """Every whole line there is now, its pieces joined."""
        for batch in self._entries():
            for entry, offset in batch:
                record = _record(entry)
                if record is None:
                    continue
                text = self._lines.pop(record.stream, "") + record.text
                if not text.endswith("\n"):
                    self._lines[record.stream] = text
                    continue
                if not text.isascii():  # a character that was cut in two is one again
                    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
                try:
                    when = parse_rfc3339(record.stamp)
                except ValueError:
                    continue
                yield LogLine(text[:-1], cast(Any, record.stream), when, offset)


def _entry(raw: bytes) -> Any:
    """A record, or what is left of one: a file that lost its end in a crash goes on behind a run of NULs."""
    try:
        return json.loads(raw.lstrip(b"\0"))
    except ValueError:
        return None


def _record(entry: Any) -> LogRecord | None:
    try:
        text, stream, stamp = entry["log"], entry["stream"], entry["time"]
    except (KeyError, TypeError):
        return None
    if not (isinstance(text, str) and isinstance(stream, str) and isinstance(stamp, str)):
        return None
    attributes = entry.get("attrs")
    return LogRecord(text, stream, stamp, attributes if isinstance(attributes, dict) else _NOTHING)


def full_stamp(stamp: str) -> str:
    """With nine digits of a second, as `logs --timestamps` shows it; such stamps sort like their times."""
    return f"{stamp[:-1]:0<29}Z" if len(stamp) > 20 else f"{stamp[:-1]}.000000000Z"


def _stamp(ns: int) -> str:
    if not ns:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"


# --- the last lines ------------------------------------------------------------------------------------


def _ends_line(record: bytes) -> bool:
    return b'\\n","stream":"' in record


def _tail(part: Part, count: int) -> tuple[int, int]:
    """(offset from which at most `count` lines remain, how many they are), from the end backwards."""
    fd, end = part.file.fileno(), os.fstat(part.file.fileno()).st_size
    if count <= 0:
        return end, 0
    found, behind, rest, position = 0, end, b"", end
    last = True
    while position > 0:
        step = min(1 << 16, position)
        position -= step
        data = os.pread(fd, step, position) + rest
        pieces = data.split(b"\n")
        rest = pieces[0]
        at = position + len(data)
        for piece in reversed(pieces[1:]):
            at -= len(piece)
            if piece:
                if _ends_line(piece) or last:
                    if found == count:
                        return behind, found
                    found += 1
                last = False
                behind = at
            at -= 1
    if rest and (_ends_line(rest) or last):
        if found == count:
            return behind, found
        found += 1
    return 0, found


def _tail_compressed(part: Part, count: int) -> tuple[int, int]:
    """The same, by reading it twice: there is no going backwards in it."""
    total = _count(part, lambda _number, _offset: False)[0]
    if total <= count:
        return 0, total
    return _count(part, lambda number, _offset: number == total - count)[1], count


def _count(part: Part, stop: Callable[[int, int], bool]) -> tuple[int, int]:
    part.file.seek(0)
    lines, offset, rest = 0, 0, b""
    while block := part.file.read(BLOCK):
        records = (rest + block).split(b"\n")
        rest = records.pop()
        for record in records:
            offset += len(record) + 1
            lines += _ends_line(record)
            if stop(lines, offset):
                part.file.seek(0)
                return lines, offset
    part.file.seek(0)
    return lines, offset


def rule_record(text: str, stamp: str) -> bytes:
    """A "workbench" line: what the inner loop says between two generations of a service."""
    return json.dumps({"log": text + "\n", "stream": "workbench", "time": stamp}, ensure_ascii=False).encode() + b"\n"
