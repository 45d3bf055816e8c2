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

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SPEC_VERSION = 1

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
class BindMount:
    """A host path shown in the container. `recursive` takes the mounts below it along."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class SpecParams:
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
    mounts: Sequence[BindMount] = ()  # also resolv.conf, hosts, hostname
    tty: bool = False
    tty_size: tuple[int, int] = (0, 0)  # rows, columns
    open_stdin: bool = False  # a pipe that attached clients write to; otherwise /dev/null
    stdio: Literal["log", "fds"] = "log"  # "fds": what the starter passes (build steps)
    log_path: str = ""
    read_only: bool = False
    no_new_privileges: bool = False
    privileged: bool = False
    seccomp: bool = True
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    memory: int = 0  # bytes
    memory_swap: int = 0  # memory plus swap, 0: twice the memory
    cpus: float = 0.0
    pids_limit: int = 0
    network: Literal["host", "none"] = "host"
    clean_stubs: bool = False  # take the engine's mount points out of the upper directory afterwards
    shm_size: int = 64 * 1024 * 1024
    oom_score_adj: int = 0
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # "NOFILE": (soft, hard)
    masked_paths: Sequence[str] = MASKED_PATHS
    readonly_paths: Sequence[str] = READONLY_PATHS


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
    if privileged:
        return list(everything)
    added, dropped = known(add, "--cap-add"), known(drop, "--cap-drop")
    base = set(everything) if "ALL" in added else set(capability.DEFAULT)
    if "ALL" in dropped:
        base = set(everything) if "ALL" in added else set()
    result = (base - dropped) | (added - {"ALL"})
    return [name for name in everything if name in result]


def _check_text(what: str, text: str) -> None:
    if any(c in text for c in "\0\n\r"):
        raise InvalidInput(f"{what} {text!r} holds a control character")


def _environment(params: SpecParams) -> list[str]:
    given = [entry for entry in params.env if "=" in entry]
    names = {entry.partition("=")[0] for entry in given}
    for entry in given:
        if "\0" in entry:
            raise InvalidInput(f"environment variable {entry.partition('=')[0]!r} holds a NUL character")
    first = [] if "PATH" in names else [f"PATH={DEFAULT_PATH}"]
    if "HOSTNAME" not in names and params.hostname:
        first.append(f"HOSTNAME={params.hostname}")
    if params.tty and "TERM" not in names:
        first.append("TERM=xterm")
    return first + given


def _mounts(params: SpecParams) -> list[dict[str, Any]]:
    def entry(target: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
        return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}

    quiet = ("nosuid", "noexec", "nodev")
    writable = params.privileged
    result = [
        entry("/proc", "proc", *quiet),
        entry("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k", source="tmpfs"),
        entry("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        entry("/sys", "sysfs", *quiet, *(() if writable else ("ro",))),
        entry("/sys/fs/cgroup", "cgroup", *quiet, *(() if writable else ("ro",))),
        entry("/dev/mqueue", "mqueue", *quiet),
        entry("/dev/shm", "tmpfs", *quiet, "mode=1777", f"size={params.shm_size}", source="shm"),
    ]
    for mount in params.mounts:
        _check_text("mount target", mount.target)
        if not mount.target.startswith("/"):
            raise InvalidInput(f"mount target {mount.target!r} is not an absolute path")
        options = ("rbind" if mount.recursive else "bind", "rprivate", "ro" if mount.read_only else "rw")
        result.append(entry(mount.target, "bind", *options, source=mount.source))
    return result


def make_spec(params: SpecParams, *, seccomp_program: bytes | None = None) -> dict[str, Any]:
    """The document. `seccomp_program` is a compiled filter; None: the default one (compiled once per set)."""
    if not params.args:
        raise InvalidInput("no command specified", hint="give a command, or set CMD or ENTRYPOINT in the image")
    for argument in params.args:
        if "\0" in argument:
            raise InvalidInput(f"the command's argument {argument!r} holds a NUL character")
    for what, text in (("user", params.user), ("hostname", params.hostname), ("working directory", params.cwd)):
        _check_text(what, text)
    if not params.cwd.startswith("/"):
        raise InvalidInput(f"working directory {params.cwd!r} is not an absolute path")
    caps = capability_names(add=params.cap_add, drop=params.cap_drop, privileged=params.privileged)
    if seccomp_program is None and params.seccomp and not params.privileged:
        from engine.runtime import seccomp  # the compiler is not needed by the supervisor

        seccomp_program = seccomp.default_program(frozenset(caps))
    spaces = ["mount", "pid", "uts", "ipc", "cgroup", *(["network"] if params.network == "none" else [])]
    prefixed = [f"CAP_{name}" for name in caps]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": params.tty,
            "args": list(params.args),
            "env": _environment(params),
            "cwd": params.cwd,
            "capabilities": {"bounding": prefixed, "effective": prefixed, "permitted": prefixed},
            "noNewPrivileges": params.no_new_privileges,
            "oomScoreAdj": params.oom_score_adj,
            "rlimits": [{"type": f"RLIMIT_{k}", "soft": s, "hard": h} for k, (s, h) in params.rlimits.items()],
        },
        "root": {"path": "rootfs", "readonly": params.read_only},
        "hostname": params.hostname,
        "mounts": _mounts(params),
        "linux": {
            "namespaces": [{"type": kind} for kind in spaces],
            "maskedPaths": [] if params.privileged else list(params.masked_paths),
            "readonlyPaths": [] if params.privileged else list(params.readonly_paths),
            "cgroupsPath": f"workbench/{params.container_id}",
            "sysctl": _sysctls(params),
            "resources": _resources(params),
        },
        "workbench": {
            "version": SPEC_VERSION,
            "id": params.container_id,
            "user": params.user,
            "lowers": list(params.lowers),
            "upper": params.upper,
            "work": params.work,
            "volatile": params.volatile,
            "stdio": params.stdio,
            "tty_size": list(params.tty_size),
            "open_stdin": params.open_stdin,
            "log": params.log_path,
            "clean_stubs": params.clean_stubs,
            "privileged": params.privileged,
            "seccomp": base64.b64encode(seccomp_program).decode() if seccomp_program else "",
        },
    }


def _sysctls(params: SpecParams) -> dict[str, str]:
    if params.network != "none":  # they would be the host's (CVE-2022-0811's kin)
        return {}
    return {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}


def _resources(params: SpecParams) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if params.memory:
        result["memory"] = {"limit": params.memory, "swap": params.memory_swap or params.memory * 2}
    if params.cpus:
        result["cpu"] = {"quota": max(int(params.cpus * 100_000), 1000), "period": 100_000}
    if params.pids_limit > 0:
        result["pids"] = {"limit": params.pids_limit}
    return result
