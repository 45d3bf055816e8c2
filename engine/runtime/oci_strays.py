"""Processes that an OCI runtime put into the container and did not wait for, such as that of an exec which failed.

Their parent has ended, so they are the monitor's (a subreaper's) to reap. Unreaped they would keep the container's first
process from ending: the kernel lets it go when nobody is left in its pid namespace (zap_pid_ns_processes).
"""

from __future__ import annotations

import os
from collections.abc import Collection


def reap(known: Collection[int]) -> None:
    """Reaps the dead children in a pid namespace below ours that are not `known` to be waited for."""
    for pid in _children():
        if pid not in known and _is_dead_below(pid):
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def _children() -> list[int]:
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _field(int(name), "PPid") == [str(own)]]


def _is_dead_below(pid: int) -> bool:
    return _field(pid, "State")[:1] == ["Z"] and len(_field(pid, "NSpid")) > 1


def _field(pid: int, name: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next((line.split()[1:] for line in file if line.startswith(f"{name}:")), [])
    except OSError:
        return []
