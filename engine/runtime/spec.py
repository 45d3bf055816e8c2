"""What a container is, as one JSON document: the OCI runtime `config.json`, plus a section "workbench" for what OCI
leaves to the engine (layers, log, user by name, the compiled seccomp filter).

Pure: no file is read and nothing is started. The lists are Docker's (moby daemon/pkg/oci/defaults.go).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import InvalidInput
from engine.linux import capability
from engine.model import HostConfig
from engine.runtime import spec_namespaces as spaces
from engine.runtime.spec_mounts import BindMount as BindMount
from engine.runtime.spec_mounts import UserMount, mounts
from engine.runtime.spec_resources import DeviceNode, device_rules, resources, rlimits
from engine.runtime.spec_resources import check as check_limits
from engine.runtime.spec_security import SecurityOptions, parse_security_options

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SPEC_VERSION = 1
DEFAULT_CGROUP_PARENT = "workbench"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class SpecParams(HostConfig):
    """Everything that decides how a container runs. Paths are absolute host paths unless said otherwise."""

    container_id: str
    args: Sequence[str]
    env: Sequence[str] = ()  # "K=V"; an entry without "=" is dropped, never filled from the host
    cwd: str = "/"  # in the container; made if missing
    user: str = ""  # "", "name", "uid", "name:group", "uid:gid": resolved in the container's own /etc
    hostname: str = ""
    lowers: Sequence[str] = ()  # topmost layer first
    upper: str = ""
    work: str = ""
    volatile: bool = False  # overlay without sync: for build steps, whose layer is written and synced elsewhere
    mounts: Sequence[UserMount] = ()  # also resolv.conf, hosts, hostname
    tty: bool = False
    tty_size: tuple[int, int] = (0, 0)  # rows, columns
    open_stdin: bool = False  # a pipe that attached clients write to; otherwise /dev/null
    stdio: Literal["log", "fds"] = "log"  # "fds": what the starter passes (build steps)
    log_path: str = ""
    network: Literal["host", "none", "bridge", "container"] = "host"  # container: `join` has whose
    network_section: Mapping[str, Any] = field(default_factory=dict)  # of a bridge: netconfig.ContainerNetwork as JSON
    domainname: str = ""
    life: Mapping[str, Any] = field(default_factory=dict)  # what the monitor does by itself: see `monitor`
    clean_stubs: bool = False  # take the engine's mount points out of the upper directory afterwards
    device_nodes: Sequence[DeviceNode] = ()  # what `devices` (or `privileged`) come to on this host
    device_numbers: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of the block devices with limits
    apparmor_profile: str = ""  # loaded; "" where the host has no AppArmor
    id_maps: spaces.IdMaps | None = None  # a user namespace of its own
    join: Mapping[str, spaces.Join] = field(default_factory=dict)  # OCI namespace type: whose it is
    # {"name", "path", "args", "time"} of the OCI runtime that is to start it ("time": it can make time namespaces); {}: we do
    oci_runtime: Mapping[str, Any] = field(default_factory=dict)


def capability_names(
    *, add: Sequence[str] = (), drop: Sequence[str] = (), privileged: bool = False, last: int | None = None
) -> list[str]:
    """The set in force, in numeric order. `ALL` means every capability; an addition wins over `--cap-drop ALL`."""

    def known(names: Sequence[str], flag: str) -> set[str]:
        found = set()
        for given in names:
            name = given.upper().removeprefix("CAP_")
            if name != "ALL" and name not in capability.NUMBER:
                raise InvalidInput(f"{flag}: unknown capability {given!r}", hint="see capabilities(7) for the names")
            found.add(name)
        return found

    everything = capability.available(last)
    added, dropped = known(add, "--cap-add"), known(drop, "--cap-drop")
    if privileged:
        return list(everything)
    base = set(everything) if "ALL" in added else set(capability.DEFAULT)
    if "ALL" in dropped:
        base = set(everything) if "ALL" in added else set()
    result = (base - dropped) | (added - {"ALL"})
    return [name for name in everything if name in result]


def check_text(what: str, text: str) -> None:
    """Raises InvalidInput for what would become more than one line of a file in the container (CVE-2022-4318)."""
    if any(c in text for c in "\0\n\r"):
        raise InvalidInput(f"{what} {text!r} holds a control character")


def _environment(params: SpecParams) -> list[str]:
    given = [entry for entry in params.env if "=" in entry]
    names = {entry.partition("=")[0] for entry in given}
    for entry in given:
        if "\0" in entry:
            raise InvalidInput(f"environment variable {entry.partition('=')[0]!r} holds a NUL character")
    paths = [entry for entry in given if entry.startswith("PATH=")]
    given = [entry for entry in given if not entry.startswith("PATH=")]
    first = paths or [f"PATH={DEFAULT_PATH}"]  # Docker's order
    if "HOSTNAME" not in names and params.hostname:
        first.append(f"HOSTNAME={params.hostname}")
    if params.tty and "TERM" not in names:
        first.append("TERM=xterm")
    return first + given


def cgroups_path(container_id: str, parent: str = "") -> str:
    """Where the container's group is, below the controllers' mounts. Raises InvalidInput for a parent that climbs."""
    if parent.endswith(".slice"):
        raise InvalidInput(
            f"--cgroup-parent {parent} names a systemd slice", hint="this engine takes a path, such as /mygroup"
        )
    check_text("cgroup parent", parent)
    parts = [part for part in (parent or DEFAULT_CGROUP_PARENT).split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise InvalidInput(f"--cgroup-parent {parent!r} holds '..'")
    return "/".join([*parts, container_id])


def check(params: SpecParams) -> SecurityOptions:
    """Whether the parts fit together; for `create`, which has no root to look into. Raises InvalidInput."""
    if not params.args:
        raise InvalidInput("no command specified", hint="give a command, or set CMD or ENTRYPOINT in the image")
    for argument in params.args:
        if "\0" in argument:
            raise InvalidInput(f"the command's argument {argument!r} holds a NUL character")
    texts = {"user": params.user, "hostname": params.hostname, "domainname": params.domainname}
    for what, text in {**texts, "working directory": params.cwd}.items():
        check_text(what, text)
    for text in params.group_add:
        check_text("group", text)
    if not params.cwd.startswith("/"):
        raise InvalidInput(f"working directory {params.cwd!r} is not an absolute path")
    for name in params.annotations:
        if name.startswith("org.systemd.property."):  # CVE-2024-3154
            raise InvalidInput(f"annotation {name} would set a property of a systemd unit")
    spaces.check(params, params.network)
    return parse_security_options(params.security_opt)


def _id_mappings(maps: spaces.IdMaps | None) -> dict[str, Any]:
    if maps is None:
        return {}
    return {
        "uidMappings": [entry.document() for entry in maps.uids],
        "gidMappings": [entry.document() for entry in maps.gids],
    }


def _paths(wanted: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """Masked or read-only paths. Raises InvalidInput."""
    for path in wanted or ():
        if not path.startswith("/") or any(c in path for c in "\0\n\r"):
            raise InvalidInput(f"masked or read-only path {path!r} is not an absolute path")
    return list(default if wanted is None else wanted)


def validate(params: SpecParams) -> None:
    """All that can be said without this host's devices: for `create`. Raises InvalidInput, Unsupported."""
    security = check(params)
    caps = capability_names(add=params.cap_add, drop=params.cap_drop, privileged=params.privileged)
    security.seccomp_program(caps, privileged=params.privileged)
    mounts(params, params.mounts)
    _paths(params.masked_paths, ())
    _paths(params.readonly_paths, ())
    cgroups_path("x", params.cgroup_parent)
    rlimits(params.ulimits)
    check_limits(params)
    device_rules(params, ())


def make_spec(params: SpecParams, *, seccomp_program: bytes | None = None) -> dict[str, Any]:
    """The document. `seccomp_program` is a compiled filter; None: the one that `security_opt` means."""
    security = check(params)
    caps = capability_names(add=params.cap_add, drop=params.cap_drop, privileged=params.privileged)
    foreign = dict(params.oci_runtime)
    seccomp_document = security.seccomp_document(caps, privileged=params.privileged) if foreign else None
    if foreign:
        seccomp_program = b""
    elif seccomp_program is None:
        seccomp_program = security.seccomp_program(caps, privileged=params.privileged)
    bare = params.privileged or security.systempaths_unconfined
    prefixed = [f"CAP_{name}" for name in caps]
    return {
        "ociVersion": "1.1.0",  # the first with domainname and time namespaces
        "process": {
            "terminal": params.tty,
            "user": {"uid": 0, "gid": 0},  # an OCI runtime is given what the names below mean in the mounted root
            "args": list(params.args),
            "env": _environment(params),
            "cwd": params.cwd,
            "capabilities": {"bounding": prefixed, "effective": prefixed, "permitted": prefixed},
            "noNewPrivileges": security.no_new_privileges,
            **({"apparmorProfile": params.apparmor_profile} if params.apparmor_profile else {}),
            "oomScoreAdj": params.oom_score_adj,
            "rlimits": rlimits(params.ulimits),
        },
        "root": {"path": "rootfs", "readonly": params.read_only},
        "hostname": params.hostname,
        **({"domainname": params.domainname} if params.domainname else {}),
        "mounts": mounts(params, params.mounts),
        "annotations": dict(params.annotations),
        "linux": {
            "namespaces": spaces.namespaces(params, params.network, params.join, user=params.id_maps is not None),
            **_id_mappings(params.id_maps),
            "maskedPaths": [] if bare else _paths(params.masked_paths, MASKED_PATHS),
            "readonlyPaths": [] if bare else _paths(params.readonly_paths, READONLY_PATHS),
            "cgroupsPath": cgroups_path(params.container_id, params.cgroup_parent),
            "sysctl": spaces.sysctls(params, params.network),
            "devices": [node.document() for node in params.device_nodes],
            "resources": resources(params, params.device_nodes, params.device_numbers),
            **({"seccomp": seccomp_document} if seccomp_document is not None else {}),
        },
        "workbench": {
            "version": SPEC_VERSION,
            "id": params.container_id,
            "user": params.user,
            "group_add": list(params.group_add),
            "lowers": list(params.lowers),
            "upper": params.upper,
            "work": params.work,
            "volatile": params.volatile,
            "stdio": params.stdio,
            "tty_size": list(params.tty_size),
            "open_stdin": params.open_stdin,
            "log": params.log_path,
            "life": dict(params.life),
            "clean_stubs": params.clean_stubs,
            "privileged": params.privileged,
            "init": params.init,
            "seccomp": base64.b64encode(seccomp_program).decode() if seccomp_program else "",
            "join": {kind: [join.pid, join.start] for kind, join in params.join.items()},
            "share_shm": spaces.shm_of(params),
            "network": dict(params.network_section) if params.network == "bridge" else {},
            **({"runtime": foreign} if foreign else {}),
        },
    }
