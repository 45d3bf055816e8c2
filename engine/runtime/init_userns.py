"""A user namespace of the container's own: its root is an ordinary user of the host (user_namespaces(7)).

The first process stays the host's root while it puts the container together, and enters the user namespace as the last
thing before it gives up its privileges. What has to belong to that namespace, so that the container's root may use it, is
made by a short-lived child that is in it: the network, IPC and UTS namespaces. Files keep the owners that the image gives
them: the layers, the engine's files and the engine's volumes are mounted with their ids mapped (mount_setattr(2),
MOUNT_ATTR_IDMAP, Linux 5.12; as layers of an overlay 5.19), so that nothing on disk is changed, and `diff`, `commit` and
`cp` see what they always see.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Any

from engine.linux import capability, libc, mount, namespace
from engine.runtime.rootfs_devices import SetupError

_KINDS = {"ipc": namespace.NEWIPC, "uts": namespace.NEWUTS, "network": namespace.NEWNET}
_FILES = {"ipc": "ipc", "uts": "uts", "network": "net"}


@dataclass(frozen=True, slots=True)
class Remap:
    """`fd` is the user namespace; `spaces` what its own were made, by OCI type; the ids are the host's of its root."""

    fd: int
    spaces: dict[str, int]
    uids: tuple[tuple[int, int, int], ...]  # inside, outside, how many
    gids: tuple[tuple[int, int, int], ...]

    def uid(self, inside: int) -> int:
        """The host's user of one of the container's; the overflow user for one that has none."""
        return _outside(self.uids, inside)

    def gid(self, inside: int) -> int:
        return _outside(self.gids, inside)

    def inside(self, status: os.stat_result) -> tuple[int, int]:
        """Owner and group of a file as the container sees them."""
        return _inside(self.uids, status.st_uid), _inside(self.gids, status.st_gid)

    def become_root(self) -> None:
        """From now on files are made as the container's root, with all capabilities."""
        libc.call("setfsgid", self.gid(0))
        libc.call("setfsuid", self.uid(0))
        capability.raise_permitted()  # a file system user that is not root loses some

    def become_host(self) -> None:
        """Files are the engine's own again."""
        libc.call("setfsuid", 0)
        libc.call("setfsgid", 0)
        capability.raise_permitted()

    def mapped(self, source: str, target: str) -> None:
        """Mounts the folder `source` at `target` with its ids mapped."""
        os.makedirs(target, exist_ok=True)
        folder = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        where = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree = mount.clone_tree(folder)
        try:
            self.map_tree(tree, source)
            mount.attach_tree(tree, where)
        finally:
            for fd in (folder, where, tree):
                os.close(fd)

    def layers(self, place: str, lowers: list[str], upper: str, work: str) -> tuple[list[str], str, str]:
        """The layers of an overlay as they are seen in the container's user namespace, mounted below the folder `place`; upper
        and work (or neither) must be of one mount. From then on files are made as the container's root."""
        below = [os.path.join(place, str(number)) for number in range(len(lowers))]
        for lower, mapped in zip(lowers, below, strict=True):
            self.mapped(lower, mapped)
        folder, other = os.path.split(upper.rstrip("/"))[0], os.path.split(work.rstrip("/"))[0]
        if folder != other:
            raise SetupError("user namespaces: the layer's folders are not beside each other")
        top = os.path.join(place, "top")
        if upper:
            self.mapped(folder, top)
        self.become_root()
        if not upper:
            return below, "", ""
        return below, os.path.join(top, os.path.basename(upper)), os.path.join(top, os.path.basename(work))

    def map_tree(self, tree: int, shown: str) -> None:
        """Maps the ids of a detached mount."""
        try:
            mount.map_ids(tree, self.fd)
        except OSError as error:
            raise SetupError(
                f"user namespaces: the file system of {shown} cannot be shown with mapped ids: {error.strerror} "
                "(it takes Linux 5.19 and a file system such as ext4, xfs or btrfs); run it with --userns host"
            ) from None


def _outside(ranges: tuple[tuple[int, int, int], ...], inside: int) -> int:
    for first, outside, count in ranges:
        if first <= inside < first + count:
            return outside + inside - first
    return 65534


def _inside(ranges: tuple[tuple[int, int, int], ...], outside: int) -> int:
    for inside, first, count in ranges:
        if first <= outside < first + count:
            return inside + outside - first
    return 65534


def _ranges(entries: list[dict[str, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((entry["containerID"], entry["hostID"], entry["size"]) for entry in entries)


def make(spec: dict[str, Any], other: int = -1) -> Remap | None:
    """None for a container in the host's user namespace. `other` is a user namespace to join instead of a new one."""
    types = {entry["type"] for entry in spec["linux"]["namespaces"]}
    if "user" not in types:
        return None
    uids, gids = _ranges(spec["linux"]["uidMappings"]), _ranges(spec["linux"]["gidMappings"])
    own = [e["type"] for e in spec["linux"]["namespaces"] if e["type"] in _KINDS and "path" not in e]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        _hold(theirs, own, other)
    theirs.close()
    with ours:
        try:
            pid = ours.recv(64)
            if not pid.isdigit():
                raise SetupError(f"user namespace: {os.strerror(int(pid[1:] or b'0'))}")
            if other < 0:
                _write_maps(int(pid), uids, gids)
            ours.send(b"mapped")
            raw, fds, _flags, _address = socket.recv_fds(ours, 64, 8, socket.MSG_CMSG_CLOEXEC)
            if raw != b"made":
                raise SetupError(f"user namespace: {os.strerror(int(raw[1:] or b'0'))}")
        finally:
            ours.close()
            os.waitpid(child, 0)
    return Remap(fds[0], dict(zip(own, fds[1:], strict=True)), uids, gids)


def _hold(channel: socket.socket, own: list[str], other: int) -> None:
    """The child: enters the user namespace, makes what is to belong to it, hands it over, ends."""
    try:
        if other >= 0:
            namespace.setns(other, namespace.NEWUSER)
        else:
            namespace.unshare(namespace.NEWUSER)
        # Its number in the host's /proc, which is what is mounted here.
        channel.send(os.readlink("/proc/self").encode())
        if channel.recv(16) == b"mapped":
            flags = 0
            for kind in own:
                flags |= _KINDS[kind]
            namespace.unshare(flags)
            files = ["user", *(_FILES[kind] for kind in own)]
            fds = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in files]
            socket.send_fds(channel, [b"made"], fds)
    except OSError as error:
        channel.send(b"!%d" % (error.errno or errno.EIO))
    finally:
        os._exit(0)


def _write_maps(pid: int, uids: tuple[tuple[int, int, int], ...], gids: tuple[tuple[int, int, int], ...]) -> None:
    for name, ranges in (("uid_map", uids), ("gid_map", gids)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, "\n".join(" ".join(map(str, entry)) for entry in ranges).encode())
        finally:
            os.close(fd)


def exec_flag(spec: dict[str, Any]) -> int:
    """What an exec joins besides the other namespaces."""
    return namespace.NEWUSER if any(e["type"] == "user" for e in spec["linux"]["namespaces"]) else 0


def owner(spec: dict[str, Any], uid: int) -> int:
    """The host's user that a container's user is."""
    return _outside(_ranges(spec["linux"]["uidMappings"]), uid) if exec_flag(spec) else uid
