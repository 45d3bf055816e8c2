"""A build context as a tar, streamed: what `.dockerignore` leaves in, in the order of names, owned by root.

Only names below the folder are opened, one part after the other and without following links: a link is sent as a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
import tarfile
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO

from engine.build.dockerfile.ignore import Matcher
from engine.errors import EngineError, from_os_error

CHUNK = 256 << 10
_PARTS = 16  # chunks between the thread that packs and the connection
# In the tar, where the Dockerfile is not a file of the context (`-f -`, or one outside of it).
SENT_DOCKERFILE = ".dockerfile.workbench"


async def packed(
    context: Path, matcher: Matcher | None, keep: frozenset[str], extra: dict[str, bytes]
) -> AsyncGenerator[bytes, None]:
    """The tar. `keep` are sent though they are ignored (the Dockerfile, `.dockerignore`), `extra` are files that are not there.

    Raises `EngineError` for what cannot be read."""
    pipe = _Pipe(asyncio.get_running_loop())

    def work() -> None:
        try:
            with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:
                for name, data in extra.items():
                    info = tarfile.TarInfo(name)
                    info.size, info.mode = len(data), 0o600
                    tar.addfile(info, io.BytesIO(data))
                _pack(tar, context, matcher, keep)
        except OSError as error:
            pipe.end(from_os_error(error, f"sending the build context {context}"))
        except BaseException as error:
            pipe.end(error)
        else:
            pipe.end(None)

    thread = threading.Thread(target=work, name="remote-context", daemon=True)
    thread.start()
    try:
        while (item := await pipe.queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        pipe.abandon()


class _Pipe(io.RawIOBase):
    """What the packing thread writes into, at most `_PARTS` chunks ahead."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self._loop = loop
        self._room = threading.Semaphore(_PARTS)
        self._gone = False

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._room.acquire()
        if self._gone:
            raise ConnectionResetError("nobody reads any more")
        part = bytes(data)  # type: ignore[call-overload]
        self._put(part)
        return len(part)

    def _put(self, item: bytes | BaseException | None) -> None:
        def put() -> None:
            self.queue.put_nowait(item)
            self._loop.call_soon(self._make_room)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(put)

    def _make_room(self) -> None:
        """A chunk's room is free again when it has been taken."""
        if self.queue.qsize() < _PARTS:
            self._room.release()
        else:
            self._loop.call_later(0.005, self._make_room)

    def end(self, error: BaseException | None) -> None:
        self._put(error)

    def abandon(self) -> None:
        self._gone = True
        self._room.release(_PARTS)


def _pack(tar: tarfile.TarFile, context: Path, matcher: Matcher | None, keep: frozenset[str]) -> None:
    root = os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _folder(tar, root, "", matcher, keep)
    finally:
        os.close(root)


def _folder(tar: tarfile.TarFile, fd: int, prefix: str, matcher: Matcher | None, keep: frozenset[str]) -> None:
    for name in sorted(os.listdir(fd)):
        path = f"{prefix}{name}"
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        left_out = matcher is not None and path not in keep and matcher.excluded(path)
        if stat.S_ISDIR(status.st_mode):
            if left_out:
                assert matcher is not None
                below = matcher.may_include_under(path) or any(each.startswith(path + "/") for each in keep)
                if not below:
                    continue
            else:
                tar.addfile(_info(path, status))
            inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                _folder(tar, inside, f"{path}/", matcher, keep)
            finally:
                os.close(inside)
        elif not left_out:
            _entry(tar, fd, name, path, status)


def _info(path: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    info.type = tarfile.DIRTYPE if stat.S_ISDIR(status.st_mode) else tarfile.REGTYPE
    return info


def _entry(tar: tarfile.TarFile, fd: int, name: str, path: str, status: os.stat_result) -> None:
    info = _info(path, status)
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=fd)
        tar.addfile(info)
    elif stat.S_ISFIFO(status.st_mode):
        info.type = tarfile.FIFOTYPE
        tar.addfile(info)
    elif stat.S_ISREG(status.st_mode):
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        with open(file, "rb") as opened:
            info.size = os.fstat(file).st_size
            tar.addfile(info, _Checked(opened, path))  # type: ignore[arg-type]  # it needs `read` alone
    # Sockets and devices have no place in a context; Docker leaves sockets out as well.


class _Checked:
    """A file that is as long as its header in the tar says."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file, self._path = file, path

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EngineError(f"{self._path} was shortened while it was sent", hint="build again")
        return data
