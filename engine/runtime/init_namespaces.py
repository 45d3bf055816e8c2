"""The namespaces of a container, made or joined, in the order that the kernel asks for.

Process ids and time are given to children only, so the monitor sets them before it forks (`before_fork`); everything
else the first process does itself (`enter`, and `enter_cgroup` once it is in its group).
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from engine.linux import idmap, mount, namespace
from engine.linux.openat2 import open_in_root
from engine.runtime import init_userns, net_inside, netconfig
from engine.runtime.binds import hold_sources
from engine.runtime.init_userns import Remap
from engine.runtime.rootfs_devices import SetupError

_FLAGS = {
    "mount": namespace.NEWNS,
    "uts": namespace.NEWUTS,
    "ipc": namespace.NEWIPC,
    "network": namespace.NEWNET,
}
_FILES = {"pid": "pid", "ipc": "ipc", "network": "net", "uts": "uts", "user": "user"}
_PROC_MAGIC = 0x9FA0
_TMPFS_MAGIC = 0x01021994


def new_kinds(spec: dict[str, Any]) -> set[str]:
    """The namespaces that are the container's own."""
    return {entry["type"] for entry in spec["linux"]["namespaces"] if "path" not in entry}


def shares_pids(spec: dict[str, Any]) -> bool:
    """Whether the end of the first process does not end the others by itself: the pid namespace is not its own."""
    return "pid" not in new_kinds(spec)


def comes_late(spec: dict[str, Any]) -> bool:
    """Whether the first process is forked into the pid namespace that it joins only when it has become the container's (`init.appear`):
    until then a process in there that may trace others would reach the host through it. One in another user namespace than
    ours may not, and needs no such care."""
    if "pid" not in spec["workbench"].get("join", {}):
        return False
    process = _open_process(spec, "pid")
    try:
        return os.stat("ns/user", dir_fd=process).st_ino == os.stat("/proc/self/ns/user").st_ino
    except OSError:
        return True
    finally:
        os.close(process)


def enter_late(fd: int) -> None:
    """The pid namespace `fd`, and a time namespace, for children of the caller."""
    namespace.setns(fd, namespace.NEWPID)
    os.close(fd)
    if os.path.exists("/proc/self/ns/time"):
        namespace.unshare(namespace.NEWTIME)


def before_fork(kinds: set[str], spec: dict[str, Any] | None = None) -> None:
    """In the monitor: which pid and time namespaces its children are in. Raises SetupError, OSError."""
    flags = (namespace.NEWPID if "pid" in kinds else 0) | (namespace.NEWTIME if "time" in kinds else 0)
    try:
        namespace.unshare(flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A second start: the last container's pid namespace is dead, and one cannot be made below it.
        back_to_own()
        if flags & namespace.NEWTIME and not os.path.exists("/proc/self/ns/time"):  # before Linux 5.6
            flags &= ~namespace.NEWTIME
        namespace.unshare(flags)
    if spec is not None and "pid" in spec["workbench"].get("join", {}):
        fd = open_namespace(spec, "pid")
        namespace.setns(fd, namespace.NEWPID)
        os.close(fd)


def back_to_own() -> None:
    """Children are born in the namespaces of the caller again."""
    for name, flag in (("pid", namespace.NEWPID), ("time", namespace.NEWTIME)):
        try:
            fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        namespace.setns(fd, flag)
        os.close(fd)


def _open_process(spec: dict[str, Any], kind: str) -> int:
    """/proc/PID of the other container's first process: verified, and from then on never another's."""
    pid, start = spec["workbench"]["join"][kind]
    try:
        fd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stat = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)
        with open(stat, "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[19]) == start:
                return fd
    except OSError:
        pass
    raise SetupError(f"the container whose {kind} namespace is to be joined is not running any more")


def open_namespace(spec: dict[str, Any], kind: str) -> int:
    process = _open_process(spec, kind)
    try:
        return os.open(f"ns/{_FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    except OSError as error:
        raise SetupError(f"the {kind} namespace of the other container: {error.strerror}") from None
    finally:
        os.close(process)


def user_namespace(spec: dict[str, Any]) -> Remap | None:
    """The container's user namespace: a new one, or that of the container whose namespaces it shares."""
    if "user" not in spec["workbench"].get("join", {}):
        return init_userns.make(spec)
    other = open_namespace(spec, "user")
    try:
        return init_userns.make(spec, other)
    finally:
        os.close(other)


def enter(
    spec: dict[str, Any], channel: socket.socket, remap: Remap | None = None, have: frozenset[str] = frozenset()
) -> tuple[int, dict[str, int]]:
    """In the first process: joins and makes what it can before it is in its group, but for the kinds that it has; the
    network's sockets go to the monitor over `channel`. Returns the other container's /dev/shm as a detached mount (or -1),
    and the sources of mounts that stay tied to the host's."""
    joined = [
        (open_namespace(spec, kind), _FLAGS[kind]) for kind in spec["workbench"].get("join", {}) if kind in _FLAGS
    ]
    shm = take_shm(spec) if spec["workbench"].get("share_shm") else -1
    for fd, flag in joined:
        namespace.setns(fd, flag)
        os.close(fd)
    kinds = new_kinds(spec)
    flags = 0
    made = remap.spaces if remap is not None else {}
    for kind, fd in made.items():
        namespace.setns(fd, _FLAGS[kind])
        os.close(fd)
    for kind in kinds - set(made) - have:
        flags |= _FLAGS.get(kind, 0)
    namespace.unshare(flags)
    if "network" in kinds - have:
        open_network(spec, channel)
    if "uts" in kinds:
        if spec["hostname"]:
            namespace.sethostname(spec["hostname"])
        if spec.get("domainname"):
            namespace.setdomainname(spec["domainname"])
    held = hold_sources(spec)
    mount.make_slave()
    return shm, held


def open_network(spec: dict[str, Any], channel: socket.socket) -> None:
    """In the new network namespace: what has to be there first, and the sockets for the monitor."""
    net_inside.open_inside(netconfig.from_json(spec["workbench"].get("network")), channel)


def take_shm(spec: dict[str, Any]) -> int:
    """A copy of the mount that the other container has at /dev/shm."""
    return _take(spec, "ipc", b"/dev/shm", _TMPFS_MAGIC)


def take_proc(spec: dict[str, Any]) -> int:
    """A copy of the mount that the other container has at /proc, without what masks it: procfs shows the pid namespace of who makes it,
    and we are not in there yet (`comes_late`)."""
    tree = _take(spec, "pid", b"/proc", _PROC_MAGIC)
    process = _open_process(spec, "pid")
    try:
        with open(
            os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process), encoding="ascii", errors="replace"
        ) as file:
            number = next(line.split()[-1] for line in file if line.startswith("NSpid:"))
        # The one that its first process sees itself in, by the number that it has in there.
        if os.stat("ns/pid", dir_fd=process).st_ino == os.stat(f"{number}/ns/pid", dir_fd=tree).st_ino:
            return tree
    except (OSError, StopIteration):
        pass
    finally:
        os.close(process)
    os.close(tree)
    raise SetupError("/proc of the other container is not that of its own processes")


def _take(spec: dict[str, Any], kind: str, where: bytes, magic: int) -> int:
    """A copy of one mount of another container. It can only be taken from inside its mount namespace: go there, take it, come back.
    Its root is in force meanwhile, so a link of its own leads nowhere else."""
    process = _open_process(spec, kind)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    os.close(process)
    tree, number = -1, 0
    namespace.setns(theirs, namespace.NEWNS)
    try:
        fd = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if mount.filesystem(fd) == magic:
            tree = mount.clone_tree(fd)
        os.close(fd)
    except OSError as error:
        number = error.errno or errno.EIO
    namespace.setns(own, namespace.NEWNS)
    os.close(own)
    os.close(theirs)
    if tree < 0:
        place, why = where.decode(), os.strerror(number or errno.EINVAL)
        raise SetupError(f"{place} of the other container cannot be shared: {why}")
    return tree


def enter_cgroup(spec: dict[str, Any]) -> None:
    """After joining the group: it becomes the root of what is seen."""
    if "cgroup" in new_kinds(spec) and os.path.exists("/proc/self/ns/cgroup"):
        namespace.unshare(namespace.NEWCGROUP)


# A kernel may not have these, which every container with a network of its own gets.
_OPTIONAL = ("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start")


def set_sysctls(spec: dict[str, Any]) -> None:
    """Through a descriptor that is verified to be procfs, which nothing of the image can have redirected
    (CVE-2025-52881): it is the host's, where these files are those of the caller's namespaces."""
    wanted: dict[str, str] = spec["linux"]["sysctl"]
    if not wanted:
        return
    top = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if mount.filesystem(top) != _PROC_MAGIC:
            raise SetupError("/proc of this host is not procfs")
        for name, value in wanted.items():
            path = name.translate({ord("."): "/", ord("/"): "."})
            try:
                fd = open_in_root(top, path, os.O_WRONLY | os.O_NOFOLLOW, no_symlinks=True, no_mounts=True)
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except FileNotFoundError:
                if name not in _OPTIONAL:
                    raise SetupError(f"sysctl {name}: this kernel does not have it") from None
            except OSError as error:
                if name in _OPTIONAL and idmap.inside():  # a range of groups that are not all mapped here
                    continue
                raise SetupError(f"sysctl {name} = {value!r}: {error.strerror}") from None
    finally:
        os.close(top)
