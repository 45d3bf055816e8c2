"""OCI's `linux.resources` as what is written into a control group's files. Pure: the plan; `cgroup` performs it.

v1: Documentation/admin-guide/cgroup-v1. v2: Documentation/admin-guide/cgroup-v2.rst, and the conversions that the OCI
runtimes agree on (shares to weight: crun 1.23, runc 1.3.2; block I/O weight: runc's ConvertBlkIOToIOWeight).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Write:
    """`value` into `file` of `controller`'s directory ("" on v2). A file in `instead` is taken where it exists.

    `need` False: without the file the limit is left out silently (swap accounting that the kernel was not built with).
    """

    controller: str
    file: str
    value: str
    what: str
    need: bool = True
    instead: tuple[tuple[str, str], ...] = ()  # (file, value)


def _number(value: int) -> str:
    return "max" if value < 0 else str(value)


def plan_v1(resources: dict[str, Any]) -> list[Write]:
    memory, cpu = resources.get("memory", {}), resources.get("cpu", {})
    plan = []
    # The total with swap must never be below the memory: whoever performs this tries the other order on EINVAL.
    if "limit" in memory:
        plan.append(Write("memory", "memory.limit_in_bytes", str(memory["limit"]), "memory"))
    if "swap" in memory:
        plan.append(Write("memory", "memory.memsw.limit_in_bytes", str(memory["swap"]), "swap", need=False))
    if "reservation" in memory:
        plan.append(Write("memory", "memory.soft_limit_in_bytes", str(memory["reservation"]), "memory reservation"))
    if "swappiness" in memory:
        plan.append(Write("memory", "memory.swappiness", str(memory["swappiness"]), "memory swappiness"))
    if memory.get("disableOOMKiller"):
        plan.append(Write("memory", "memory.oom_control", "1", "the out-of-memory killer"))
    for key, file, what in (
        ("period", "cpu.cfs_period_us", "cpu"),
        ("quota", "cpu.cfs_quota_us", "cpu"),
        ("shares", "cpu.shares", "cpu shares"),
        ("realtimePeriod", "cpu.rt_period_us", "real-time period"),
        ("realtimeRuntime", "cpu.rt_runtime_us", "real-time runtime"),
    ):
        if key in cpu:
            plan.append(Write("cpu", file, str(cpu[key]), what))
    for key, file, what in (("cpus", "cpuset.cpus", "cpus"), ("mems", "cpuset.mems", "memory nodes")):
        if key in cpu:
            plan.append(Write("cpuset", file, cpu[key], what))
    if "pids" in resources:
        plan.append(Write("pids", "pids.max", _number(resources["pids"]["limit"]), "pids"))
    return plan + list(_block_v1(resources.get("blockIO", {})))


def _block_v1(block: dict[str, Any]) -> Iterator[Write]:
    if "weight" in block:
        weight = str(block["weight"])
        bfq = (("blkio.bfq.weight", weight),)
        yield Write("blkio", "blkio.weight", weight, "block I/O weight", instead=bfq)
    for entry in block.get("weightDevice", ()):
        value = f"{entry['major']}:{entry['minor']} {entry['weight']}"
        bfq = (("blkio.bfq.weight_device", value),)
        yield Write("blkio", "blkio.weight_device", value, "block I/O weight of a device", instead=bfq)
    for key, file in (
        ("throttleReadBpsDevice", "read_bps_device"),
        ("throttleWriteBpsDevice", "write_bps_device"),
        ("throttleReadIOPSDevice", "read_iops_device"),
        ("throttleWriteIOPSDevice", "write_iops_device"),
    ):
        for entry in block.get(key, ()):
            value = f"{entry['major']}:{entry['minor']} {entry['rate']}"
            yield Write("blkio", f"blkio.throttle.{file}", value, "block I/O rate")


def cpu_weight(shares: int) -> int:
    """1 to 10000 for 2 to 262144, so that the defaults (1024 and 100) and both ends meet."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """1 to 10000 for v1's 10 to 1000."""
    return 1 + (weight - 10) * 9999 // 990


def plan_v2(
    resources: dict[str, Any], *, current_memory: int = 0, current_cpu: tuple[str, int] = ("max", 100_000)
) -> list[Write]:
    """`current_*` are in force already: an update may change the half of what one file holds."""
    memory, cpu = resources.get("memory", {}), resources.get("cpu", {})
    plan = []
    if "limit" in memory:
        plan.append(Write("", "memory.max", _number(memory["limit"]), "memory"))
    limit = memory.get("limit", current_memory)
    if "swap" in memory and (memory["swap"] < 0 or limit > 0):
        swap = -1 if memory["swap"] < 0 else max(memory["swap"] - limit, 0)
        plan.append(Write("", "memory.swap.max", _number(swap), "swap", need=False))
    if "reservation" in memory:
        plan.append(Write("", "memory.low", _number(memory["reservation"]), "memory reservation"))
    if "shares" in cpu:
        plan.append(Write("", "cpu.weight", str(cpu_weight(cpu["shares"])), "cpu shares"))
    if "quota" in cpu or "period" in cpu:
        quota = _number(cpu["quota"]) if "quota" in cpu else current_cpu[0]
        plan.append(Write("", "cpu.max", f"{quota} {cpu.get('period', current_cpu[1])}", "cpu"))
    if "cpus" in cpu:
        plan.append(Write("", "cpuset.cpus", cpu["cpus"], "cpus"))
    if "mems" in cpu:
        plan.append(Write("", "cpuset.mems", cpu["mems"], "memory nodes"))
    if "pids" in resources:
        plan.append(Write("", "pids.max", _number(resources["pids"]["limit"]), "pids"))
    return plan + list(_block_v2(resources.get("blockIO", {})))


def _block_v2(block: dict[str, Any]) -> Iterator[Write]:
    if "weight" in block:
        bfq = (("io.bfq.weight", str(block["weight"])),)
        yield Write("", "io.weight", f"default {io_weight(block['weight'])}", "block I/O weight", instead=bfq)
    for entry in block.get("weightDevice", ()):
        device = f"{entry['major']}:{entry['minor']}"
        bfq = (("io.bfq.weight", f"{device} {entry['weight']}"),)
        value = f"{device} {io_weight(entry['weight'])}"
        yield Write("", "io.weight", value, "block I/O weight of a device", instead=bfq)
    for key, word in (
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ):
        for entry in block.get(key, ()):
            yield Write("", "io.max", f"{entry['major']}:{entry['minor']} {word}={entry['rate']}", "block I/O rate")


def not_on_v2(resources: dict[str, Any]) -> list[str]:
    """What v2 has no file for, each in a sentence."""
    memory = resources.get("memory", {})
    notes = []
    if "swappiness" in memory:
        notes.append("memory swappiness cannot be set for a container on cgroup v2: it is the host's")
    if memory.get("disableOOMKiller"):
        notes.append("the out-of-memory killer cannot be switched off on cgroup v2")
    return notes
