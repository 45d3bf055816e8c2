"""What this host can do, in words."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import Unsupported
from engine.linux import userns


def cgroup_version() -> str:
    """`v2`, `v1`, `hybrid` (v1 controllers beside an empty v2 mount) or `none`."""
    kinds = {
        line.split(" - ")[1].split()[0]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup" in line
    }
    return {
        frozenset(("cgroup",)): "v1",
        frozenset(("cgroup2",)): "v2",
        frozenset(("cgroup", "cgroup2")): "hybrid",
    }.get(frozenset(kinds), "none")


def describe_host() -> tuple[str, list[str]]:
    """The cgroup version, and each limit that does not hold here."""
    notes: list[str] = userns.notes()
    cgroup = cgroup_version()
    if cgroup == "none":
        notes.append("no cgroup controllers: memory, CPU and process limits cannot be set")
    if "overlay" not in Path("/proc/filesystems").read_text():
        notes.append("the kernel shows no overlayfs: containers cannot start until it is loaded (modprobe overlay)")
    return cgroup, notes


def require_root() -> None:
    """Raises `Unsupported` for an ordinary user's process that has not entered its namespace (`engine.linux.userns`)."""
    if os.geteuid() != 0:
        raise Unsupported(
            "building and running containers needs a user namespace, which this process has not entered",
            hint="start it as `workbench`, or call engine.linux.userns.enter(iter(())) before any thread is started",
        )
