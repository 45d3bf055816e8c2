"""Stat data of many paths at once (statx(2)), kept in the kernel's own layout so that "nothing changed" is one comparison of memory.

A call to `os.stat` makes an object of twenty fields; 20,000 of them cost more than the system calls. Here the kernel writes into a
table, and the table is compared with the one before. `struct statx` has the same layout on every architecture.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat

from engine.base.cancel import CancelToken

SIZE = 256  # of struct statx
SEGMENT = 4096  # paths in one table: between two of them, work can be cancelled
_BLOCK = 64  # paths compared at once when a table differs
_FLAGS = 0x100 | 0x800 | 0x4000  # AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC
_MASK = 0x7FF & ~0x20  # STATX_BASIC_STATS without STATX_ATIME
# nlink, uid, gid, mode, ino, size, blocks … then (after atime and btime) ctime, mtime, rdev. What reading a file changes is left out.
_HEAD, _TAIL = slice(16, 64), slice(96, 144)
_MODE, _LINKS = struct.Struct("<H"), struct.Struct("<I")
_FIELDS = struct.Struct("<16xIIIHxxQQ16x32xqI4xqI4xIIII")

_libc = ctypes.CDLL(None, use_errno=True)
_statx = _libc.statx
_statx.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
_statx.restype = ctypes.c_int
_memcmp = _libc.memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memcmp.restype = ctypes.c_int


class _Segment:
    """`old` is what is known, `new` what the kernel said last."""

    def __init__(self) -> None:
        # Pages come when they are touched: most folders need few of these two megabytes.
        table = ctypes.c_char * (SIZE * SEGMENT)
        self.old, self.new = (table.from_buffer(mmap.mmap(-1, SIZE * SEGMENT)) for _ in range(2))
        self.old_at, self.new_at = ctypes.addressof(self.old), ctypes.addressof(self.new)
        self.names: list[int] = []  # addresses of the paths
        self.into: list[int] = []
        self.kept: list[object] = []  # what those addresses point into

    def append(self, blob: ctypes.Array[ctypes.c_char], offsets: Sequence[int]) -> None:
        base, first = ctypes.addressof(blob), len(self.names)
        self.kept.append(blob)
        self.names += [base + offset for offset in offsets]
        self.into += [self.new_at + SIZE * (first + count) for count in range(len(offsets))]


class StatTable:
    """Paths below the directory `root_fd`, by slot: the first that is added is slot 0. Slots are never given back."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._segments: list[_Segment] = []
        self._count = 0
        self.missing: set[int] = set()
        self._found: list[int] = []  # by a look that was cancelled

    def __len__(self) -> int:
        return self._count

    def reserve(self, paths: Sequence[bytes]) -> range:
        """Slots for `paths`, without asking the kernel for them."""
        first, done = self._count, 0
        while done < len(paths):
            if self._count % SEGMENT == 0:
                self._segments.append(_Segment())
            part = paths[done : done + SEGMENT - self._count % SEGMENT]
            blob = b"\0".join(part) + b"\0"
            offsets = [0, *accumulate(len(path) + 1 for path in part[:-1])]
            self._segments[-1].append(ctypes.create_string_buffer(blob, len(blob)), offsets)
            self._count += len(part)
            done += len(part)
        return range(first, self._count)

    def add(self, paths: Sequence[bytes]) -> range:
        """Slots for `paths`, asked for now."""
        slots = self.reserve(paths)
        self.look(slots)
        return slots

    def look(self, slots: Iterable[int]) -> list[int]:
        """Asks the kernel for these alone; returns those that changed (or are missing)."""
        changed = []
        for slot in slots:
            segment, at = self._segments[slot // SEGMENT], slot % SEGMENT
            if _statx(self._root, segment.names[at], _FLAGS, _MASK, segment.into[at]):
                self.missing.add(slot)
                changed.append(slot)
                continue
            self.missing.discard(slot)
            if self._take(segment, at):
                changed.append(slot)
        return changed

    def refresh(self, cancel: CancelToken | None = None) -> list[int]:
        """Asks the kernel for all of them; returns the slots that changed (or are missing). What a look that was cancelled had found is
        part of the next one's answer."""
        changed, self._found = self._found, []
        for number, segment in enumerate(self._segments):
            if cancel is not None and cancel.cancelled:
                self._found = changed
                cancel.check()
            first = number * SEGMENT
            results = list(map(_statx, repeat(self._root), segment.names, repeat(_FLAGS), repeat(_MASK), segment.into))
            if any(results):
                gone = {first + at for at, result in enumerate(results) if result}
                self.missing |= gone
                changed += sorted(gone)
            if self.missing:
                self.missing -= {
                    slot for slot in self.missing if slot // SEGMENT == number and not results[slot - first]
                }
            if _memcmp(segment.old_at, segment.new_at, SIZE * len(results)):
                changed += [first + at for at in self._differing(segment, len(results))]
        return changed

    def _differing(self, segment: _Segment, count: int) -> list[int]:
        found = []
        for first in range(0, count, _BLOCK):
            last = min(first + _BLOCK, count)
            if _memcmp(segment.old_at + SIZE * first, segment.new_at + SIZE * first, SIZE * (last - first)):
                found += [at for at in range(first, last) if self._take(segment, at)]
        return found

    def _take(self, segment: _Segment, at: int) -> bool:
        """Makes the new data the known one; whether they differ in more than the time of access."""
        offset = SIZE * at
        old = ctypes.string_at(segment.old_at + offset, SIZE)
        new = ctypes.string_at(segment.new_at + offset, SIZE)
        if old == new:
            return False
        ctypes.memmove(segment.old_at + offset, segment.new_at + offset, SIZE)
        return old[_HEAD] != new[_HEAD] or old[_TAIL] != new[_TAIL]

    def point(self, slot: int, path: bytes) -> None:
        """From now on the slot stands for another path."""
        segment, at = self._segments[slot // SEGMENT], slot % SEGMENT
        blob = ctypes.create_string_buffer(path + b"\0", len(path) + 1)
        segment.kept.append(blob)
        segment.names[at] = ctypes.addressof(blob)

    # --- reading --------------------------------------------------------------------------------------

    def mode(self, slot: int) -> int:
        """Type and permissions; 0 when there is nothing at the path."""
        if slot in self.missing:
            return 0
        found: int = _MODE.unpack_from(self._segments[slot // SEGMENT].old, SIZE * (slot % SEGMENT) + 28)[0]
        return found

    def links(self, slot: int) -> int:
        """How many names the file has."""
        found: int = _LINKS.unpack_from(self._segments[slot // SEGMENT].old, SIZE * (slot % SEGMENT) + 16)[0]
        return found

    def key(self, slot: int) -> tuple[int, int, int, int]:
        """inode, size, mtime and ctime in ns: what says that the content is the same (git's index does)."""
        _, _, _, _, ino, size, csec, cnsec, msec, mnsec, *_ = self._fields(slot)
        return ino, size, msec * 10**9 + mnsec, csec * 10**9 + cnsec

    def _fields(self, slot: int) -> tuple[int, ...]:
        return _FIELDS.unpack_from(self._segments[slot // SEGMENT].old, SIZE * (slot % SEGMENT))

    def status(self, slot: int) -> os.stat_result:
        """As `os.lstat` gives it, but for the time of access, which is 0."""
        nlink, uid, gid, mode, ino, size, csec, cnsec, msec, mnsec, rmajor, rminor, major, minor = self._fields(slot)
        device, mtime, ctime = os.makedev(major, minor), msec * 10**9 + mnsec, csec * 10**9 + cnsec
        more = {
            "st_atime_ns": 0,
            "st_mtime_ns": mtime,
            "st_ctime_ns": ctime,
            "st_rdev": os.makedev(rmajor, rminor),
            "st_blksize": 4096,
            "st_blocks": (size + 511) // 512,
        }
        fields = (mode, ino, device, nlink, uid, gid, size, 0, msec, csec, 0.0, mtime / 1e9, ctime / 1e9)
        return os.stat_result(fields, more)

    # --- keeping --------------------------------------------------------------------------------------

    def dump(self, slots: Sequence[int]) -> bytes:
        """The known data of `slots`, one after the other."""
        return b"".join(
            ctypes.string_at(self._segments[slot // SEGMENT].old_at + SIZE * (slot % SEGMENT), SIZE) for slot in slots
        )

    def load(self, data: bytes) -> None:
        """What `dump` gave, for slots 0 on, which are reserved."""
        for number, segment in enumerate(self._segments):
            part = data[number * SIZE * SEGMENT : (number + 1) * SIZE * SEGMENT]
            ctypes.memmove(segment.old_at, part, len(part))


def kind(mode: int) -> str:
    """One letter for a type of file: f, d, l, p, c, b, s."""
    return {
        stat.S_IFREG: "f",
        stat.S_IFDIR: "d",
        stat.S_IFLNK: "l",
        stat.S_IFIFO: "p",
        stat.S_IFCHR: "c",
        stat.S_IFBLK: "b",
    }.get(stat.S_IFMT(mode), "s")
