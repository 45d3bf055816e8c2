"""Mounts by descriptor: a target is resolved once and never named by path again (CVE-2021-30465 and its kin).

open_tree(2) gives a detached copy of a mount, move_mount(2) puts it onto an O_PATH descriptor; what mount(2) makes
goes onto `/proc/self/fd/N`, which the kernel follows to the very object that was opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from engine.linux import libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# Option of mount(8): what it sets and what it clears.
FLAGS = {
    "ro": (MS_RDONLY, 0),
    "rw": (0, MS_RDONLY),
    "nosuid": (MS_NOSUID, 0),
    "suid": (0, MS_NOSUID),
    "nodev": (MS_NODEV, 0),
    "dev": (0, MS_NODEV),
    "noexec": (MS_NOEXEC, 0),
    "exec": (0, MS_NOEXEC),
    "sync": (MS_SYNCHRONOUS, 0),
    "async": (0, MS_SYNCHRONOUS),
    "dirsync": (MS_DIRSYNC, 0),
    "mand": (MS_MANDLOCK, 0),
    "nomand": (0, MS_MANDLOCK),
    "noatime": (MS_NOATIME, 0),
    "atime": (0, MS_NOATIME),
    "nodiratime": (MS_NODIRATIME, 0),
    "diratime": (0, MS_NODIRATIME),
    "relatime": (MS_RELATIME, 0),
    "norelatime": (0, MS_RELATIME),
    "strictatime": (MS_STRICTATIME, 0),
    "nostrictatime": (0, MS_STRICTATIME),
}
# They say how the mount is made, not what it is.
NOT_DATA = frozenset(
    "bind rbind private rprivate shared rshared slave rslave unbindable runbindable remount defaults".split()
)

_OPEN_TREE_CLONE = 1
_ATTR_IDMAP = 0x00100000
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_ATTR = {MS_RDONLY: 0x1, MS_NOSUID: 0x2, MS_NODEV: 0x4, MS_NOEXEC: 0x8}


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    try:
        libc.call("mount", os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(data))
    except OSError as error:
        raise OSError(error.errno, f"mount {kind or source} on {target}: {os.strerror(error.errno or 0)}") from None


def mount_at(source: str, target_fd: int, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2) of a new file system onto what `target_fd` (O_PATH) is."""
    mount(source, f"/proc/self/fd/{target_fd}", kind, flags, data)


def filesystem(fd: int) -> int:
    """The magic number of the file system that `fd` (O_PATH will do) is on: statfs(2), f_type."""
    buffer = ctypes.create_string_buffer(256)
    libc.call_buffer("fstatfs", fd, buffer)
    kind: int = struct.unpack_from("=l", buffer.raw)[0]
    return kind


def unmount(target: str) -> None:
    """Takes the topmost mount off `target`; it goes when nobody uses it any more. No link is followed."""
    libc.call("umount2", os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW)


def make_slave() -> None:
    """Cuts the way back: what is mounted here from now on is not seen outside this mount namespace."""
    mount("", "/", "", MS_REC | MS_SLAVE)
    mount("", "/", "", MS_REC | MS_PRIVATE)


def clone_tree(fd: int, *, recursive: bool = False) -> int:
    """A detached bind mount of what `fd` (O_PATH) is. Close-on-exec."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return libc.syscall(libc.NR_OPEN_TREE, fd, b"", flags, what="open_tree")


def attach_tree(tree_fd: int, target_fd: int) -> None:
    """Mounts the detached tree onto what `target_fd` is; `tree_fd` goes on meaning that mount."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    libc.syscall(libc.NR_MOVE_MOUNT, tree_fd, b"", target_fd, b"", flags, what="move_mount")


def set_attributes(tree_fd: int, flags: int = 0, *, propagation: int = 0, recursive: bool = False) -> None:
    """Puts `flags` (MS_RDONLY, ...) and a propagation (MS_SLAVE, ...) in force on a mount. Linux 5.12, else ENOSYS."""
    bits = 0
    for flag, attribute in _ATTR.items():
        if flags & flag:
            bits |= attribute
    # struct mount_attr { attr_set, attr_clr, propagation, userns_fd }
    attributes = struct.pack("=QQQQ", bits, 0, propagation, 0)
    where = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    libc.syscall(libc.NR_MOUNT_SETATTR, tree_fd, b"", where, attributes, 32, what="mount_setattr")


def map_ids(tree: int, user_namespace: int) -> None:
    """Shows a detached mount with its ids mapped through a user namespace (MOUNT_ATTR_IDMAP, Linux 5.12)."""
    attributes = struct.pack("=QQQQ", _ATTR_IDMAP, 0, 0, user_namespace)
    libc.syscall(libc.NR_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, 32, what="mount_setattr")


def attach_with(tree_fd: int, target_fd: int, flags: int, *, recursive: bool = False) -> None:
    """`attach_tree`, with `flags` (MS_RDONLY, ...) in force."""
    if not flags:
        return attach_tree(tree_fd, target_fd)
    try:
        set_attributes(tree_fd, flags, recursive=recursive)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # Linux before 5.12
            raise
        attach_tree(tree_fd, target_fd)
        mount("", f"/proc/self/fd/{tree_fd}", "", MS_REMOUNT | MS_BIND | flags)
    else:
        attach_tree(tree_fd, target_fd)


def bind(source_fd: int, target_fd: int, flags: int = 0, *, recursive: bool = False) -> None:
    """Binds the object of one descriptor over the object of another, with `flags` in force."""
    tree = clone_tree(source_fd, recursive=recursive)
    try:
        attach_with(tree, target_fd, flags, recursive=recursive)
    finally:
        os.close(tree)


def pivot_root(root_fd: int) -> None:
    """Makes `root_fd` the root of this mount namespace and lets the old one go.

    pivot_root(2), NOTES: new_root and put_old may be the same directory; the old root is then stacked on the new one
    and `umount2(".", MNT_DETACH)` removes it.
    """
    os.fchdir(root_fd)
    libc.syscall(libc.NR_PIVOT_ROOT, b".", b".", what="pivot_root")
    libc.call("umount2", b".", MNT_DETACH)
    os.chdir(b"/")
