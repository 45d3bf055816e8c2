"""What the host uses: /proc/stat, /proc/meminfo, /proc/net/dev and /proc/diskstats (proc(5), kernel admin-guide/iostats.rst)."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from engine.model import HostStats
from engine.service.stats import host_cpu, network_counters

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_SECTOR = 512  # bytes, whatever the disk's own are
# Whole disks: what is stacked on others (dm, md, loop) and partitions would count the same bytes again.
_DISK = re.compile(r"(?:sd[a-z]+|vd[a-z]+|xvd[a-z]+|hd[a-z]+|nvme\d+n\d+|mmcblk\d+)$")
# Ends of what is connected to another device here count the same bytes again.
_OWN = re.compile(r"(?:veth|br-|wb-|docker|cni|virbr|tap|tun)")


def read_host(proc: Path = Path("/proc")) -> HostStats:
    stat = _read(proc / "stat")
    whole, cpus = host_cpu(stat)
    memory = _memory(_read(proc / "meminfo"))
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", memory.get("MemFree", 0))
    networks = [one for name, one in network_counters(_read(proc / "net/dev")).items() if not _OWN.match(name)]
    read, written = disk_bytes(_read(proc / "diskstats"))
    return HostStats(
        time.time_ns(),
        whole - _idle(stat),
        whole,
        cpus or 1,
        total - available,
        total,
        sum(one.rx_bytes for one in networks),
        sum(one.tx_bytes for one in networks),
        read,
        written,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _idle(stat: str) -> int:
    """Idle and waiting for input and output, in ns."""
    fields = next((line.split() for line in stat.splitlines() if line.startswith("cpu ")), [])
    return (int(fields[4]) + int(fields[5])) * _TICK if len(fields) > 5 else 0


def _memory(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def disk_bytes(text: str) -> tuple[int, int]:
    """Read and written, of whole disks."""
    read = written = 0
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 10 and _DISK.match(fields[2]):
            read += int(fields[5]) * _SECTOR
            written += int(fields[9]) * _SECTOR
    return read, written
