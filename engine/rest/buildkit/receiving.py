"""Files from the client: fsutil's protocol (tonistiigi/fsutil `send.go`, `receive.go`), into a folder of ours.

The client lists its tree in order; what the folder has not got yet, by kind, size and time, is asked for, and what the list has not got is
removed. So a folder that is kept between builds takes what changed alone. The client's names are not trusted: every one is opened
below the folder, without following links.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from engine.errors import HostileArchive, InvalidInput, from_os_error
from engine.linux.openat2 import open_in_root
from engine.rest.buildkit.messages import Packet, Stat

STAT, REQUEST, DATA, FINISHED, ERROR = range(5)  # fsutil.types.Packet.PacketType
_BEHIND = 64  # packets handled between two looks at the loop

# Go's os.FileMode beyond the permission bits
_DIR, _SYMLINK, _DEVICE, _PIPE, _SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_SETUID, _SETGID, _STICKY = 1 << 23, 1 << 22, 1 << 20
_KIND = _DIR | _SYMLINK | _DEVICE | _PIPE | _SOCKET | 1 << 21 | 1 << 19


class PacketStream(Protocol):
    """A call of `FileSync.DiffCopy`."""

    async def send_message(self, message: Any, *, end: bool = False) -> None: ...

    def __aiter__(self) -> AsyncIterator[Any]: ...


def unix_mode(mode: int) -> int:
    """The permission bits of Go's os.FileMode, as chmod(2) takes them."""
    extra = (stat.S_ISUID if mode & _SETUID else 0) | (stat.S_ISGID if mode & _SETGID else 0)
    return mode & 0o777 | extra | (stat.S_ISVTX if mode & _STICKY else 0)


def go_mode(mode: int) -> int:
    """The other way round, of a file, directory or link."""
    kind = _DIR if stat.S_ISDIR(mode) else _SYMLINK if stat.S_ISLNK(mode) else 0
    extra = (_SETUID if mode & stat.S_ISUID else 0) | (_SETGID if mode & stat.S_ISGID else 0)
    return mode & 0o777 | extra | kind | (_STICKY if mode & stat.S_ISVTX else 0)


async def receive(stream: PacketStream, folder: Path, progress: Callable[[int], None] | None = None) -> int:
    """Makes `folder` what the client sends; returns how many bytes of contents came. `progress` gets that number as it grows.

    Raises `HostileArchive` for a list that is out of order or leads out, `InvalidInput` for the client's own error, `EngineError` for
    the disk's.
    """
    receiver = _Receiver(folder)
    try:
        handled = 0
        async for packet in stream:
            handled += 1
            if handled % _BEHIND == 0:
                await asyncio.sleep(0)  # files may come faster than anybody else gets a turn
            wanted = receiver.take(packet)
            if wanted is not None:
                await stream.send_message(Packet(REQUEST, id=wanted))
            if progress is not None and packet.type == DATA:
                progress(receiver.bytes)
            if packet.type == FINISHED:
                return receiver.bytes
            if receiver.complete and not receiver.finished:
                receiver.finished = True
                await asyncio.to_thread(receiver.settle)
                await stream.send_message(Packet(FINISHED), end=True)  # a stream that is open still is reset by grpc-go
        raise InvalidInput("the client broke off while it sent its files")
    except OSError as error:
        raise from_os_error(error, "receiving the build context") from error
    finally:
        receiver.close()


class _Receiver:
    """The folder while it becomes what the client has. `take` handles one packet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[str, int] = ("", self._root)  # the folder of the last name
        self._number = 0
        self._listed = False
        self._last: tuple[bytes, ...] = ()
        self._names: dict[str, set[str]] = {"": set()}  # of each folder, what the client has there
        self._folders: list[Stat] = []
        self._files: dict[int, Stat] = {}  # asked for
        self._open: tuple[int, int] | None = None  # number and descriptor of the file that comes
        self.bytes = 0
        self.finished = False

    @property
    def complete(self) -> bool:
        return self._listed and not self._files

    def take(self, packet: Packet) -> int | None:
        """The number of a file whose contents are wanted, if this packet lists one."""
        if packet.type == STAT:
            if packet.stat is None:
                self._listed = True
                return None
            return self._listed_one(packet.stat)
        if packet.type == DATA:
            self._content(packet.id, packet.data)
        elif packet.type == ERROR:
            raise InvalidInput(f"the client cannot send its files: {packet.data.decode('utf-8', 'replace')[:500]}")
        return None

    # --- the list ----------------------------------------------------------------------------------------

    def _listed_one(self, entry: Stat) -> int | None:
        number, self._number = self._number, self._number + 1
        above, name = self._place(entry.path)
        self._names[above].add(name)
        here = self._at(above)
        kind = entry.mode & _KIND
        found = _lstat(name, here)
        if kind == _DIR:
            self._names[entry.path] = set()
            self._folders.append(entry)
            if found is None or not stat.S_ISDIR(found.st_mode):
                self._remove(name, here, found)
                os.mkdir(name, 0o700, dir_fd=here)
            return None
        if kind == 0 and not entry.linkname:
            if found is not None and _same(entry, found):
                return None
            self._remove(name, here, found)
            self._files[number] = entry
            return number
        self._make(entry, kind, name, here, found)
        return None

    def _make(self, entry: Stat, kind: int, name: str, here: int, found: os.stat_result | None) -> None:
        if kind == _SYMLINK:
            if found is not None and stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=here) == entry.linkname:
                return
            self._remove(name, here, found)
            os.symlink(entry.linkname, name, dir_fd=here)
            os.utime(name, ns=(entry.mod_time, entry.mod_time), dir_fd=here, follow_symlinks=False)
        elif kind == 0:  # a further name of a file that was listed
            above, first = os.path.split(entry.linkname)
            self._remove(name, here, found)
            if first not in self._names.get(above, ()):
                raise HostileArchive(f"the build context: {entry.path} links to {entry.linkname}, which was not sent")
            source = self._folder_fd(above)
            try:
                os.link(first, name, src_dir_fd=source, dst_dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:  # its contents are still on their way: an empty file, which they go into
                os.close(os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=source))
                os.link(first, name, src_dir_fd=source, dst_dir_fd=here, follow_symlinks=False)
            finally:
                os.close(source)
        elif kind == _PIPE:
            if found is None or not stat.S_ISFIFO(found.st_mode):
                self._remove(name, here, found)
                os.mkfifo(name, unix_mode(entry.mode), dir_fd=here)
        else:  # sockets and devices: no build copies them (moby/buildkit leaves sockets out as well)
            self._remove(name, here, found)
            self._names[os.path.split(entry.path)[0]].discard(name)

    def _place(self, path: str) -> tuple[str, str]:
        """Folder and name of a path that comes after the last one (fsutil's Validator): parents first, nothing twice, nothing outside."""
        parts = tuple(os.fsencode(path).split(b"/"))
        if b"\0" in os.fsencode(path) or any(part in (b"", b".", b"..") for part in parts) or parts <= self._last:
            raise HostileArchive(f"the build context: {path[:200]!r} is not a name that may come here")
        self._last = parts
        above, _, name = path.rpartition("/")
        if above not in self._names:
            raise HostileArchive(f"the build context: {path[:200]!r} comes before its folder")
        return above, name

    def _at(self, above: str) -> int:
        if self._parent[0] != above:
            fd = self._folder_fd(above)
            self._leave_parent()
            self._parent = (above, fd)
        return self._parent[1]

    def _folder_fd(self, path: str) -> int:
        return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY, no_symlinks=True)

    def _leave_parent(self) -> None:
        if self._parent[1] != self._root:
            os.close(self._parent[1])
        self._parent = ("", self._root)

    def _remove(self, name: str, here: int, found: os.stat_result | None) -> None:
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=here)
        else:
            os.unlink(name, dir_fd=here)

    # --- contents ----------------------------------------------------------------------------------------

    def _content(self, number: int, data: bytes) -> None:
        entry = self._files.get(number)
        if entry is None:
            raise HostileArchive("the build context: contents that nobody asked for")
        above, name = os.path.split(entry.path)
        if self._open is None or self._open[0] != number:
            self._leave_open()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._open = (number, os.open(name, flags, 0o600, dir_fd=self._at(above)))
        fd = self._open[1]
        if data:
            self.bytes += len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            return
        os.fchmod(fd, unix_mode(entry.mode))
        os.utime(fd, ns=(entry.mod_time, entry.mod_time))
        self._leave_open()
        del self._files[number]

    def _leave_open(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    # --- the end -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Takes away what the client has not got, and gives the folders their modes and times."""
        for path in self._names:
            fd = self._folder_fd(path)
            try:
                with os.scandir(fd) as entries:
                    gone = [entry.name for entry in entries if entry.name not in self._names[path]]
                for name in gone:
                    self._remove(name, fd, _lstat(name, fd))
            finally:
                os.close(fd)
        for entry in reversed(self._folders):
            fd = self._folder_fd(entry.path)
            try:
                os.fchmod(fd, unix_mode(entry.mode) | 0o700)  # ours to read again
                os.utime(fd, ns=(entry.mod_time, entry.mod_time))
            finally:
                os.close(fd)

    def close(self) -> None:
        self._leave_open()
        self._leave_parent()
        with contextlib.suppress(OSError):
            os.close(self._root)


def _lstat(name: str, here: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=here, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _same(entry: Stat, found: os.stat_result) -> bool:
    """Whether the file is here already: size, time and mode, as fsutil's metadata differ looks at it."""
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_size == entry.size
        and found.st_mtime_ns == entry.mod_time
        and stat.S_IMODE(found.st_mode) == unix_mode(entry.mode)
        and found.st_nlink == 1
    )
