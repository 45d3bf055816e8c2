"""Filling an empty volume with what the image has at its place: owners, modes, times, links and attributes kept.

The source is a view of immutable layers. The target may be seen by other containers already: everything is made
relative to descriptors of directories that were opened without following a link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from engine.errors import Conflict, from_os_error
from engine.linux.openat2 import open_in_root
from engine.store.view import Entry, LayerView

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24


def copy_up(view: LayerView, path: str, target: int) -> bool:
    """Copies the directory `path` of `view` into the directory `target` (a descriptor), and its owner and mode onto it.

    Nothing is done when the target holds anything, or the image nothing at `path`: False. Raises `Conflict` when that
    is a file in the image.
    """
    source = view.lookup(path)
    if source is None:
        return False
    if not source.is_dir:
        raise Conflict(
            f"cannot mount a volume over the existing file {path}", hint="name a folder, or a path that is not there"
        )
    if os.listdir(target):
        return False
    try:
        _Copy(view, target).fill(source, target)
        _own(source, target)
    except OSError as error:
        raise from_os_error(error, f"copying the image's {path} into a volume") from error
    return True


class _Copy:
    def __init__(self, view: LayerView, root: int) -> None:
        self._view, self._root = view, root
        self._links: dict[tuple[int, int], str] = {}  # inode in a layer → where in the target its first copy is

    def fill(self, folder: Entry, target: int, where: str = "") -> None:
        for child in self._view.children(folder):
            name = os.path.basename(child.path)
            if child.is_dir:
                os.mkdir(name, 0o700, dir_fd=target)
                fd = os.open(name, _DIR, dir_fd=target)
                try:
                    self.fill(child, fd, f"{where}{name}/")
                    _own(child, fd)
                finally:
                    os.close(fd)
            else:
                self._leaf(child, name, target, where)

    def _leaf(self, entry: Entry, name: str, target: int, where: str) -> None:
        status = entry.status
        if stat.S_ISREG(status.st_mode):
            self._file(entry, name, target, where)
        elif entry.is_link:
            os.symlink(os.readlink(entry.real), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        elif not stat.S_ISSOCK(status.st_mode):
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
            try:
                made = os.fstat(fd)
                if stat.S_IFMT(made.st_mode) != stat.S_IFMT(status.st_mode):
                    raise OSError(errno.EEXIST, "was exchanged while it was made", name)
                same = f"/proc/self/fd/{fd}"
                os.chown(same, status.st_uid, status.st_gid)
                os.chmod(same, stat.S_IMODE(status.st_mode))
                os.utime(same, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)

    def _file(self, entry: Entry, name: str, target: int, where: str) -> None:
        status = entry.status
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and (made := self._links.get(key)):
            with contextlib.suppress(OSError):  # the first one is gone again: a copy will do
                self._link(made, name, target)
                return
        reading = os.open(entry.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                _copy_bytes(reading, writing, status.st_size)
                _own(entry, writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        self._links[key] = f"{where}{name}"

    def _link(self, made: str, name: str, target: int) -> None:
        folder, _, first = made.rpartition("/")
        parent = open_in_root(self._root, folder or ".", os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
        try:
            os.link(first, name, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(parent)


def _copy_bytes(reading: int, writing: int, size: int) -> None:
    """In the kernel: shared extents where the file system has them, else without passing through this process."""
    done = 0
    try:
        while done < size and (count := os.copy_file_range(reading, writing, min(_CHUNK, size - done))):
            done += count
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL) or done:
            raise
    while os.sendfile(writing, reading, None, _CHUNK):
        pass


def _own(entry: Entry, fd: int) -> None:
    """Owner, attributes, mode, times: chown(2) clears the set-user-ID bits, so it comes first."""
    status = entry.status
    os.fchown(fd, status.st_uid, status.st_gid)
    for name in _attributes(entry.real):
        with contextlib.suppress(OSError):  # a file system without them
            os.setxattr(fd, name, os.getxattr(entry.real, name, follow_symlinks=False))
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _attributes(path: str) -> list[str]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []
    return [
        name
        for name in names
        if not name.startswith(("trusted.overlay.", "user.overlay.", "system.", "security.selinux"))
    ]
