"""One log, over the files put aside, as one run of bytes that is read from any place and grows. The log of another container can go
on in it (`LogSource.follow`).

Every file stays open, so what is put aside or compressed meanwhile moves nothing. A file that a limit (`max-file`) has
dropped is closed a moment later, else a reader would keep its disk space.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.base.clock import rfc3339
from engine.service.logs import Part, log_files, open_parts, rule_record

_EARLIER = 8  # containers of a name whose logs are held open after they have gone
_KEPT = 2  # dropped files that stay open: what is on the screen may be in them


class LogPlace(NamedTuple):
    """Where a container writes. `path` "": not to a file that can be read here."""

    id: str
    path: str
    created: int  # ns since the epoch


def replaced(before: str, after: LogPlace) -> str:
    """The rule between the logs of two containers of one name."""
    moment = time.strftime("%H:%M:%S", time.localtime(after.created / 1e9))
    return f"── replaced {moment} {before[:4]}→{after.id[:4]} · another container of this name ──"


class _Rule:
    """A record of our own between two files, as one of them."""

    compressed = False

    def __init__(self, record: bytes) -> None:
        self.file = os.fdopen(os.memfd_create("log-rule", os.MFD_CLOEXEC), "r+b", buffering=0)
        self.file.write(record)

    def close(self) -> None:
        self.file.close()


@dataclass(slots=True)
class _Piece:
    """A file and the place of its first byte in the run. `size` of the newest one grows."""

    part: Part | _Rule
    start: int
    size: int


class LogSource:
    """The log at `path`; it need not be there yet."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.dropped = 0  # bytes before this place are gone
        self._pieces: list[_Piece] = []

    @property
    def end(self) -> int:
        return self._pieces[-1].start + self._pieces[-1].size if self._pieces else 0

    def close(self) -> None:
        for piece in self._pieces:
            piece.part.close()
        self._pieces = []

    def grow(self) -> bool:
        """Looks at what has been added. False when the file was cut short by somebody: then all places are void."""
        if not self._pieces:
            self._add(open_parts(self.path))
            return True
        last = self._pieces[-1]
        if isinstance(last.part, _Rule):
            self._add(open_parts(self.path))
            return True
        put_aside = self._put_aside(last.part)
        if not last.part.compressed:  # after the look above: what was written before it was put aside is seen
            size = os.fstat(last.part.file.fileno()).st_size
            if size < last.size:
                self.close()
                return False
            last.size = size
        if put_aside:
            self._add(open_parts(self.path, last.part.identity))
            self._drop()
        return True

    def follow(self, path: Path, rule: str, created: int) -> None:
        """The log at `path` goes on in this one, behind a rule of the time `created` (ns since the epoch)."""
        self.grow()
        self.path = path
        self._add([_Rule(rule_record(rule, rfc3339(created)))])
        while sum(isinstance(piece.part, _Rule) for piece in self._pieces) > _EARLIER:
            self._drop_first()

    def _add(self, parts: Sequence[Part | _Rule]) -> None:
        for part in parts:
            size = part.size if isinstance(part, Part) and part.compressed else os.fstat(part.file.fileno()).st_size
            self._pieces.append(_Piece(part, self.end, size))

    def _put_aside(self, part: Part) -> bool:
        try:
            return part.compressed or os.stat(self.path, follow_symlinks=False).st_ino != part.inode
        except FileNotFoundError:
            return False

    def _drop(self) -> None:
        """A compressed file's original has no name either, so the names that are left are counted, not asked for."""
        present = len(log_files(self.path))
        rules = [index for index, piece in enumerate(self._pieces) if isinstance(piece.part, _Rule)]
        own = len(self._pieces) - (rules[-1] + 1 if rules else 0)
        for _ in range(len(self._pieces) - present - _KEPT if own > present + _KEPT else 0):
            self._drop_first()

    def _drop_first(self) -> None:
        gone = self._pieces.pop(0)
        gone.part.close()
        self.dropped = gone.start + gone.size

    def read(self, start: int, end: int) -> bytes:
        """The bytes between two places; fewer when they are gone."""
        found, at = b"", max(start, self.dropped)
        while self._pieces and at < end:
            piece = self._pieces[self._piece_at(at)]
            data = _read(piece.part, at - piece.start, min(end, piece.start + piece.size) - at)
            if not data:
                break
            found, at = found + data if found else data, at + len(data)
        return found

    def records(self, at: int, size: int) -> tuple[bytes, int, int, bool]:
        """(whole records from the place `at` on, about `size` bytes of them; where they begin; where they end; whether there
        is more now)."""
        at = max(at, self.dropped)
        while self._pieces:
            index = self._piece_at(at)
            piece, newest = self._pieces[index], index == len(self._pieces) - 1
            left = piece.start + piece.size - at
            data = _read(piece.part, at - piece.start, min(size, left))
            whole = data.rfind(b"\n") + 1
            if whole:
                more = at + whole < piece.start + piece.size and len(data) < left
                return data[:whole], at, at + whole, more or not newest
            if len(data) < left:
                size *= 2  # one record is longer
            elif newest:
                break
            else:  # a record that a crash has cut short ends a file
                at = self._pieces[index + 1].start
        return b"", at, at, False

    def _piece_at(self, place: int) -> int:
        return max(0, bisect_right(self._pieces, place, key=lambda piece: piece.start) - 1)


def _read(part: Part | _Rule, at: int, size: int) -> bytes:
    if isinstance(part, _Rule) or not part.compressed:
        return os.pread(part.file.fileno(), size, at)
    part.file.seek(at)
    return part.file.read(size)
