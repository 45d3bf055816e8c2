"""An ordinary user's part of the cgroup v2 tree: what systemd has delegated to it, and what is missing of it.

systemd gives each user manager, and each scope or service with Delegate=yes, a subtree of its own (CGROUP_DELEGATION.md of
systemd, "Three different tree setups"). The supervisor runs in such a scope; processes are in leaves only, so it moves itself into one of
its own, and the containers' groups stand beside it. Nothing above the scope is touched: each subtree has one writer.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.linux import idmap
from engine.linux.cgroup import Layout, here

LEAF = "supervisor"
_WHAT = {"memory": "memory", "cpu": "CPU", "pids": "processes", "io": "block I/O", "cpuset": "CPU sets"}
SYSTEMD = Path("/run/systemd/system")


def own_group(root: Path, text: str) -> Path | None:
    """The group in `/proc/PID/cgroup` (cgroups(7)) below the v2 mount; None where it is not visible from here."""
    for line in text.splitlines():
        if line.startswith("0::/") and "/.." not in line:
            return root / line[4:]
    return None


def _ours(group: Path) -> bool:
    return all(os.access(group / name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control"))


def take(layout: Layout) -> Layout:
    """The caller's own subtree as the root of a layout, with the caller in a leaf of it. The layout as it is for root, on
    v1, and where nothing is delegated."""
    if layout.version != "v2" or not idmap.inside():
        return layout
    group = own_group(layout.roots[""], _own())
    if group is not None and group.name == LEAF:
        group = group.parent
    if group is None or group == layout.roots[""] or not _ours(group):
        return layout
    leaf = group / LEAF
    try:
        leaf.mkdir(exist_ok=True)
        with open(leaf / "cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except OSError:
        return layout
    return Layout("v2", {"": group}, delegated=True)


def _own() -> str:
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def note(uid: int, layout: Layout | None = None, own: str | None = None) -> str:
    """Which limits do not hold for the containers of an ordinary user, in a sentence; "" when all do."""
    layout = here() if layout is None else layout
    group = None
    if layout.version == "v2":
        root = layout.roots[""]
        manager = root / f"user.slice/user-{uid}.slice/user@{uid}.service"
        mine = own_group(root, _own() if own is None else own)
        if mine is not None and mine != root and _ours(mine):
            group = mine
        elif SYSTEMD.exists() and _ours(manager):  # the supervisor gets a scope there
            group = manager
    if group is None:
        return "no control group of one's own: limits of memory, CPU and processes, pause and stats do not hold"
    have = _controllers(group)
    missing = [words for name, words in _WHAT.items() if name not in have]
    if not missing:
        return ""
    return (
        f"limits of {', '.join(missing)} do not hold: their controllers are not delegated to this user "
        "(Delegate= in user@.service)"
    )


def _controllers(group: Path) -> list[str]:
    try:
        return (group / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return []
