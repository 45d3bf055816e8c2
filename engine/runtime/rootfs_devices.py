"""Device nodes in the container's root. Everything is relative to a descriptor that was resolved inside it: a /dev that
is a symbolic link leads nowhere else (CVE-2026-41579, CVE-2026-47766)."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, Protocol

from engine.linux import mount as m
from engine.linux.openat2 import open_in_root

_HANDLE = os.O_PATH | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}


class SetupError(Exception):
    """A root that cannot be set up, in words for the user."""


class Root(Protocol):
    """What is needed of `rootfs.Rootfs`."""

    root: int

    def target(self, path: str, *, directory: bool) -> int: ...


def make_standard_devices(root: int, folders: Sequence[str]) -> None:
    """What OCI promises in every container's new /dev, and these for what is mounted there."""
    dev = open_in_root(root, "/dev", _HANDLE | os.O_DIRECTORY)
    before = os.umask(0)
    try:
        for name, (major, minor) in _DEVICES.items():
            _node(dev, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), f"/dev/{name}")
        for name, where in _LINKS.items():
            os.symlink(where, name, dir_fd=dev)
        for name in folders:
            os.mkdir(name, 0o755, dir_fd=dev)
    finally:
        os.umask(before)
        os.close(dev)


def make_device(rootfs: Root, node: dict[str, Any]) -> None:
    """One of the user's devices, an entry of OCI's `linux.devices`."""
    folder, _, name = str(node["path"]).rstrip("/").rpartition("/")
    if (folder, name) == ("/dev", "ptmx"):  # the container's own
        return
    kind = stat.S_IFBLK if node["type"] == "b" else stat.S_IFCHR
    number = os.makedev(int(node["major"]), int(node["minor"]))
    parent = rootfs.target(folder or "/", directory=True)
    before = os.umask(0)
    try:
        there = _existing(parent, name)
        if there is not None and stat.S_IFMT(there.st_mode) == kind and there.st_rdev == number:
            return
        if there is not None:
            raise SetupError(f"device {node['path']}: the image has something else there")
        made = _node(parent, name, kind | int(node.get("fileMode", 0o600)), number, str(node.get("hostPath", "")))
        if not made:  # the host's own, with the owner and mode that it has there
            return
        if node.get("uid") or node.get("gid"):
            os.chown(name, int(node.get("uid", 0)), int(node.get("gid", 0)), dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise SetupError(f"device {node['path']}: {error.strerror}") from None
    finally:
        os.umask(before)
        os.close(parent)


def _existing(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _node(parent: int, name: str, mode: int, number: int, host_path: str) -> bool:
    """Makes a node, or shows the host's (False). Raises OSError."""
    try:
        os.mknod(name, mode, number, dir_fd=parent)
    except PermissionError:
        if not host_path:
            raise
        # The engine itself is in a container, or an ordinary user's: bind what its host has.
        os.close(os.open(name, _NEW_FILE, 0o666, dir_fd=parent))
        origin = os.open(host_path, _HANDLE)
        target = open_in_root(parent, name, _HANDLE | os.O_NOFOLLOW)
        try:
            found = os.fstat(origin)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) != (stat.S_IFMT(mode), number):
                raise SetupError(f"device {host_path}: it has become another one")
            m.bind(origin, target)
        finally:
            os.close(origin)
            os.close(target)
        return False
    return True


def make_console(root: int, slave: int) -> None:
    """/dev/console is the container's terminal, bound by descriptor (CVE-2025-52565)."""
    dev = open_in_root(root, "/dev", _HANDLE | os.O_DIRECTORY)
    try:
        try:
            os.close(os.open("console", _NEW_FILE, 0o600, dir_fd=dev))
        except FileExistsError:  # a /dev of the user's: a link there leads anywhere
            pass
        target = open_in_root(dev, "console", _HANDLE | os.O_NOFOLLOW)
        try:
            if stat.S_ISLNK(os.fstat(target).st_mode):
                raise SetupError("/dev/console is a symbolic link: the terminal is not mounted over what it leads to")
            m.bind(slave, target)
        finally:
            os.close(target)
    finally:
        os.close(dev)
