"""What files of proc(5) say: their text comes from this host, or out of a container of another engine. Pure."""

from __future__ import annotations

TCP_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"  # TCP_LISTEN (include/net/tcp_states.h)
_SIGTIMEDWAIT = ("128", "137")  # on x86_64, on aarch64
_INITS = ("init", "tini", "tini-static", "docker-init", "dumb-init", "catatonit", "podman-init")


def listening_ports(text: str) -> frozenset[int]:
    """TCP ports on which something listens. `text` is /proc/net/tcp, tcp6 or both."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[0].endswith(":") and words[3] == _LISTEN:
            found.add(int(words[1].rpartition(":")[2], 16))
    return frozenset(found)


def hears(status: str, number: int, syscall: str = "") -> bool:
    """Whether a signal means anything to a process, by its /proc/PID/status. To the first one of a pid namespace "only signals
    for which the init process has established a signal handler can be sent" (pid_namespaces(7)). One that is blocked may be
    waited for; while it is waited for in rt_sigtimedwait(2), as small inits do, the kernel shows it as if it were not blocked:
    then /proc/PID/syscall tells. Where that cannot be read ("") the names of such inits do."""
    lines = (line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    masks = {name: value for name, value in lines if name in ("Name", "SigCgt", "SigBlk", "NSpid")}
    if masks.get("NSpid", "").split()[-1:] != ["1"]:
        return True  # not the first process of its namespace: the default action holds
    waits = syscall.split()[0] in _SIGTIMEDWAIT if syscall.strip() else masks.get("Name", "") in _INITS
    return waits or any(int(masks[name], 16) >> (number - 1) & 1 for name in ("SigCgt", "SigBlk") if name in masks)
