"""A directory tree as a tar, read through descriptors while others may be changing it.

Nothing is looked up by a path twice: each entry is opened once below its directory's descriptor, without following a
link, and everything that is said of it comes from that descriptor. A file that shrinks while it is read is filled up with
zeros, as GNU tar does; one that grows is cut at its size.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, BinaryIO, Literal, cast

from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SKIPPED = ("trusted.overlay.", "user.overlay.", "system.", "security.selinux")
Kind = Literal["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]


class TreePacker:
    """Adds entries to `writer`. Sockets are left out: a tar has no form for them."""

    def __init__(self, writer: LayerWriter, cancel: CancelToken | None = None) -> None:
        self._writer, self._cancel = writer, cancel or CancelToken()
        self._links: dict[tuple[int, int], str] = {}

    def entry(self, folder: int, name: str, shown: str) -> None:
        """What `name` in the directory `folder` is, as `shown`, with everything below it. Raises `OSError`."""
        fd = os.open(name, _PATH, dir_fd=folder)
        try:
            self._add(fd, name, folder, shown)
        finally:
            os.close(fd)

    def single(self, folder: int, name: str, shown: str) -> None:
        """As `entry`; of a directory its own entry alone."""
        fd = os.open(name, _PATH, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                self._writer.add(self._described(fd, status, "dir", shown))
            else:
                self._add(fd, name, folder, shown)
        finally:
            os.close(fd)

    def directory(self, fd: int, shown: str) -> None:
        """The directory `fd` as `shown` and everything below it; `shown` "" leaves out the entry of its own."""
        if shown:
            self._writer.add(self._described(fd, os.fstat(fd), "dir", shown))
        prefix = "" if not shown else shown if shown.endswith("/") else f"{shown}/"
        self.children(fd, prefix)

    def children(self, fd: int, prefix: str) -> None:
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            for name in sorted(os.listdir(listing), key=os.fsencode):
                self._cancel.check()
                try:
                    self.entry(listing, name, f"{prefix}{name}")
                except FileNotFoundError:
                    continue  # removed meanwhile
        finally:
            os.close(listing)

    def _add(self, fd: int, name: str, folder: int, shown: str) -> None:
        status = os.fstat(fd)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self.directory(fd, shown)
            return
        if stat.S_ISSOCK(mode):
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            self._writer.add(self._described(fd, status, "hardlink", shown, link=self._links[key]))
            return
        if stat.S_ISREG(mode):
            self._file(fd, status, shown)
        elif stat.S_ISLNK(mode):
            self._writer.add(self._described(fd, status, "symlink", shown, link=os.readlink("", dir_fd=fd)))
        elif stat.S_ISFIFO(mode):
            self._writer.add(self._described(fd, status, "fifo", shown))
        else:
            self._writer.add(self._described(fd, status, "char" if stat.S_ISCHR(mode) else "block", shown))
        if status.st_nlink > 1:
            self._links[key] = shown

    def _file(self, fd: int, status: os.stat_result, shown: str) -> None:
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
        with open(reading, "rb", buffering=0) as body:
            entry = self._described(fd, status, "file", shown)
            self._writer.add(entry, cast(BinaryIO, _Filled(body)))

    def _described(self, fd: int, status: os.stat_result, kind: Kind, shown: str, link: str = "") -> TarEntry:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in ("char", "block") else (0, 0)
        xattrs = {} if kind in ("symlink", "hardlink") else _attributes(fd)
        return TarEntry(
            shown,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            int(status.st_mtime // 1),
            status.st_size,
            link,
            device,
            xattrs,
        )


class _Filled:
    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int) -> bytes:
        return self._body.read(size) or b"\0" * size


def _attributes(fd: int) -> dict[str, bytes]:
    path = f"/proc/self/fd/{fd}"  # an O_PATH descriptor cannot be asked itself
    try:
        names = os.listxattr(path)
        return {name: os.getxattr(path, name) for name in names if not name.startswith(_SKIPPED)}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.ENOENT):
            return {}
        raise
