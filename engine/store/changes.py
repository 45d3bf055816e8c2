"""What a container's root differs in from its image: `diff`, and the layer that `commit` makes.

Docker's rules (moby go-archive, changes): a path is added, deleted, or changed where its type, mode, owner, device or file
capabilities differ, and for all but directories size and modification time; a directory above a change is changed too. Only
the overlay's upper directory is read, since what is not there is as in the image. It may belong to a running container:
every directory is opened below the one before, and no link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from engine.archive.pack import TreePacker
from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken
from engine.model import Change
from engine.store.view import Entry, LayerView, is_whiteout

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
# What the engine makes in every root before a container starts (in Docker, a layer below the container's own).
_OWN_FOLDERS = frozenset(("dev", "dev/pts", "dev/shm", "dev/mqueue", "etc", "proc", "sys", "sys/fs", "sys/fs/cgroup"))
_OWN_FILES = frozenset((".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"))


def find_changes(upper: int, image: LayerView, cancel: CancelToken | None = None) -> list[Change]:
    """The changes that the upper directory (a descriptor) makes to `image`, sorted, a directory before its content."""
    root = image.lookup("", follow=False)
    return list(_Walk(image, cancel or CancelToken()).folder(upper, root, ""))


class _Walk:
    def __init__(self, image: LayerView, cancel: CancelToken) -> None:
        self._image, self._cancel = image, cancel

    def folder(self, fd: int, below: Entry | None, path: str) -> Iterator[Change]:
        names = set(os.listdir(fd))
        found: dict[str, list[Change]] = {}
        for name in names:
            self._cancel.check()
            found[name] = list(self._entry(fd, name, below, f"{path}/{name}" if path else name))
        if below is not None and path and _is_opaque(fd):
            for child in self._image.children(below):
                name = os.path.basename(child.path)
                if name not in names:
                    found[name] = [Change("D", f"/{path}/{name}")]
        for name in sorted(found, key=os.fsencode):
            yield from found[name]

    def _entry(self, folder: int, name: str, below: Entry | None, path: str) -> Iterator[Change]:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        old = self._image.child(below, name) if below is not None and below.is_dir else None
        if is_whiteout(status):
            if old is not None:
                yield Change("D", f"/{path}")
            return
        inner: list[Change] = []
        if stat.S_ISDIR(status.st_mode):
            try:
                fd = os.open(name, _DIR, dir_fd=folder)
            except OSError:  # exchanged or removed meanwhile
                return
            try:
                inner = list(self.folder(fd, old if old is not None and old.is_dir else None, path))
            finally:
                os.close(fd)
        if old is None:
            if inner or not _is_own(path, status):
                yield Change("A", f"/{path}")
        elif inner or _differs(old, status, folder, name):
            yield Change("C", f"/{path}")
        yield from inner


def _is_own(path: str, status: os.stat_result) -> bool:
    if stat.S_ISDIR(status.st_mode):
        return path in _OWN_FOLDERS
    if stat.S_ISLNK(status.st_mode):
        return path == "etc/mtab"
    return path in _OWN_FILES and stat.S_ISREG(status.st_mode) and status.st_size == 0


def _differs(old: Entry, new: os.stat_result, folder: int, name: str) -> bool:
    before = old.status
    if (before.st_mode, before.st_uid, before.st_gid, before.st_rdev) != (
        new.st_mode,
        new.st_uid,
        new.st_gid,
        new.st_rdev,
    ):
        return True
    if stat.S_ISDIR(new.st_mode):  # its size and time say nothing of itself
        return False
    if before.st_size != new.st_size or not _same_time(before.st_mtime_ns, new.st_mtime_ns):
        return True
    return stat.S_ISREG(new.st_mode) and _capability(old.real) != _capability(f"/proc/self/fd/{folder}/{name}")


def _same_time(one: int, other: int) -> bool:
    """A tar keeps whole seconds: then the rest does not count."""
    whole = one // 10**9 == other // 10**9
    return one == other or (whole and (one % 10**9 == 0 or other % 10**9 == 0))


def _capability(path: str) -> bytes:
    try:
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def _is_opaque(fd: int) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError:
            continue
    return False


def write_changes(upper: int, changes: Sequence[Change], out: LayerWriter, cancel: CancelToken | None = None) -> None:
    """The layer that makes these changes: whiteouts for what is deleted, an entry for everything else."""
    packer = TreePacker(out, cancel)
    for change in changes:
        folder, _, name = change.path[1:].rpartition("/")
        if change.kind == "D":
            out.add(TarEntry(f"{folder}/.wh.{name}" if folder else f".wh.{name}", "file", 0))
            continue
        try:
            fd = _below(upper, folder)
        except OSError:  # it went away meanwhile, or is a link now
            continue
        try:
            packer.single(fd, name, change.path[1:])
        except FileNotFoundError:
            continue
        finally:
            os.close(fd)


def _below(upper: int, path: str) -> int:
    fd = os.dup(upper)
    for part in (part for part in path.split("/") if part):
        try:
            below = os.open(part, _DIR, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd
