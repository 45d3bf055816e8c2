"""Which namespaces a container has of its own, which it shares and with whom, and which sysctls follow from that. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidInput
from engine.model import HostConfig


@dataclass(frozen=True, slots=True)
class Join:
    """Another container's first process. `start` (field 22 of /proc/PID/stat) tells it from a later user of the pid."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class IdRange:
    """`count` ids from `inside` on in the container are those from `outside` on of the host."""

    inside: int
    outside: int
    count: int

    def document(self) -> dict[str, int]:
        return {"containerID": self.inside, "hostID": self.outside, "size": self.count}


@dataclass(frozen=True, slots=True)
class IdMaps:
    """A user namespace: its users and groups."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]


def outside(ranges: tuple[IdRange, ...], inside: int) -> int:
    """The host's id of one of the container's. Raises InvalidInput: it has none."""
    for one in ranges:
        if one.inside <= inside < one.inside + one.count:
            return one.outside + inside - one.inside
    raise InvalidInput(f"id {inside} does not exist in the container's user namespace", hint="runtime.userns-remap")


_MODES = {
    "pid": ("", "host", "container:"),
    "ipc": ("", "none", "private", "shareable", "host", "container:"),
    "uts": ("", "host"),
    "cgroupns": ("", "private", "host"),
    "userns": ("", "host"),
}
# OCI's name of each: /proc/PID/ns has "net" and "mnt" for two of them.
_FILES = {"pid": "pid", "ipc": "ipc", "network": "net", "uts": "uts", "user": "user"}

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:@-]+)+")


def check(host: HostConfig, network: str) -> None:
    """Raises InvalidInput for a mode that is none, and for what excludes each other."""
    for kind, modes in _MODES.items():
        value: str = getattr(host, f"{kind}_mode")
        if value in modes and not value.endswith(":"):
            continue
        if "container:" in modes and value.startswith("container:") and value != "container:":
            continue
        name = {"cgroupns": "CGROUP", "userns": "USER"}.get(kind, kind.upper())
        raise InvalidInput(f"--{kind}: invalid {name} mode {value!r}", hint=_mode_hint(modes))
    if host.oom_score_adj < -1000 or host.oom_score_adj > 1000:
        raise InvalidInput(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]", hint="--oom-score-adj"
        )
    sysctls(host, network)


def _mode_hint(modes: tuple[str, ...]) -> str:
    return ", ".join(f"{mode}NAME" if mode.endswith(":") else mode for mode in modes if mode)


def namespaces(host: HostConfig, network: str, join: Mapping[str, Join], *, user: bool = False) -> list[dict[str, Any]]:
    """OCI's list: a type without a path is a new one, a type that is missing is the host's."""
    own = ["mount"]
    if host.pid_mode == "":
        own.append("pid")
    if host.uts_mode == "":
        own.append("uts")
    if host.ipc_mode in ("", "none", "private", "shareable"):
        own.append("ipc")
    if host.cgroupns_mode != "host":
        own.append("cgroup")
    own.append("time")
    if network in ("none", "bridge"):
        own.append("network")
    if user and "user" not in join:
        own.append("user")
    result: list[dict[str, Any]] = [{"type": kind} for kind in own]
    for kind, other in join.items():
        result.append({"type": kind, "path": f"/proc/{other.pid}/ns/{_FILES[kind]}"})
    return result


def shm_of(host: HostConfig) -> bool:
    """Whether /dev/shm is that of the container whose IPC namespace is joined."""
    return host.ipc_mode.startswith("container:")


def sysctl_path(name: str) -> str:
    """`net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/x` as a path below /proc/sys. Raises InvalidInput."""
    if not _SYSCTL.fullmatch(name):
        raise InvalidInput(f"sysctl {name!r} is not a name", hint="write --sysctl net.ipv4.ip_forward=1")
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        return name.translate({ord("."): "/", ord("/"): "."})
    return name


def sysctls(host: HostConfig, network: str) -> dict[str, str]:
    """The defaults of a network namespace, and the user's; only what the container has a namespace of its own for
    (CVE-2022-0811). Raises InvalidInput."""
    own_network = network != "host"
    result: dict[str, str] = {}
    if own_network and network != "container":
        result = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
    for name, value in host.sysctls.items():
        dotted = sysctl_path(name).translate({ord("/"): ".", ord("."): "/"})
        if any(c in value for c in "\0\n\r"):
            raise InvalidInput(f"the value of sysctl {name} holds a control character")
        _check_sysctl(dotted, host, own_network)
        result[dotted] = value
    return result


def _check_sysctl(name: str, host: HostConfig, own_network: bool) -> None:
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        if host.ipc_mode == "host":
            raise InvalidInput(f"sysctl {name!r} is not allowed: the container shares the host's IPC namespace")
        return
    if name == "kernel.domainname":
        if host.uts_mode == "host":
            raise InvalidInput(f"sysctl {name!r} is not allowed: the container shares the host's UTS namespace")
        return
    if name.startswith("net."):
        if not own_network:
            raise InvalidInput(f"sysctl {name!r} is not allowed: the container shares the host's network namespace")
        return
    raise InvalidInput(
        f"sysctl {name!r} is not allowed: it is not in a separate kernel namespace",
        hint="net.*, fs.mqueue.*, kernel.domainname and the kernel.msg*, kernel.sem, kernel.shm* ones are",
    )
