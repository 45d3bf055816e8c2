"""Opening a path that an image, a context or a volume names, without ever leaving its root (openat2(2)).

`RESOLVE_IN_ROOT` treats the root descriptor as "/" for absolute paths, `..` and symbolic links; `RESOLVE_NO_MAGICLINKS` refuses
`/proc/self/fd` links. Imports the standard library's smallest parts only: the supervisor uses this too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

SYS_OPENAT2 = 437  # the same on every architecture (asm-generic)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
_RETRIES = 128
_LINKS = 40  # MAXSYMLINKS, path_resolution(7)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def open_in_root(
    root_fd: int, path: str, flags: int, mode: int = 0, *, no_symlinks: bool = False, no_mounts: bool = False
) -> int:
    """A descriptor of `path` below `root_fd`. Raises `OSError` (ELOOP when a link is met and `no_symlinks`, EXDEV when
    something is mounted on the way and `no_mounts`)."""
    how = _OpenHow(
        flags | os.O_CLOEXEC,
        mode,
        RESOLVE_IN_ROOT
        | RESOLVE_NO_MAGICLINKS
        | (RESOLVE_NO_SYMLINKS if no_symlinks else 0)
        | (RESOLVE_NO_XDEV if no_mounts else 0),
    )
    raw = os.fsencode(path or ".")
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "NUL byte in a path", path)
    for _ in range(_RETRIES):
        fd = int(_syscall(SYS_OPENAT2, root_fd, raw, ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # "the kernel could not ensure that a .. component didn't escape (due to a race condition)": try again
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def mkdirs_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """A descriptor of the directory `path`, made with its parents where missing; links are resolved inside the root.

    A link to nothing gets the directory that it names. Raises `OSError`.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return open_in_root(root_fd, path, flags)
    except FileNotFoundError:
        pass
    current = os.dup(root_fd)
    try:
        for part in resolve_in_root(root_fd, path):
            try:
                os.mkdir(part, mode, dir_fd=current)
            except FileExistsError:
                pass
            following = open_in_root(current, part, flags, no_symlinks=True)
            os.close(current)
            current = following
        return current
    except BaseException:
        os.close(current)
        raise


def resolve_in_root(root_fd: int, path: str) -> list[str]:
    """The components of `path` with every link replaced by its target, `..` taken off and "/" as the root.

    Works also where the path, or what a link names, does not exist (then `missing/..` is nothing). Open the result without following
    links. Raises `OSError`: ELOOP after 40 links, as the kernel does.
    """
    todo = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            target = _link_target(root_fd, "/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                done.clear()
            todo += target.split("/")[::-1]
    return done


def _link_target(root_fd: int, path: str) -> str | None:
    """What the link at `path` names; None for anything else, and for nothing."""
    try:
        fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)
