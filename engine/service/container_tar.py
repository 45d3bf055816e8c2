"""A container's files as a tar: one path with what is below it, or the whole root."""

from __future__ import annotations

import os
import posixpath
import stat

from engine.archive.pack import TreePacker
from engine.archive.writer import LayerWriter, Sink
from engine.base.cancel import CancelToken
from engine.linux.openat2 import open_in_root

_HANDLE = os.O_PATH | os.O_CLOEXEC
_CHUNK = 1 << 18


def pack(root: int, where: str, out: Sink, cancel: CancelToken | None = None) -> None:
    """Writes what is at `where` (a clean absolute path; "": the root, without an entry of its own) below the descriptor `root`
    into `out`. Raises OSError, Cancelled."""
    buffered = _Buffered(out)
    writer = LayerWriter(buffered)
    packer = TreePacker(writer, cancel)
    if not where:
        packer.directory(root, "")
    elif _is_directory(root, where):
        fd = open_in_root(root, where, _HANDLE | os.O_DIRECTORY)
        try:
            packer.directory(fd, posixpath.basename(where.rstrip("/")) or "/")
        finally:
            os.close(fd)
    else:
        folder, _, base = where.rpartition("/")
        fd = open_in_root(root, folder or "/", _HANDLE | os.O_DIRECTORY)
        try:
            packer.entry(fd, base, base)
        finally:
            os.close(fd)
    writer.finish()
    buffered.flush()


def _is_directory(root: int, where: str) -> bool:
    """Its last part is not followed unless a slash ends it."""
    fd = open_in_root(root, where, _HANDLE | (0 if where.endswith("/") else os.O_NOFOLLOW))
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


class _Buffered:
    """Small writes gathered into chunks: each one crosses to another thread or a socket."""

    def __init__(self, out: Sink) -> None:
        self._out, self._size = out, 0
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        if self._parts:
            self._out.write(b"".join(self._parts))
            self._parts, self._size = [], 0
