"""What two images do not share, path by path, read from their unpacked layers without a mount."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from engine.base.cancel import CancelToken
from engine.model import FileDifference
from engine.store.view import Entry, LayerView

CHUNK = 1 << 20


def compare(before: LayerView, after: LayerView, cancel: CancelToken | None = None) -> Iterator[FileDifference]:
    """Sorted by path. Modification times do not count: they are no part of what a build depends on."""
    old, new = before.lookup("", follow=False), after.lookup("", follow=False)
    assert old is not None  # a view always has a root
    assert new is not None
    yield from _Compare(before, after, cancel or CancelToken()).folders(old, new)


class _Compare:
    def __init__(self, before: LayerView, after: LayerView, cancel: CancelToken) -> None:
        self._before, self._after, self._cancel = before, after, cancel

    def folders(self, old: Entry, new: Entry) -> Iterator[FileDifference]:
        if old.sources == new.sources:
            return  # the same directories of the same layers: equal below, too
        left = {entry.path: entry for entry in self._before.children(old)}
        right = {entry.path: entry for entry in self._after.children(new)}
        for path in sorted(left.keys() | right.keys()):
            self._cancel.check()
            yield from self._pair(left.get(path), right.get(path))

    def _pair(self, old: Entry | None, new: Entry | None) -> Iterator[FileDifference]:
        if old is None and new is not None:
            for entry in self._after.walk(new):
                yield FileDifference(_shown(entry), "added", None, _size(entry), _kind(entry))
        elif new is None and old is not None:
            for entry in self._before.walk(old):
                yield FileDifference(_shown(entry), "removed", _size(entry), None, _kind(entry))
        elif old is not None and new is not None and old.real != new.real:
            what = _difference(old, new)
            if what:
                yield FileDifference(_shown(new), "changed", _size(old), _size(new), what)
        if old is not None and new is not None and old.is_dir and new.is_dir:
            yield from self.folders(old, new)


def _shown(entry: Entry) -> str:
    return f"/{entry.path}" + ("/" if entry.is_dir else "")


def _size(entry: Entry) -> int:
    return entry.status.st_size if stat.S_ISREG(entry.status.st_mode) else 0


def _kind(entry: Entry) -> str:
    mode = entry.status.st_mode
    for test, name in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link")):
        if test(mode):
            return name
    return "special file"


def _difference(old: Entry, new: Entry) -> str:
    a, b = old.status, new.status
    if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
        return f"{_kind(old)} became {_kind(new)}"
    found = []
    if stat.S_ISREG(a.st_mode) and (a.st_size != b.st_size or not _same_content(old.real, new.real)):
        found.append("content")
    if stat.S_ISLNK(a.st_mode) and os.readlink(old.real) != os.readlink(new.real):
        found.append(f"points to {os.readlink(new.real)}")
    if a.st_mode != b.st_mode:
        found.append(f"mode {stat.S_IMODE(a.st_mode):04o}→{stat.S_IMODE(b.st_mode):04o}")
    if (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid):
        found.append(f"owner {a.st_uid}:{a.st_gid}→{b.st_uid}:{b.st_gid}")
    return ", ".join(found)


def _same_content(first: str, second: str) -> bool:
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as two:
        while True:
            a, b = one.read(CHUNK), two.read(CHUNK)
            if a != b:
                return False
            if not a:
                return True
