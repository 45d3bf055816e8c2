"""What a running container uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuStats:
    """Times in ns since the container started; `system` is what all CPUs of the host have lived."""

    total: int
    user: int
    kernel: int
    each: tuple[int, ...]  # per CPU; cgroup v1 only
    system: int
    online: int  # CPUs
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes. `used` is `usage` without the page cache that the kernel gives up first: what Docker shows."""

    usage: int
    used: int
    max_usage: int
    limit: int  # the host's memory when there is none
    failures: int
    stat: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NetworkCounter:
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class BlockCounter:
    major: int
    minor: int
    kind: str  # "read", "write"
    size: int  # bytes
    count: int  # operations


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """One reading of a running container. Two readings give the CPU's share (`cpu_percent`)."""

    id: str
    name: str
    time: int
    cpu: CpuStats
    memory: MemoryStats
    networks: Mapping[str, NetworkCounter]
    block: tuple[BlockCounter, ...]
    pids: int
    pids_limit: int  # 0 is none
    cgroup_v2: bool

    def cpu_percent(self, before: ContainerStats | None) -> float:
        """Docker's figure: 100 is one CPU. Without a reading before it is over the host's whole life."""
        used = self.cpu.total - (before.cpu.total if before else 0)
        system = self.cpu.system - (before.cpu.system if before else 0)
        return 100.0 * used / system * self.cpu.online if used > 0 and system > 0 else 0.0

    @property
    def memory_percent(self) -> float:
        return 100.0 * self.memory.used / self.memory.limit if self.memory.limit else 0.0

    def block_bytes(self, kind: str) -> int:
        return sum(one.size for one in self.block if one.kind == kind)


@dataclass(frozen=True, slots=True)
class HostStats:
    """One reading of the host that an engine is on. CPU times in ns, bytes for the rest; counters since it was started.
    `memory_used` is what is not available (proc_meminfo(5)); disks count whole ones, networks all but the loopback."""

    time: int
    cpu_busy: int
    cpu_all: int
    cpus: int
    memory_used: int
    memory_total: int
    received: int
    sent: int
    read: int
    written: int

    def cpu_percent(self, before: HostStats) -> float:
        """100 is one CPU."""
        whole = self.cpu_all - before.cpu_all
        return max(0.0, 100.0 * self.cpus * (self.cpu_busy - before.cpu_busy) / whole) if whole > 0 else 0.0

    def rates(self, before: HostStats) -> tuple[float, float, float, float]:
        """Received, sent, read and written, in bytes a second."""
        seconds = (self.time - before.time) / 1e9
        if seconds <= 0:
            return 0.0, 0.0, 0.0, 0.0
        pairs = (
            (self.received, before.received),
            (self.sent, before.sent),
            (self.read, before.read),
            (self.written, before.written),
        )
        received, sent, read, written = (max(0, now - then) / seconds for now, then in pairs)
        return received, sent, read, written


@dataclass(frozen=True, slots=True)
class ProcessList:
    """Processes as ps(1) prints them: titles, and a row for each."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]
