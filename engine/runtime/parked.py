"""A container's first process made before anybody knows what it will run: it waits in a control group and in namespaces.

What a start spends most of its time on is not work but waiting in the kernel: on cgroup v1 the move of a process into a group
takes an RCU grace period (10 ms), and the namespaces and the forks of an interpreter some milliseconds more. All of it is the same
for nearly every container. So a spare monitor (`spares`) has it done in advance; the start only renames the group.

The mount namespace is not among it: it is a copy of the host's mounts as they are at the start, not of old ones.
On cgroup v2 groups cannot be renamed. There the monitor forks straight into the group (`Cgroup.fork`), without a wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any

from engine.linux import cgroup as cg
from engine.runtime import init, init_namespaces, outside
from engine.runtime.protocol import line

PARENT = "workbench"  # the group above; a rename stays within one directory
# Its memory, charged to the group from the beginning, has no room in a smaller one.
_LEAST_MEMORY = 64 << 20
KINDS = frozenset(("pid", "time", "uts", "ipc", "network"))


@dataclass(slots=True)
class Parked:
    """`inside`: its network namespace's sockets, as `net_inside.open_inside` makes them."""

    pid: int
    pidfd: int
    channel: socket.socket
    group: cg.Cgroup
    inside: list[int]
    joined: bool = False

    def join(self) -> None:
        """Goes into its group. The kernel makes everybody's groups wait meanwhile, so this has its moment (`spares`)."""
        if not self.joined:
            self.group.join(self.pid)
            self.joined = True

    def fits(self, spec: dict[str, Any]) -> bool:
        """Whether a container of this spec can be made of it."""
        extra, resources = spec["workbench"], spec["linux"]["resources"]
        network = extra.get("network") or {}
        memory = resources.get("memory", {}).get("limit", -1)
        return (
            not extra.get("join")
            and not extra.get("runtime")
            and init_namespaces.new_kinds(spec) == {*KINDS, "mount", "cgroup"}
            and network.get("mode") == "bridge"
            and not network.get("way_out")
            and not any(endpoint["address6"] for endpoint in network["endpoints"])
            and os.path.dirname(spec["linux"]["cgroupsPath"].strip("/")) == PARENT
            and not (memory and 0 < memory < _LEAST_MEMORY)
            and not {"cpus", "mems"} & set(resources.get("cpu", {}))
        )

    def adopt(self, cgroup: cg.Cgroup) -> bool:
        """Its group becomes `cgroup`. False: there is one by that name, of a monitor that was lost."""
        try:
            self.group.rename(cgroup)
        except OSError:
            return False
        self.group = cgroup
        return True

    def go(self, bundle: str, stdio: tuple[int, int, int]) -> None:
        socket.send_fds(self.channel, [line({"bundle": bundle})], stdio)

    def discard(self) -> None:
        """Ends it; its group goes as well."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.channel.close()
        for fd in (self.pidfd, *self.inside):
            os.close(fd)
        self.inside = []
        self.group.remove()
        with contextlib.suppress(OSError):
            init_namespaces.back_to_own()


def park(layout: cg.Layout, name: str) -> Parked | None:
    """All but `Parked.join`. None where nothing can be prepared: without groups that can be renamed. Raises OSError, SetupError."""
    if layout.version not in ("v1", "hybrid"):
        return None
    # The fork before all else: what is touched before it is shared by it, and copied when it is touched again.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    outside.returns()  # to be asked before children are born elsewhere
    init_namespaces.before_fork({"pid", "time"})
    pid = os.fork()
    if pid == 0:
        ours.close()
        init.wait_parked(layout, theirs)
    theirs.close()
    parked = Parked(pid, os.pidfd_open(pid), ours, cg.Cgroup(layout, f"{PARENT}/{name}"), [])
    try:
        parked.group.create({})
        if parked.group.notes or len(parked.group.directories) < 2:
            parked.discard()
            return None
        raw, parked.inside, _flags, _address = socket.recv_fds(ours, 4096, 8, socket.MSG_CMSG_CLOEXEC)
        if len(parked.inside) != 4:
            raise OSError(f"a first process could not be prepared: {raw.decode(errors='replace')}")
    except BaseException:
        parked.discard()
        raise
    return parked
