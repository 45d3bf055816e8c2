"""Limits and devices as OCI's `linux.resources`, `process.rlimits` and `linux.devices`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidInput
from engine.model import DeviceLimit, HostConfig, Resources, Ulimit

# setrlimit(2), by Docker's names.
RLIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_INFINITY = (1 << 64) - 1
MIN_MEMORY = 6 << 20

# moby's defaults and runc's AllowedDevices: mknod of anything, use of the harmless ones.
_DEFAULT_RULES = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm",
    "c 5:2 rwm", "c 136:* rwm",
)  # fmt: skip
_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device as the host has it, and where and how the container gets it."""

    path: str  # in the container
    kind: str  # "c" or "b"
    major: int
    minor: int
    mode: int  # permission bits
    uid: int = 0
    gid: int = 0
    access: str = "rwm"
    host: str = ""  # where the host has it, for who may make no nodes

    def document(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "type": self.kind,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            **({"hostPath": self.host} if self.host else {}),
        }


def device_rule(text: str) -> dict[str, Any]:
    """`c 1:3 rwm` (a, c or b; `*` is any number) as OCI has it. Raises InvalidInput."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"invalid device cgroup format {text!r}", hint="write it as 'c 1:3 rwm' or 'b 8:* r'")
    kind, major, minor, access = match.groups()
    result: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major != "*":
        result["major"] = int(major)
    if minor != "*":
        result["minor"] = int(minor)
    return result


def device_rules(host: HostConfig, nodes: Sequence[DeviceNode]) -> list[dict[str, Any]]:
    """Deny all first, then what is allowed (GO-2022-0396): rules in force in this order, the last match wins."""
    if host.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [device_rule(text) for text in _DEFAULT_RULES]
    for node in nodes:
        rules.append(
            {"allow": True, "type": node.kind, "major": node.major, "minor": node.minor, "access": node.access}
        )
    return rules + [device_rule(text) for text in host.device_cgroup_rules]


def rlimits(limits: Sequence[Ulimit]) -> list[dict[str, Any]]:
    """OCI's `rlimits`. Raises InvalidInput."""
    result = []
    for limit in limits:
        if limit.name not in RLIMITS:
            raise InvalidInput(f"invalid ulimit type: {limit.name}", hint=", ".join(RLIMITS))
        soft, hard = (value if value >= 0 else _INFINITY for value in (limit.soft, limit.hard))
        if soft > hard:
            raise InvalidInput(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
        result.append({"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard})
    return result


def resources(
    host: HostConfig, nodes: Sequence[DeviceNode] = (), numbers: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Any]:
    """OCI's `resources`. Raises InvalidInput."""
    return {**limits(host, numbers or {}), "devices": device_rules(host, nodes)}


def limits(wanted: Resources, numbers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The part of `resources` that `update` can change; what is not set is left out. Raises InvalidInput."""
    check(wanted)
    result: dict[str, Any] = {}
    memory = _memory(wanted)
    if memory:
        result["memory"] = memory
    cpu = _cpu(wanted)
    if cpu:
        result["cpu"] = cpu
    if wanted.pids_limit:
        result["pids"] = {"limit": max(wanted.pids_limit, -1)}
    block = _block(wanted, numbers)
    if block:
        result["blockIO"] = block
    return result


def check(wanted: Resources) -> None:
    """Docker's rules for the numbers. Raises InvalidInput in its words."""
    if wanted.memory < 0 or 0 < wanted.memory < MIN_MEMORY:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if wanted.memory_reservation < 0 or 0 < wanted.memory_reservation < MIN_MEMORY:
        raise InvalidInput("Minimum memory reservation allowed is 6MB")
    if wanted.memory_swap < -1:
        raise InvalidInput(
            f"Invalid value: {wanted.memory_swap}, memory and swap together are -1 for no limit, or bytes"
        )
    if wanted.memory_swap > 0 and not wanted.memory:
        raise InvalidInput("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < wanted.memory_swap < wanted.memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < wanted.memory < wanted.memory_reservation:
        raise InvalidInput("Minimum memory limit can not be less than memory reservation limit, see usage")
    if not -1 <= wanted.memory_swappiness <= 100:
        raise InvalidInput(f"Invalid value: {wanted.memory_swappiness}, valid memory swappiness range is 0-100")
    if wanted.cpus and (wanted.cpu_period or wanted.cpu_quota):
        raise InvalidInput(
            f"Conflicting options: Nano CPUs and CPU {'Period' if wanted.cpu_period else 'Quota'} cannot both be set"
        )
    if wanted.cpus < 0 or 0 < wanted.cpus < 0.01:
        raise InvalidInput(f"--cpus {wanted.cpus}: the least is 0.01")
    if wanted.cpu_period and not 1000 <= wanted.cpu_period <= 1_000_000:
        raise InvalidInput("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < wanted.cpu_quota < 1000:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if wanted.cpu_rt_period < 0 or wanted.cpu_rt_runtime < 0:
        raise InvalidInput("cpu real-time period and runtime cannot be negative")
    if wanted.cpu_rt_period and wanted.cpu_rt_runtime > wanted.cpu_rt_period:
        raise InvalidInput("cpu real-time runtime cannot be higher than cpu real-time period")
    if wanted.cpu_shares < 0 or wanted.cpu_shares == 1:
        raise InvalidInput("the minimum allowed cpu-shares is 2")
    if wanted.blkio_weight and not 10 <= wanted.blkio_weight <= 1000:
        raise InvalidInput("Range of blkio weight is from 10 to 1000")
    for device in wanted.blkio_weight_device:
        if not 10 <= device.rate <= 1000:
            raise InvalidInput(f"Range of blkio weight is from 10 to 1000, not {device.rate} ({device.path})")
    for device in _rates(wanted):
        if device.rate < 0:
            raise InvalidInput(f"a rate cannot be negative: {device.rate} ({device.path})")
    for text, flag in ((wanted.cpuset_cpus, "cpuset-cpus"), (wanted.cpuset_mems, "cpuset-mems")):
        if text and not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", text):
            raise InvalidInput(f"Invalid value {text} for --{flag}", hint="write 0-2 or 0,3")


def _memory(wanted: Resources) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if wanted.memory:
        memory["limit"] = wanted.memory
        memory["swap"] = wanted.memory_swap or wanted.memory * 2
    elif wanted.memory_swap:
        memory["swap"] = wanted.memory_swap
    if wanted.memory_reservation:
        memory["reservation"] = wanted.memory_reservation
    if wanted.memory_swappiness >= 0:
        memory["swappiness"] = wanted.memory_swappiness
    if wanted.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(wanted: Resources) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if wanted.cpus:
        cpu["period"], cpu["quota"] = 100_000, int(wanted.cpus * 100_000)
    if wanted.cpu_period:
        cpu["period"] = wanted.cpu_period
    if wanted.cpu_quota:
        cpu["quota"] = wanted.cpu_quota
    if wanted.cpu_rt_period:
        cpu["realtimePeriod"] = wanted.cpu_rt_period
    if wanted.cpu_rt_runtime:
        cpu["realtimeRuntime"] = wanted.cpu_rt_runtime
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    return cpu


def _block(wanted: Resources, numbers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    def devices(entries: Sequence[DeviceLimit], key: str) -> list[dict[str, Any]]:
        found = []
        for entry in entries:
            major, minor = numbers[entry.path]
            found.append({"major": major, "minor": minor, key: entry.rate})
        return found

    block: dict[str, Any] = {"weight": wanted.blkio_weight} if wanted.blkio_weight else {}
    for name, entries, key in (
        ("weightDevice", wanted.blkio_weight_device, "weight"),
        ("throttleReadBpsDevice", wanted.blkio_device_read_bps, "rate"),
        ("throttleWriteBpsDevice", wanted.blkio_device_write_bps, "rate"),
        ("throttleReadIOPSDevice", wanted.blkio_device_read_iops, "rate"),
        ("throttleWriteIOPSDevice", wanted.blkio_device_write_iops, "rate"),
    ):
        if entries:
            block[name] = devices(entries, key)
    return block


def limited_devices(wanted: Resources) -> list[str]:
    """The host paths whose device numbers `limits` needs."""
    return [entry.path for entry in (*wanted.blkio_weight_device, *_rates(wanted))]


def _rates(wanted: Resources) -> tuple[DeviceLimit, ...]:
    return (
        *wanted.blkio_device_read_bps,
        *wanted.blkio_device_write_bps,
        *wanted.blkio_device_read_iops,
        *wanted.blkio_device_write_iops,
    )
