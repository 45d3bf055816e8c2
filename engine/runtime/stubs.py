"""Takes the engine's mount points out of an upper directory, so that a build step's layer holds only what it wrote."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _open_parent(upper: int, path: str) -> tuple[int, str]:
    """The directory above `path` and its last name, no symbolic link followed."""
    parts = path.strip("/").split("/")
    fd = os.dup(upper)
    for part in parts[:-1]:
        try:
            below = os.open(part, _DIR, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd, parts[-1]


def clean(upper_path: str, stubs: Sequence[tuple[str, bool]], copied: Mapping[str, tuple[int, int, int]]) -> None:
    """Removes `stubs` (path, is a directory) that are still as made, and `copied` directories that hold nothing new.

    Times of the directories are put back, so that the layer does not differ from run to run.
    """
    upper = os.open(upper_path, _DIR)
    try:
        for path, directory in reversed(stubs):
            _quietly(_remove_stub, upper, path, directory)
        for path in sorted(copied, key=len, reverse=True):
            _quietly(_remove_copy, upper, path, copied[path])
    finally:
        os.close(upper)


def _quietly(what: object, *arguments: object) -> None:
    assert callable(what)
    try:
        what(*arguments)
    except OSError:  # the step removed or filled it: then it is the step's
        pass


def _remove_stub(upper: int, path: str, directory: bool) -> None:
    parent, name = _open_parent(upper, path)
    try:
        before = os.fstat(parent)
        if directory:
            os.rmdir(name, dir_fd=parent)
        else:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_size:
                return
            os.unlink(name, dir_fd=parent)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(parent)


def _remove_copy(upper: int, path: str, owner: tuple[int, int, int]) -> None:
    parent, name = _open_parent(upper, path)
    try:
        fd = os.open(name, _DIR, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if (status.st_mode, status.st_uid, status.st_gid) != tuple(owner):
                return
            if any("opaque" in attribute for attribute in os.listxattr(fd)):
                return
        finally:
            os.close(fd)
        before = os.fstat(parent)
        os.rmdir(name, dir_fd=parent)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(parent)
