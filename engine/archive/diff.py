"""An overlayfs upper directory as an OCI layer: whiteouts and opaque directories become marker files (image-spec, layer.md)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path

from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_INTERNAL = ("trusted.overlay.", "user.overlay.")


def write_upper(
    upper: Path,
    writer: LayerWriter,
    *,
    skip: Collection[str] = (),
    cancel: CancelToken | None = None,
    mtime_clamp: int | None = None,
) -> None:
    """Adds what `upper` holds, parents first, sorted by name. `upper` must not change meanwhile; sockets are left out."""
    _Walk(str(upper), writer, frozenset(skip), cancel or CancelToken(), mtime_clamp).folder("")


class _Walk:
    def __init__(
        self, root: str, writer: LayerWriter, skip: frozenset[str], cancel: CancelToken, clamp: int | None
    ) -> None:
        self._root, self._writer, self._skip, self._cancel, self._clamp = root, writer, skip, cancel, clamp
        self._links: dict[tuple[int, int], str] = {}

    def folder(self, path: str) -> None:
        with os.scandir(f"{self._root}/{path}") as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            self._cancel.check()
            where = f"{path}/{name}" if path else name
            if where not in self._skip:
                self._entry(where, f"{self._root}/{where}")

    def _entry(self, path: str, real: str) -> None:
        status = os.lstat(real)
        mode = status.st_mode
        if stat.S_ISCHR(mode) and status.st_rdev == 0:
            folder, _, name = path.rpartition("/")
            self._marker(f"{folder}/.wh.{name}" if folder else f".wh.{name}")
            return
        if stat.S_ISSOCK(mode):
            return
        xattrs, opaque = _xattrs(real)
        common = (stat.S_IMODE(mode), status.st_uid, status.st_gid, self._mtime(status))
        if stat.S_ISDIR(mode):
            self._writer.add(TarEntry(path, "dir", *common, xattrs=xattrs))
            if opaque:
                self._marker(f"{path}/.wh..wh..opq")
            self.folder(path)
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            self._writer.add(TarEntry(path, "hardlink", *common, link=self._links[key]))
            return
        self._links[key] = path
        if stat.S_ISREG(mode):
            with open(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as body:
                self._writer.add(TarEntry(path, "file", *common, size=status.st_size, xattrs=xattrs), body)
        elif stat.S_ISLNK(mode):
            self._writer.add(TarEntry(path, "symlink", *common, link=os.readlink(real), xattrs=xattrs))
        elif stat.S_ISFIFO(mode):
            self._writer.add(TarEntry(path, "fifo", *common, xattrs=xattrs))
        else:
            kind = "char" if stat.S_ISCHR(mode) else "block"
            dev = (os.major(status.st_rdev), os.minor(status.st_rdev))
            self._writer.add(TarEntry(path, kind, *common, dev=dev, xattrs=xattrs))  # type: ignore[arg-type]

    def _marker(self, path: str) -> None:
        self._writer.add(TarEntry(path, "file", 0))

    def _mtime(self, status: os.stat_result) -> int:
        mtime = int(status.st_mtime)
        return mtime if self._clamp is None else min(mtime, self._clamp)


def _xattrs(real: str) -> tuple[dict[str, bytes], bool]:
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
