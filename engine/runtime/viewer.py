"""A container's root as a detached mount, for copying files: made by a child of the supervisor, handed out as a descriptor.

It is the overlay with the user's mounts on it and nothing else: no /proc, no /sys, no /dev of the container's, so no
path leads to the kernel's files. The descriptor is the only thing that holds it: closed, it is gone. Whoever has it
resolves every path with openat2(RESOLVE_IN_ROOT) below it, and no program of the container's is run (CVE-2018-15664,
CVE-2019-14271, CVE-2026-41567). Mounts are put onto descriptors resolved inside the root (CVE-2026-41568): a link that
is exchanged meanwhile leads to another place of the same container.

Running: the parts are cloned inside the container's own mount namespace. Stopped: the overlay is mounted anew, while the
monitor's lock keeps the container from starting.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Any

from engine.linux import mount as m
from engine.linux import namespace
from engine.linux.openat2 import open_in_root
from engine.linux.overlay import mount_overlay
from engine.runtime import binds, state
from engine.runtime.rootfs import Rootfs
from engine.runtime.rootfs_devices import SetupError

_HANDLE = os.O_PATH | os.O_CLOEXEC


class Busy(Exception):
    """The container is starting or ending: look again."""


def make_view(request: dict[str, Any]) -> list[int]:
    """Descriptors: the root, and of a stopped container the lock that keeps it stopped, of a running one the user namespace
    that its files are to be read and written in, if it has one. Raises Busy, SetupError, OSError.

    `bundle`; `pid` and `pid_start` of a running container's first process, else 0; `monitor`, `monitor_start`, `mounts_fd`: of
    its state; `write`: the stopped container's own
    upper directory is mounted; `mounts`: the user's mounts, as in the runtime configuration; `read_only`: the root is.
    """
    bundle = str(request["bundle"])
    if request.get("pid"):
        root, parts, users = _take_running(request)
        fds = [users] if users >= 0 else []
        namespace.unshare(namespace.NEWNS)
        m.make_slave()
        scratch = os.path.join(bundle, "rootfs")
        os.makedirs(scratch, exist_ok=True)
        target = os.open(scratch, _HANDLE | os.O_DIRECTORY)
        m.attach_tree(root, target)
        os.close(target)
        top = os.open(scratch, _HANDLE | os.O_DIRECTORY)
        for where, tree in parts:
            _place(top, where, tree)
    else:
        fds = [_lock(bundle, exclusive=bool(request.get("write")))]
        namespace.unshare(namespace.NEWNS)
        m.make_slave()
        top = _mount_stopped(request, bundle)
    return [m.clone_tree(top, recursive=True), *fds]


def _lock(bundle: str, *, exclusive: bool) -> int:
    fd = os.open(os.path.join(bundle, "monitor.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy from None
    return fd


# --- running --------------------------------------------------------------------------------------


def _take_running(request: dict[str, Any]) -> tuple[int, list[tuple[str, int]], int]:
    """The overlay and the user's mounts as detached copies. They can only be taken from inside the container's mount
    namespace: go there, take them, come back. Nothing but system calls happens there."""
    pid = int(request["pid"])
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    users = -1
    try:
        process = os.open(f"/proc/{pid}", _HANDLE | os.O_DIRECTORY)
        if os.stat("ns/user", dir_fd=process).st_ino != os.stat("/proc/self/ns/user").st_ino:
            users = os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        theirs = _open_mounts(request, process)
    except OSError:
        raise Busy from None
    if not state.is_alive(pid, int(request["pid_start"])):
        raise Busy
    wanted = [(str(entry["destination"]), "bind" not in entry["options"]) for entry in request["mounts"]]
    parts: list[tuple[str, int]] = []
    namespace.setns(theirs, namespace.NEWNS)
    try:
        top = os.open(b"/", _HANDLE | os.O_DIRECTORY)
        root = m.clone_tree(top)
        for where, recursive in wanted:
            try:
                fd = open_in_root(top, where, _HANDLE)
                parts.append((where, m.clone_tree(fd, recursive=recursive)))
                os.close(fd)
            except OSError:  # unmounted or removed by the container: then it is not in the view either
                continue
        os.close(top)
    finally:
        namespace.setns(own, namespace.NEWNS)
    return root, parts, users


def _open_mounts(request: dict[str, Any], process: int) -> int:
    """The container's mount namespace. With a user namespace of its own the first process has a copy, whose mounts cannot be
    taken one by one (they are locked, mount_namespaces(7)); its monitor keeps the one that the copy was made of."""
    number = int(request.get("mounts_fd") or 0)
    if not number:
        return os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    monitor = int(request["monitor"])
    fd = os.open(f"/proc/{monitor}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
    if not state.is_alive(monitor, int(request["monitor_start"])):
        os.close(fd)
        raise OSError(errno.ESRCH, "the monitor has ended")
    return fd


def _place(top: int, where: str, tree: int) -> None:
    try:
        target = open_in_root(top, where, _HANDLE)
    except OSError:
        return
    try:
        if stat.S_ISDIR(os.fstat(target).st_mode) == stat.S_ISDIR(os.fstat(tree).st_mode) and not _same(top, target):
            m.attach_tree(tree, target)
    finally:
        os.close(target)


def _same(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


# --- stopped --------------------------------------------------------------------------------------


def _mount_stopped(request: dict[str, Any], bundle: str) -> int:
    scratch = os.path.join(bundle, "rootfs")
    os.makedirs(scratch, exist_ok=True)
    lowers = [str(path) for path in request["lowers"]]
    upper, work = str(request["upper"]), str(request["work"])
    if not lowers:
        empty = os.path.join(bundle, "empty")
        os.makedirs(empty, exist_ok=True)
        lowers = [empty]
    if request.get("write"):
        mount_overlay(lowers, upper, work, scratch)
        top = os.open(scratch, _HANDLE | os.O_DIRECTORY)
    else:
        top = _mount_reading([upper, *lowers], scratch, mountpoints=bool(request["mounts"]))
    rootfs = Rootfs(top)
    for entry in request["mounts"]:
        try:
            if entry["type"] == "overlay":
                binds.mount_image(rootfs, entry)
            elif entry["type"] == "bind":
                binds.mount_bind(rootfs, {**entry, "options": _unshared(entry["options"])}, {})
        except (SetupError, OSError):  # a source that is gone, a place that cannot be mounted upon: `start` says so
            continue
    if request.get("read_only"):
        m.mount("", f"/proc/self/fd/{top}", "", m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY)
    return top


def _unshared(options: list[str]) -> list[str]:
    return [option for option in options if "slave" not in option and "shared" not in option]


def _mount_reading(layers: list[str], scratch: str, *, mountpoints: bool) -> int:
    """The container's upper directory as one more lower layer. Mount points that are missing are made in memory."""
    if mountpoints:
        m.mount("tmpfs", scratch, "tmpfs", m.MS_NOSUID | m.MS_NODEV, "mode=700")
        for name in ("upper", "work", "merged"):
            os.mkdir(os.path.join(scratch, name))
        where = os.path.join(scratch, "merged")
        try:
            mount_overlay(layers, os.path.join(scratch, "upper"), os.path.join(scratch, "work"), where)
            return os.open(where, _HANDLE | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # no extended attributes on tmpfs here
                raise
    mount_overlay(layers, "", "", scratch)
    return os.open(scratch, _HANDLE | os.O_DIRECTORY)
