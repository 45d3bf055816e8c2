"""How much a running container uses: its control group, its network devices, and the host for comparison."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

from engine.linux import cgroup_stats
from engine.linux.cgroup import Cgroup
from engine.model import BlockCounter, ContainerStats, CpuStats, MemoryStats, NetworkCounter

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")


def sample(container_id: str, name: str, group: Cgroup, pid: int, *, own_network: bool) -> ContainerStats:
    """One reading. `pid` is the container's first process, whose network devices are counted when they are its own."""
    used = cgroup_stats.read(group)
    system, online = host_cpu(_read("/proc/stat"))
    total = host_memory()
    limit = used.memory_limit if 0 < used.memory_limit < total else total
    cpu = CpuStats(
        used.cpu_total, used.cpu_user, used.cpu_kernel, used.cpu_each, system, online,
        used.periods, used.throttled_periods, used.throttled_time,
    )  # fmt: skip
    memory = MemoryStats(
        used.memory,
        cgroup_stats.working_set(used.memory, used.memory_stat, v2=group.v2),
        used.memory_max,
        limit,
        used.memory_failures,
        used.memory_stat,
    )
    block = tuple(
        BlockCounter(major, minor, kind, size, count) for (major, minor, kind), (size, count) in used.block.items()
    )
    networks = network_counters(_read(f"/proc/{pid}/net/dev")) if own_network else {}
    return ContainerStats(
        container_id, name, time.time_ns(), cpu, memory, networks, block, used.pids, used.pids_limit, group.v2
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def host_cpu(stat: str) -> tuple[int, int]:
    """(ns that all CPUs have lived, number of CPUs): /proc/stat, the seven fields that Docker adds up."""
    lines = stat.splitlines()
    whole = next((line.split()[1:8] for line in lines if line.startswith("cpu ")), [])
    online = sum(line[:3] == "cpu" and line[3:4].isdigit() for line in lines)
    return sum(map(int, whole)) * _TICK, online


@functools.cache
def host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def network_counters(text: str) -> dict[str, NetworkCounter]:
    """/proc/PID/net/dev without the loopback (proc_pid_net(5))."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = [int(word) for word in rest.split()]
        if name.strip() != "lo" and len(values) >= 12:
            found[name.strip()] = NetworkCounter(*values[:4], *values[8:12])
    return found
