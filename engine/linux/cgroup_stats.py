"""What a control group has used, in one shape for both versions (Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from engine.linux.cgroup import Cgroup

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_PAGE_COUNTER_MAX = 1 << 62  # what v1 shows for "no limit" is near 2^63, rounded to pages


@dataclass(frozen=True, slots=True)
class GroupStats:
    """Times in ns, sizes in bytes, limits 0 for none. `block` is (major, minor, "read" or "write") → (bytes, operations)."""

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_kernel: int = 0
    cpu_each: tuple[int, ...] = ()  # v1 only
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    memory: int = 0
    memory_max: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_limit: int = 0
    block: dict[tuple[int, int, str], tuple[int, int]] = field(default_factory=dict)


def read(group: Cgroup) -> GroupStats:
    """Missing files are zeros: a controller that this host does not have."""
    return _read_v2(group.directories[""]) if group.v2 and "" in group.directories else _read_v1(group)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _number(path: Path) -> int:
    """0 for "max", for v1's nearly 2^63, and where there is none."""
    text = _text(path).strip()
    value = int(text) if text.isdigit() else 0
    return 0 if value >= _PAGE_COUNTER_MAX else value


def _pairs(path: Path) -> dict[str, int]:
    found = {}
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def _read_v1(group: Cgroup) -> GroupStats:
    def of(name: str) -> Path:
        return group.directories.get(name, Path("/nonexistent"))

    times, throttle = _pairs(of("cpuacct") / "cpuacct.stat"), _pairs(of("cpu") / "cpu.stat")
    return GroupStats(
        cpu_total=_number(of("cpuacct") / "cpuacct.usage"),
        cpu_user=times.get("user", 0) * _TICK,
        cpu_kernel=times.get("system", 0) * _TICK,
        cpu_each=tuple(int(word) for word in _text(of("cpuacct") / "cpuacct.usage_percpu").split()),
        periods=throttle.get("nr_periods", 0),
        throttled_periods=throttle.get("nr_throttled", 0),
        throttled_time=throttle.get("throttled_time", 0),
        memory=_number(of("memory") / "memory.usage_in_bytes"),
        memory_max=_number(of("memory") / "memory.max_usage_in_bytes"),
        memory_limit=_number(of("memory") / "memory.limit_in_bytes"),
        memory_failures=_number(of("memory") / "memory.failcnt"),
        memory_stat=_pairs(of("memory") / "memory.stat"),
        pids=_number(of("pids") / "pids.current"),
        pids_limit=_number(of("pids") / "pids.max"),
        block=_block_v1(of("blkio")),
    )


def _block_v1(folder: Path) -> dict[tuple[int, int, str], tuple[int, int]]:
    """BFQ's counters where that scheduler runs, else the throttle's; with everything below the group."""
    found: dict[tuple[int, int, str], list[int]] = {}
    for kind in ("bfq", "throttle"):
        for index, name in enumerate(("io_service_bytes_recursive", "io_serviced_recursive")):
            for line in _text(folder / f"blkio.{kind}.{name}").splitlines():
                words = line.split()
                if len(words) == 3 and words[1] in ("Read", "Write"):
                    major, minor = words[0].split(":")
                    found.setdefault((int(major), int(minor), words[1].lower()), [0, 0])[index] = int(words[2])
        if found:
            break
    return {key: (value[0], value[1]) for key, value in found.items()}


def _read_v2(folder: Path) -> GroupStats:
    cpu, memory = _pairs(folder / "cpu.stat"), _pairs(folder / "memory.stat")
    events = _pairs(folder / "memory.events")
    return GroupStats(
        cpu_total=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_kernel=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_usec", 0) * 1000,
        memory=_number(folder / "memory.current"),
        memory_max=_number(folder / "memory.peak"),
        memory_limit=_number(folder / "memory.max"),
        memory_failures=events.get("max", 0),
        memory_stat=memory,
        pids=_number(folder / "pids.current"),
        pids_limit=_number(folder / "pids.max"),
        block=_block_v2(folder),
    )


def _block_v2(folder: Path) -> dict[tuple[int, int, str], tuple[int, int]]:
    found = {}
    for line in _text(folder / "io.stat").splitlines():
        device, *words = line.split()
        major, colon, minor = device.partition(":")
        values = dict(word.split("=", 1) for word in words if "=" in word)
        if not colon:
            continue
        for letter, name in (("r", "read"), ("w", "write")):
            count = int(values.get(f"{letter}bytes", 0)), int(values.get(f"{letter}ios", 0))
            found[int(major), int(minor), name] = count
    return found


def working_set(memory: int, stat: dict[str, int], *, v2: bool) -> int:
    """Memory without the page cache that the kernel would give up first: Docker's "MEM USAGE"."""
    cache = stat.get("inactive_file", 0) if v2 else stat.get("total_inactive_file", 0)
    return memory - cache if cache < memory else memory
