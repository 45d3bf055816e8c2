"""What a container's configuration means on this host: device nodes and numbers."""

from __future__ import annotations

import os

from engine.errors import InvalidInput, NotFound, Unsupported
from engine.linux import apparmor, cgroup, devices, idmap
from engine.model import Device, HostConfig, Resources
from engine.runtime.spec_resources import DeviceNode, limited_devices
from engine.runtime.spec_security import parse_security_options
from engine.service import apparmor_profile as apparmor_profiles


def device_nodes(host: HostConfig) -> tuple[DeviceNode, ...]:
    """`--device` and `--privileged` as nodes. Raises InvalidInput, NotFound."""
    if host.privileged:
        return tuple(_node(found, found.path, "rwm") for found in devices.all_devices())
    nodes: list[DeviceNode] = []
    for wanted in host.devices:
        nodes += _named(wanted)
    return tuple(nodes)


def _named(wanted: Device) -> list[DeviceNode]:
    source, target = wanted.path_on_host, wanted.path_in_container or wanted.path_on_host
    access = wanted.cgroup_permissions or "rwm"
    if set(access) - set("rwm") or len(set(access)) != len(access):
        raise InvalidInput(f"invalid device mode: {access}", hint="any of r, w and m")
    if not target.startswith("/") or any(c in target for c in "\0\n\r") or ".." in target.split("/"):
        raise InvalidInput(f"device target {target!r} is not an absolute path")
    try:
        real = os.path.realpath(source, strict=True)
        if os.path.isdir(real):
            found = list(devices.devices_below(real))
            if not found:
                raise InvalidInput(f"no devices found in {source}")
            return [_node(one, target.rstrip("/") + one.path[len(real) :], access) for one in found]
        one = devices.device(real)
    except OSError as error:
        raise NotFound(
            f'error gathering device information while adding custom device "{source}": {error.strerror}'
        ) from None
    if one is None:
        raise InvalidInput(
            f'error gathering device information while adding custom device "{source}": not a device node'
        )
    return [_node(one, target, access)]


def _node(found: devices.HostDevice, path: str, access: str) -> DeviceNode:
    host = found.path if idmap.inside() else ""  # nodes cannot be made in a user namespace: the host's are shown
    return DeviceNode(path, found.kind, found.major, found.minor, found.mode, found.uid, found.gid, access, host)


def apparmor_profile(host: HostConfig) -> str:
    """The profile that a container runs under; "" where the host has no AppArmor. Raises Unsupported, NotFound."""
    wanted = parse_security_options(host.security_opt).apparmor
    if not apparmor.enabled():
        if wanted not in ("", "unconfined"):
            raise Unsupported(
                f"--security-opt apparmor={wanted}: this host does not run AppArmor",
                hint="leave it out, or boot with apparmor=1 security=apparmor",
            )
        return ""
    if wanted == "unconfined" or (host.privileged and not wanted):
        return "unconfined"
    name = wanted or apparmor_profiles.DEFAULT
    try:
        if apparmor.loaded(name):
            return name
        if name == apparmor_profiles.DEFAULT:
            apparmor_profiles.load_default()
            return name
    except OSError as error:
        raise Unsupported(
            f"AppArmor is on, and profile {name} cannot be loaded: {error.strerror}",
            hint="install the package apparmor, or use --security-opt apparmor=unconfined",
        ) from None
    raise NotFound(f"AppArmor profile {name} is not loaded", hint="load it first: apparmor_parser -r FILE")


def has_own_users(pid: int) -> bool:
    """Whether that process is in another user namespace than this one."""
    try:
        return os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    except OSError:
        return False


def check_limits(wanted: Resources) -> None:
    """What depends on this host's size. Raises InvalidInput in Docker's words."""
    count = os.cpu_count() or 1
    if wanted.cpus > count:
        raise InvalidInput(
            f"Range of CPUs is from 0.01 to {count:.2f}, as there are only {count} CPUs available", hint="--cpus"
        )
    if (wanted.cpu_rt_period or wanted.cpu_rt_runtime) and not _real_time():
        raise InvalidInput(
            "Your kernel does not support CPU real-time scheduler",
            hint="control groups of version 1 in a kernel with CONFIG_RT_GROUP_SCHED have it",
        )
    for text, words, path in (
        (wanted.cpuset_cpus, "CPUs", "/sys/devices/system/cpu/online"),
        (wanted.cpuset_mems, "memory nodes", "/sys/devices/system/node/online"),
    ):
        try:
            with open(path, encoding="ascii") as file:
                there = file.read().strip()
        except OSError:
            there = "0" if words == "memory nodes" else f"0-{count - 1}"
        if text and not _numbers(text) <= _numbers(there):
            raise InvalidInput(f"Requested {words} are not available - requested {text}, available: {there}")


def _real_time() -> bool:
    root = cgroup.here().roots.get("cpu")
    return root is not None and (root / "cpu.rt_runtime_us").exists()


def _numbers(text: str) -> set[int]:
    """`0-2,5` as a set."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found.update(range(int(first), min(int(last) if dash else int(first), 1 << 16) + 1))
    return found


def device_numbers(wanted: Resources) -> dict[str, tuple[int, int]]:
    """Of the block devices with a weight or a rate. Raises InvalidInput."""
    numbers = {}
    for path in limited_devices(wanted):
        try:
            found = devices.device(path)
        except OSError as error:
            raise InvalidInput(f"device {path}: {error.strerror}") from None
        if found is None or found.kind != "b":
            raise InvalidInput(f"{path} is not a block device", hint="limits are for whole disks, such as /dev/sda")
        numbers[path] = (found.major, found.minor)
    return numbers
