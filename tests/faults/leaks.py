"""What a test may have left on the machine: mounts, links, control groups, namespaces, processes. Compare two snapshots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Snapshot:
    """Everything that names `mark` (a data root or its run directory's name), and what is countable without a name."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    descriptors: int

    def leaked_since(self, before: Snapshot) -> list[str]:
        """One line for each thing that is here and was not before."""
        found = [f"mount {one}" for one in sorted(self.mounts - before.mounts)]
        found += [f"cgroup {one}" for one in sorted(self.cgroups - before.cgroups)]
        found += [f"process {one}" for one in sorted(self.processes - before.processes)]
        if self.descriptors > before.descriptors:
            found.append(f"{self.descriptors - before.descriptors} descriptors of this process")
        return found


def snapshot(ids: frozenset[str] | set[str], *, marks: tuple[str, ...] = ()) -> Snapshot:
    """Of the containers `ids` and of processes whose command line holds one of `marks`. Other users of this machine
    come and go: only what is ours is looked at."""
    mounts = frozenset(
        line.split(" ")[4]
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        if any(one in line for one in (*ids, *marks))
    )
    groups = set()
    for base in Path("/sys/fs/cgroup").glob("**/workbench"):
        groups |= {str(base / name) for name in os.listdir(base) if name in ids}
    processes = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = Path(f"/proc/{entry}/comm").read_text().strip()
        except OSError:
            continue
        if any(name == f"wb-{one[:12]}" for one in ids) or any(mark in words for mark in marks):
            processes.add(f"{entry} {name} {words[:80]}")
    return Snapshot(mounts, frozenset(groups), frozenset(processes), len(os.listdir("/proc/self/fd")))
