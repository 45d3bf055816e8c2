"""TCP ports on which something listens, out of the kernel's tables as a container sees them (proc_net_tcp.rst). Pure."""

from __future__ import annotations

PROC_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"


def listening_ports(text: str) -> frozenset[int]:
    """`text` is /proc/net/tcp, tcp6 or both."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[0].endswith(":") and words[3] == _LISTEN:
            found.add(int(words[1].rpartition(":")[2], 16))
    return frozenset(found)
