"""`run` and `create`: the flags of isolation and limits, and those of `update`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.base.units import parse_size
from engine.cli.flags import Flag, Parsed
from engine.errors import InvalidInput, NotFound, Unsupported
from engine.model import Device, DeviceLimit, Ulimit

LIMIT_FLAGS = [
    Flag("memory", "Memory limit", "m", kind="str", metavar="bytes"),
    Flag("memory-swap", "Memory plus swap: -1 for unlimited swap", kind="str", metavar="bytes"),
    Flag("memory-reservation", "Memory soft limit", kind="str", metavar="bytes"),
    Flag("cpus", "Number of CPUs", kind="float"),
    Flag("cpu-shares", "CPU shares (relative weight)", "c", kind="int"),
    Flag("cpu-period", "Length of a CPU CFS period in microseconds", kind="int"),
    Flag("cpu-quota", "CPU time in a period in microseconds", kind="int"),
    Flag("cpu-rt-period", "Period of the real-time scheduler in microseconds", kind="int"),
    Flag("cpu-rt-runtime", "Real-time CPU time in such a period in microseconds", kind="int"),
    Flag("cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)", kind="str"),
    Flag("cpuset-mems", "Memory nodes in which to allow execution (0-3, 0,1)", kind="str"),
    Flag("pids-limit", "Number of processes (-1 for unlimited)", kind="int"),
    Flag("blkio-weight", "Block I/O weight, 10 to 1000", kind="int"),
]

HOST_FLAGS = [
    *LIMIT_FLAGS,
    Flag("memory-swappiness", "Swappiness, 0 to 100 (cgroup v1)", kind="int"),
    Flag("oom-kill-disable", "Disable the out-of-memory killer (cgroup v1)"),
    Flag("oom-score-adj", "The host's preference in the out-of-memory killer, -1000 to 1000", kind="int"),
    Flag("blkio-weight-device", "Block I/O weight of a device: /dev/sda:500", kind="list"),
    Flag("device-read-bps", "Read rate of a device: /dev/sda:1mb", kind="list"),
    Flag("device-write-bps", "Write rate of a device: /dev/sda:1mb", kind="list"),
    Flag("device-read-iops", "Read operations a second of a device: /dev/sda:1000", kind="list"),
    Flag("device-write-iops", "Write operations a second of a device: /dev/sda:1000", kind="list"),
    Flag("cap-add", "Add Linux capabilities", kind="list"),
    Flag("cap-drop", "Drop Linux capabilities", kind="list"),
    Flag("privileged", "Give extended privileges to this container"),
    Flag("read-only", "Mount the container's root filesystem as read only"),
    Flag("security-opt", "no-new-privileges, seccomp=FILE|unconfined, apparmor=NAME, systempaths=unconfined", kind="list"),
    Flag("device", "Add a host device: /dev/x[:/dev/y[:rwm]]", kind="list"),
    Flag("device-cgroup-rule", "Add a rule to the allowed devices: 'c 1:3 rwm'", kind="list"),
    Flag("gpus", "GPU devices (not supported)", kind="str"),
    Flag("group-add", "Add additional groups to join", kind="list"),
    Flag("tmpfs", "Mount a tmpfs: /path[:size=64m,mode=1777]", kind="list"),
    Flag("shm-size", "Size of /dev/shm", kind="str", metavar="bytes"),
    Flag("sysctl", "Namespaced kernel parameter: net.ipv4.ip_forward=1", kind="list"),
    Flag("ulimit", "Ulimit: nofile=1024[:2048]", kind="list"),
    Flag("init", "Run a small init in the container that forwards signals and reaps processes"),
    Flag("pid", "PID namespace: host, container:NAME", kind="str"),
    Flag("ipc", "IPC namespace: none, private, shareable, host, container:NAME", kind="str"),
    Flag("uts", "UTS namespace: host", kind="str"),
    Flag("cgroupns", "Cgroup namespace: host, private", kind="str"),
    Flag("userns", "User namespace: host", kind="str"),
    Flag("cgroup-parent", "Parent cgroup of the container's", kind="str"),
    Flag("storage-opt", "Storage driver options (not supported)", kind="list"),
    Flag("annotation", "Add an annotation to the container (passed to the OCI runtime)", kind="list"),
    Flag("runtime", "Runtime to use for this container: native, runc, crun, a name of the settings, a path", kind="str"),
]  # fmt: skip


def limit_values(parsed: Parsed) -> dict[str, Any]:
    """The fields of `engine.model.Resources` that `run` and `update` share. Raises InvalidInput."""
    values: dict[str, Any] = {}
    for name in ("memory", "memory-reservation"):
        if parsed.given(name):
            values[name.replace("-", "_")] = parsed.size(name)
    if parsed.given("memory-swap"):
        text = parsed.text("memory-swap")
        values["memory_swap"] = -1 if text == "-1" else parsed.size("memory-swap")
    for name in ("cpu-shares", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "blkio-weight"):
        if parsed.given(name):
            values[name.replace("-", "_")] = parsed.number(name)
    for name in ("cpuset-cpus", "cpuset-mems"):
        if parsed.given(name):
            values[name.replace("-", "_")] = parsed.text(name)
    if parsed.given("cpus"):
        values["cpus"] = float(parsed.text("cpus"))
    if parsed.given("pids-limit"):
        values["pids_limit"] = parsed.number("pids-limit") if parsed.number("pids-limit") > 0 else -1
    return values


def host_values(parsed: Parsed) -> dict[str, Any]:
    """The fields of `engine.model.HostConfig`. Raises InvalidInput, NotFound (a profile), Unsupported."""
    if parsed.given("gpus"):
        raise Unsupported(
            f"--gpus {parsed.text('gpus')}: could not select device driver with capabilities: [[gpu]]",
            hint="name the device nodes with --device, and mount the driver's libraries with -v",
        )
    if parsed.items("storage-opt"):
        raise Unsupported(
            "--storage-opt is not supported: a container's layer has no size limit of its own",
            hint="put what may grow on a volume, or on a --tmpfs with size=",
        )
    values = limit_values(parsed)
    for name in ("pid", "ipc", "uts", "cgroupns", "userns"):
        if parsed.given(name):
            values[f"{name}_mode"] = parsed.text(name)
    for name in ("cap-add", "cap-drop", "device-cgroup-rule", "group-add"):
        key = "device_cgroup_rules" if name == "device-cgroup-rule" else name.replace("-", "_")
        values[key] = tuple(parsed.items(name))
    for name in ("memory-swappiness", "oom-score-adj"):
        if parsed.given(name):
            values[name.replace("-", "_")] = parsed.number(name)
    for name in ("device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops"):
        values[f"blkio_{name.replace('-', '_')}"] = _rates(parsed.items(name), name)
    if parsed.given("shm-size"):
        values["shm_size"] = parsed.size("shm-size")
    return {
        **values,
        "blkio_weight_device": _rates(parsed.items("blkio-weight-device"), "blkio-weight-device"),
        "oom_kill_disable": parsed.on("oom-kill-disable"),
        "privileged": parsed.on("privileged"),
        "read_only": parsed.on("read-only"),
        "init": parsed.on("init"),
        "cgroup_parent": parsed.text("cgroup-parent"),
        "security_opt": tuple(_security(option) for option in parsed.items("security-opt")),
        "devices": tuple(device(text) for text in parsed.items("device")),
        "tmpfs": dict(text.partition(":")[::2] for text in parsed.items("tmpfs")),
        "sysctls": _pairs(parsed.items("sysctl"), "sysctl"),
        "annotations": _pairs(parsed.items("annotation"), "annotation"),
        "ulimits": tuple(ulimit(text) for text in parsed.items("ulimit")),
    }


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidInput(f"--{flag} {text!r} is not KEY=VALUE")
        found[key] = value
    return found


def _rates(texts: Sequence[str], flag: str) -> tuple[DeviceLimit, ...]:
    found = []
    for text in texts:
        path, colon, value = text.rpartition(":")
        if not colon or not path.startswith("/dev/") or not value:
            raise InvalidInput(
                f"--{flag}: bad format: {text}", hint="/dev/sda:1mb" if "bps" in flag else "/dev/sda:100"
            )
        if "bps" not in flag and not value.isdigit():
            raise InvalidInput(f"--{flag}: invalid rate for device: {text}", hint="a whole number")
        found.append(DeviceLimit(path, parse_size(value) if "bps" in flag else int(value)))
    return tuple(found)


def device(text: str) -> Device:
    """`/dev/x`, `/dev/x:/dev/y`, `/dev/x:rw`, `/dev/x:/dev/y:rw`. Raises InvalidInput."""
    parts = text.split(":")
    if not parts[0] or len(parts) > 3:
        raise InvalidInput(f"invalid device specification: {text}", hint="/dev/x[:/dev/y[:rwm]]")
    source, target, access = parts[0], "", "rwm"
    if len(parts) == 2 and re.fullmatch("[rwm]+", parts[1]):
        access = parts[1]
    elif len(parts) > 1:
        target = parts[1]
        if not target.startswith("/"):
            raise InvalidInput(f"{target} is not an absolute path", hint="/dev/x[:/dev/y[:rwm]]")
    if len(parts) == 3:
        access = parts[2]
        if not re.fullmatch("[rwm]+", access):
            raise InvalidInput(f"bad mode specified: {access}", hint="any of r, w and m")
    return Device(source, target, access)


def ulimit(text: str) -> Ulimit:
    """`nofile=1024`, `nofile=1024:2048`, `core=-1`. Raises InvalidInput."""
    name, equals, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    if not equals or not re.fullmatch(r"-?[0-9]+", soft) or (colon and not re.fullmatch(r"-?[0-9]+", hard)):
        raise InvalidInput(f"invalid ulimit argument: {text}", hint="nofile=1024:2048")
    return Ulimit(name, int(soft), int(hard) if colon else int(soft))


def _security(option: str) -> str:
    """A profile's file is read here, where the user is, and travels as its content (as Docker's command line does)."""
    name, equals, value = option.partition("=")
    if (
        name != "seccomp"
        or not equals
        or value in ("unconfined", "builtin", "default")
        or value.lstrip().startswith("{")
    ):
        return option
    try:
        return f"seccomp={Path(value).read_text(encoding='utf-8')}"
    except FileNotFoundError:
        raise NotFound(f"opening seccomp profile ({value}) failed: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"opening seccomp profile ({value}) failed: {error}") from None
