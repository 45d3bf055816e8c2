"""Whether an unpacked layer's files are those of its blob, one by one; and putting back those that are not.

The blob is unpacked beside the tree by the code that unpacks layers, so that nothing has to be said twice about what an entry means on the disk,
and both are compared: kinds, owners, modes, sizes, attributes, targets and bytes. What is put back is moved over from there, a name
at a time: a running container that has the tree below it sees the old file or the right one. Times are not compared: of a built
layer's tree they may be finer or newer than the layer's.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.archive.diff import layer_xattrs
from engine.base.cancel import CancelToken


@dataclass(frozen=True, slots=True)
class Differing:
    """`path` in the layer; "" is its top. `missing` and `extra` are about the tree on the disk."""

    path: str
    what: Literal["missing", "extra", "kind", "content", "attributes"]

    @property
    def said(self) -> str:
        return {
            "missing": "missing; its layer has it",
            "extra": "not of its layer",
            "kind": "another kind of file than its layer has",
            "content": "its content is not its layer's",
            "attributes": "its mode, owner or attributes are not its layer's",
        }[self.what]


def differences(
    fresh: Path, tree: Path, below: Sequence[Path], cancel: CancelToken, *, base: bool = False
) -> Iterator[Differing]:
    """How `tree` is other than `fresh`, the layer unpacked just now. `below` are the trees under it, topmost first: a built layer leaves
    out what was only copied up, though its tree has it. `base`: the first of them is a part of this layer."""
    yield from _Comparison(fresh, tree, below, cancel, base=base).folder("", opaque=False)


class _Comparison:
    def __init__(
        self, fresh: Path, tree: Path, below: Sequence[Path], cancel: CancelToken, *, base: bool = False
    ) -> None:
        self._fresh, self._tree, self._below, self._cancel = str(fresh), str(tree), below, cancel
        self._base = below[0] if base else None

    def folder(self, path: str, *, opaque: bool) -> Iterator[Differing]:
        self._cancel.check()
        right, here = f"{self._fresh}/{path}", f"{self._tree}/{path}"
        wanted, there = set(os.listdir(right)), set(os.listdir(here))
        opaque = opaque or layer_xattrs(here)[1]
        for name in sorted(wanted | there):
            where = f"{path}/{name}" if path else name
            if name not in there:
                # An opaque directory of a build stands for the deletions that its layer names.
                if not (self._in_base(where) or (opaque and _is_whiteout(os.lstat(f"{self._fresh}/{where}")))):
                    yield Differing(where, "missing")
            elif name not in wanted:
                if not self._passes(where):
                    yield Differing(where, "extra")
            else:
                yield from self._both(where, opaque=opaque)

    def _both(self, path: str, *, opaque: bool) -> Iterator[Differing]:
        right, here = f"{self._fresh}/{path}", f"{self._tree}/{path}"
        what = _differs(right, here)
        if what:
            yield Differing(path, what)
        if what != "kind" and stat.S_ISDIR(os.lstat(right).st_mode):
            yield from self.folder(path, opaque=opaque)

    def _in_base(self, path: str) -> bool:
        """The tree that this one stands on has it as it should be; what is in there is checked by itself."""
        found = _real(self._base, path) if self._base is not None else None
        return found is not None and _differs(f"{self._fresh}/{path}", found) is None

    def _passes(self, path: str) -> bool:
        """In the tree, not in the layer, and right so: a socket, a deletion of nothing, a copy of what is below."""
        here = f"{self._tree}/{path}"
        status = os.lstat(here)
        if stat.S_ISSOCK(status.st_mode) or _is_whiteout(status):
            return True
        for tree in self._below:
            if (other := _real(tree, path)) is None:
                continue
            if _is_whiteout(os.lstat(other)) or _differs(other, here):
                return False
            if not stat.S_ISDIR(status.st_mode):
                return True
            return all(self._passes(f"{path}/{name}") for name in os.listdir(here))
        return False


def _real(tree: Path, path: str) -> str | None:
    """`path` in a tree, if it is there; no link on the way is followed."""
    here = str(tree)
    for part in path.split("/"):
        if not stat.S_ISDIR(os.lstat(here).st_mode):
            return None
        here = f"{here}/{part}"
        if not os.path.lexists(here):
            return None
    return here


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _differs(right: str, here: str) -> Literal["kind", "content", "attributes"] | None:
    a, b = os.lstat(right), os.lstat(here)
    if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode) or a.st_rdev != b.st_rdev:
        return "kind"
    if _is_whiteout(a):
        return None
    if stat.S_ISREG(a.st_mode) and (
        a.st_size != b.st_size or (a.st_size and not filecmp.cmp(right, here, shallow=False))
    ):
        return "content"
    if stat.S_ISLNK(a.st_mode) and os.readlink(right) != os.readlink(here):
        return "content"
    same = (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
    return None if same and layer_xattrs(right)[0] == layer_xattrs(here)[0] else "attributes"


def put_back(fresh: Path, tree: Path, found: Sequence[Differing], grave: Path) -> None:
    """Makes `tree` as `fresh` is, where they differ. What was there instead goes to `grave`, a folder on the same file system."""
    for number, one in enumerate(found):
        right, here = fresh / one.path, tree / one.path
        if one.what == "attributes" and stat.S_ISDIR(os.lstat(right).st_mode):
            _describe(right, here)
            continue
        if one.what in ("extra", "kind"):
            os.rename(here, grave / str(number))
        if one.what != "extra":
            times = os.lstat(here.parent)
            os.rename(right, here)  # over what is there
            os.utime(here.parent, ns=(times.st_atime_ns, times.st_mtime_ns))


def _describe(right: Path, here: Path) -> None:
    status, wanted = os.lstat(right), layer_xattrs(str(right))[0]
    os.chown(here, status.st_uid, status.st_gid, follow_symlinks=False)
    os.chmod(here, stat.S_IMODE(status.st_mode))
    for name in layer_xattrs(str(here))[0].keys() - wanted.keys():
        os.removexattr(here, name, follow_symlinks=False)
    for name, value in wanted.items():
        os.setxattr(here, name, value, follow_symlinks=False)


@contextlib.contextmanager
def folder_for(tmp: Path, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    place = tmp / name
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
