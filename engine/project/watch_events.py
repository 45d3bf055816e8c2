"""Hints that something below a folder may have changed: inotify(7) for as many folders as there are watches for, and which of
them have to be looked through instead (the user's limit is reached, or the file system sends no events).

Every hint is only a hint: `engine.project.watch_tree` looks for itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

if sys.platform == "linux":
    from engine.linux import inotify
    from engine.linux.inotify import Inotify

    _MASK = (
        inotify.IN_MODIFY
        | inotify.IN_ATTRIB
        | inotify.IN_CLOSE_WRITE
        | inotify.IN_CREATE
        | inotify.IN_DELETE
        | inotify.IN_MOVED_FROM
        | inotify.IN_MOVED_TO
        | inotify.IN_DELETE_SELF
        | inotify.IN_MOVE_SELF
    )
    _FILE = inotify.IN_MODIFY | inotify.IN_ATTRIB | inotify.IN_CLOSE_WRITE
    _FINISHED = inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO | inotify.IN_ATTRIB
    _LOST = inotify.IN_IGNORED | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT
    _GONE = inotify.IN_DELETE | inotify.IN_MOVED_FROM
    _GOING = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM
# statfs(2) f_type of file systems that change by this kernel alone, and so tell of every change.
_LOCAL = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0xF2F52010: "f2fs",
    0x794C7630: "overlay",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0x858458F6: "ramfs",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
}
_REMOTE = {
    0x6969: "NFS",
    0x01021997: "9p (WSL's drives, a virtual machine's share)",
    0x65735546: "FUSE (sshfs, a virtual machine's share)",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x517B: "SMB",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x786F4256: "a VirtualBox share",
    0xBACBACBC: "a VMware share",
    0x6A656A63: "virtiofs",
}
_libc = ctypes.CDLL(None, use_errno=True)


def remote_kind(path: str) -> str:
    """ "" where every change is told of; else what the file system is called."""
    if sys.platform != "linux":  # nothing tells of changes there: see `Events`
        return ""
    buffer = ctypes.create_string_buffer(512)
    if _libc.statfs(os.fsencode(path), buffer):
        return ""
    magic = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
    return "" if magic in _LOCAL else _REMOTE.get(magic, f"a file system of type {magic:#x}")


class Events:
    """The watches of one tree, and of the folders of files beside it. `dirty` collects what may have changed."""

    def __init__(self, root: str, skips: Callable[[str], bool], notice: Callable[[str], None]) -> None:
        self.root, self._skips, self._notice = root, skips, notice
        self.dirty: set[str] = set()
        self.unfinished: set[str] = set()  # being written, or just taken away: more will come
        self._born: set[str] = set()  # made since it was last waited: what goes again was a temporary file
        self.overflowed = False
        self.root_lost = False
        self.beside = False  # a file of `watch_beside` may have changed
        self.beside_lost = False  # the folder of one is not there, or another one
        self.unwatched: set[str] = set()  # folders that have to be looked through
        self._folders: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._files: dict[int, str] = {}  # files with several names: any of them may be written through
        self._beside: dict[int, set[str]] = {}
        self._devices: dict[int, bool] = {}
        self._said: set[str] = set()
        self._inotify: Inotify | None = None
        try:
            if sys.platform != "linux":  # the app of another machine's engine (--host)
                raise OSError(errno.ENOSYS, "they are read on Linux alone")
            self._inotify = Inotify()
        except OSError as error:
            self._say(
                "instances",
                f"file events are not available here ({error.strerror}): folders are looked through instead",
            )

    @property
    def fd(self) -> int:
        return self._inotify.fd if self._inotify else -1

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def _say(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._notice(text)

    # --- what to watch (engine.project.watch_tree.Observer) ------------------------------------------------

    def folder(self, path: str, device: int) -> None:
        if path in self._watches:
            return
        place = f"{self.root}/{path}" if path else self.root
        try:
            remote = self._is_remote(place, device or os.stat(place).st_dev)
            if self._inotify is None:
                raise OSError(errno.EMFILE, "no inotify instance")
            watch = self._inotify.add(place, _MASK | inotify.IN_ONLYDIR | inotify.IN_DONT_FOLLOW * bool(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.unwatched.add(path)
            if error.errno == errno.ENOSPC:
                self._say("limit", _limit_text())
            return
        if remote:
            self.unwatched.add(path)
        else:
            self.unwatched.discard(path)
        self._folders[watch], self._watches[path] = path, watch

    def _is_remote(self, place: str, device: int) -> bool:
        if device not in self._devices:
            kind = remote_kind(place)
            self._devices[device] = bool(kind)
            if kind:
                self._say(
                    "remote",
                    f"{place} is on {kind}: changes made elsewhere send no events, so it is looked through too",
                )
        return self._devices[device]

    def gone(self, path: str) -> None:
        self.unwatched.discard(path)
        watch = self._watches.pop(path, None)
        if watch is not None and self._folders.get(watch) == path:
            del self._folders[watch]
            if self._inotify is not None:
                self._inotify.remove(watch)

    def linked(self, path: str) -> None:
        """A file with several names may be written through one that is not in the tree: it is watched itself."""
        if self._inotify is None or path in self._watches:
            return
        try:
            watch = self._inotify.add(f"{self.root}/{path}", _FILE | inotify.IN_DONT_FOLLOW)
        except OSError:
            self.unwatched.add(path.rpartition("/")[0])
            return
        self._files[watch] = path
        self._watches[path] = watch

    def watch_beside(self, files: set[Path]) -> None:
        """Files that need not be in the tree: their folders are watched for their names."""
        self._beside.clear()
        self.beside_lost = False
        for file in {*files, *(Path(os.path.realpath(file)) for file in files)}:
            if self._inotify is None:
                return
            try:
                watch = self._inotify.add(str(file.parent), _MASK | inotify.IN_ONLYDIR)
            except OSError:
                self.beside_lost = True  # the folder is not there, or no watch is left: it is looked for now and then
                continue
            self._beside.setdefault(watch, set()).add(file.name)

    # --- what was told --------------------------------------------------------------------------------------

    def waited(self) -> None:
        """What was unfinished has been waited for."""
        self.unfinished.clear()
        self._born.clear()

    def read(self, known: Callable[[str], list[str]]) -> bool:
        """Takes what is queued; whether any of it matters. `known(folder)`: the known folders from there on down."""
        assert self._inotify is not None  # called when its descriptor is readable
        seen = False
        for watch, mask, raw in self._inotify.read():
            if mask & inotify.IN_Q_OVERFLOW:
                self.overflowed = seen = True
                continue
            name = os.fsdecode(raw)
            if watch in self._beside:
                if name in self._beside[watch]:
                    self.beside = seen = True
                elif not name and mask & _LOST:
                    self.beside = self.beside_lost = seen = True
            if watch in self._files:
                self.dirty.add(self._files[watch])
                if mask & inotify.IN_IGNORED:
                    self._watches.pop(self._files.pop(watch), None)
                seen = True
                continue
            folder = self._folders.get(watch)
            if folder is not None:
                seen = self._event(watch, folder, mask, name, known) or seen
        return seen

    def _event(self, watch: int, folder: str, mask: int, name: str, known: Callable[[str], list[str]]) -> bool:
        if mask & _LOST:
            if mask & inotify.IN_IGNORED:
                del self._folders[watch]
                self._watches.pop(folder, None)
            if folder == "":
                self.root_lost = True
            return folder == ""
        path = (f"{folder}/{name}" if folder else name) if name else folder
        if name and self._skips(path):
            return False
        if mask & inotify.IN_ISDIR and mask & inotify.IN_MOVED_FROM:
            for inner in known(path):  # their watches go with them: what they tell would bear the old names
                self.gone(inner)
        if mask & inotify.IN_CREATE:
            self._born.add(path)
        if mask & _FINISHED or (mask & _GONE and path in self._born):
            self.unfinished.discard(path)
        elif mask & _GOING and not mask & inotify.IN_ISDIR:
            self.unfinished.add(path)
        if name or folder == "":  # a folder's own attributes are told by its parent too
            self.dirty.add(path)
        return bool(name) or folder == ""  # a folder that somebody holds open sends no IN_DELETE_SELF, only this


def _limit_text() -> str:
    try:
        limit = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    except (OSError, ValueError):
        limit = 0
    return (
        f"the user's limit of file watches is reached (fs.inotify.max_user_watches is {limit}): folders without one are looked "
        f"through instead, so their changes are seen later. `sysctl fs.inotify.max_user_watches={max(limit * 4, 524288)}` raises it"
    )
