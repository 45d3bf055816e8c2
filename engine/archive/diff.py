"""An overlayfs upper directory as an OCI layer: whiteouts and opaque directories become marker files (image-spec, layer.md).

With the tree below at hand the layer is BuildKit's (its overlay differ and containerd's archive writer): what is as it was
below is left out, though it was copied up; a directory that did not change comes only with something in it; and an opaque
directory becomes the deletions that it means.
"""

from __future__ import annotations

import errno
import filecmp
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_INTERNAL = ("trusted.overlay.", "user.overlay.")


class Below(Protocol):
    """The merged tree under an upper directory. Paths are relative, the last component is not followed."""

    def find(self, path: str) -> tuple[str, os.stat_result] | None:
        """A file's real path and status, None where nothing is."""

    def names(self, path: str) -> Iterable[str]:
        """What is in the directory `path`."""


def write_upper(
    upper: Path,
    writer: LayerWriter,
    below: Below | None = None,
    *,
    skip: Collection[str] = (),
    cancel: CancelToken | None = None,
    mtime_clamp: int | None = None,
) -> None:
    """Adds what `upper` holds, parents first, sorted by name. `upper` must not change meanwhile; sockets are left out."""
    _Walk(str(upper), writer, below, frozenset(skip), cancel or CancelToken(), mtime_clamp).folder("", opaque=False)


class _Walk:
    """`_waiting` are directories above the current path that did not change and have nothing in them so far."""

    def __init__(
        self,
        root: str,
        writer: LayerWriter,
        below: Below | None,
        skip: frozenset[str],
        cancel: CancelToken,
        clamp: int | None,
    ) -> None:
        self._root, self._writer, self._below = root, writer, below
        self._skip, self._cancel, self._clamp = skip, cancel, clamp
        self._links: dict[tuple[int, int], str] = {}
        self._waiting: list[TarEntry] = []

    def _add(self, entry: TarEntry, body: BinaryIO | None = None) -> None:
        for parent in self._waiting:
            self._writer.add(parent)
        self._waiting.clear()
        self._writer.add(entry, body)

    def folder(self, path: str, *, opaque: bool) -> None:
        """`opaque`: nothing of the tree below shows here, so what is missing was deleted."""
        with os.scandir(f"{self._root}/{path}") as found:
            names = {entry.name for entry in found}
        gone: set[str] = set()
        if opaque and self._below is not None:
            gone = set(self._below.names(path)) - names
        for name in sorted(names | gone):
            self._cancel.check()
            where = f"{path}/{name}" if path else name
            if name in gone:
                self._whiteout(where)
            elif where not in self._skip:
                self._entry(where, f"{self._root}/{where}", opaque)

    def _entry(self, path: str, real: str, opaque: bool) -> None:
        status = os.lstat(real)
        mode = status.st_mode
        if stat.S_ISCHR(mode) and status.st_rdev == 0:
            if self._below is None or self._below.find(path) is not None:
                self._whiteout(path)
            return
        if stat.S_ISSOCK(mode):
            return
        xattrs, is_opaque = layer_xattrs(real)
        was = self._below.find(path) if self._below is not None else None
        same = was is not None and same_file(was, (real, status))
        common = (stat.S_IMODE(mode), status.st_uid, status.st_gid, self._mtime(status))
        if stat.S_ISDIR(mode):
            self._directory(TarEntry(path, "dir", *common, xattrs=xattrs), same, opaque or is_opaque, is_opaque, was)
            return
        if same:
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            self._add(TarEntry(path, "hardlink", *common, link=self._links[key]))
            return
        self._links[key] = path
        if stat.S_ISREG(mode):
            with open(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as body:
                self._add(TarEntry(path, "file", *common, size=status.st_size, xattrs=xattrs), body)
        elif stat.S_ISLNK(mode):
            self._add(TarEntry(path, "symlink", *common, link=os.readlink(real), xattrs=xattrs))
        elif stat.S_ISFIFO(mode):
            self._add(TarEntry(path, "fifo", *common, xattrs=xattrs))
        else:
            kind = "char" if stat.S_ISCHR(mode) else "block"
            dev = (os.major(status.st_rdev), os.minor(status.st_rdev))
            self._add(TarEntry(path, kind, *common, dev=dev, xattrs=xattrs))  # type: ignore[arg-type]

    def _directory(
        self, entry: TarEntry, same: bool, opaque: bool, marked: bool, was: tuple[str, os.stat_result] | None
    ) -> None:
        if same:
            self._waiting.append(entry)
        else:
            self._add(entry)
        if marked and self._below is None:
            self._add(TarEntry(f"{entry.path}/.wh..wh..opq", "file", 0))
        self.folder(entry.path, opaque=opaque and was is not None and stat.S_ISDIR(was[1].st_mode))
        if self._waiting and self._waiting[-1] is entry:
            self._waiting.pop()

    def _whiteout(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        self._add(TarEntry(f"{folder}/.wh.{name}" if folder else f".wh.{name}", "file", 0))

    def _mtime(self, status: os.stat_result) -> int:
        mtime = status.st_mtime_ns // 10**9
        return mtime if self._clamp is None else min(mtime, self._clamp)


def layer_xattrs(real: str) -> tuple[dict[str, bytes], bool]:
    """Extended attributes that belong to the layer, and whether the directory is opaque."""
    try:
        names = os.listxattr(real, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return {}, False
        raise
    kept = {
        name: os.getxattr(real, name, follow_symlinks=False)
        for name in names
        if not name.startswith(_INTERNAL) and not name.startswith(("system.", "security.selinux"))
    }
    opaque = any(name in names and os.getxattr(real, name, follow_symlinks=False) == b"y" for name in _OPAQUE)
    return kept, opaque


def shown_xattrs(real: str) -> dict[str, bytes]:
    """Extended attributes that belong to the layer."""
    return layer_xattrs(real)[0]


def same_file(was: tuple[str, os.stat_result], now: tuple[str, os.stat_result]) -> bool:
    """Whether a file is as it was below: metadata, and content where times cannot tell (continuity's sameDirent)."""
    (old, a), (new, b) = was, now
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev):
        return False
    if layer_xattrs(old)[0] != layer_xattrs(new)[0]:
        return False
    if stat.S_ISDIR(a.st_mode):
        return True
    if a.st_size != b.st_size or a.st_mtime_ns != b.st_mtime_ns:
        return False
    if a.st_mtime_ns % 10**9:
        return True
    if stat.S_ISLNK(a.st_mode):
        return os.readlink(old) == os.readlink(new)
    return not stat.S_ISREG(a.st_mode) or a.st_size == 0 or filecmp.cmp(old, new, shallow=False)
