"""Control groups of both versions behind one class.

v1 (also "hybrid": v1 controllers beside an empty v2 tree): one directory per controller, `<mount>/<path>`.
v2: one directory, `<mount>/<path>`, with the controllers enabled from the root down.

Devices: v1 has the devices controller, and Docker's list is written to it. v2 has no file for it, only a BPF program
attached to the group; that is not built yet, so on v2 the bounding set (MKNOD without any device in /dev) and the
mount flags are what stands between a container and the host's devices. `notes` says so where it holds.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Version = Literal["v1", "hybrid", "v2", "none"]

# What a v1 container joins. `cpuset` would need its cpus and mems copied from the parent first, and nothing sets them.
_V1 = ("devices", "memory", "cpu", "cpuacct", "pids")
_V2 = ("cpu", "memory", "pids")

# moby's defaults and runc's AllowedDevices: mknod of anything, use of the harmless ones.
ALLOWED_DEVICES = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm",
    "c 5:2 rwm", "c 136:* rwm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """0 is no limit. `memory` in bytes; `swap` is memory plus swap, as Docker counts; `quota` in µs per `period`."""

    memory: int = 0
    swap: int = 0
    quota: int = 0
    period: int = 100_000
    pids: int = 0
    all_devices: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the controllers are mounted. `roots` maps a v1 controller to its mount, or "" to the v2 mount."""

    version: Version
    roots: dict[str, Path]


def discover(mountinfo: str) -> Layout:
    """Reads the layout off `/proc/self/mountinfo`."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        where = Path(fields[4].replace("\\040", " "))
        if kinds[0] == "cgroup2":
            v2 = v2 or where
        elif kinds[0] == "cgroup":
            for name in kinds[2].split(","):
                if name in _V1:
                    v1.setdefault(name, where)
    if v1:
        return Layout("hybrid" if v2 else "v1", v1)
    return Layout("v2", {"": v2}) if v2 else Layout("none", {})


class Cgroup:
    """The group of one container: made, limited, joined, asked about out-of-memory kills, removed."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout = layout
        self.notes: list[str] = []
        self.directories = {name: root / path.lstrip("/") for name, root in layout.roots.items()}
        self._depth = len(Path(path).parts)
        self._oom_before = 0

    def create(self, limits: Limits) -> None:
        """Makes the directories and writes the limits. A limit that is refused raises; a missing controller, noted."""
        for name in list(self.directories):
            directory = self.directories[name]
            if self.layout.version == "v2":
                self._enable_v2(directory)
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                self.notes.append(f"cgroup controller {name or 'v2'} is not writable here: its limits do not hold")
                del self.directories[name]
        if self.layout.version == "v2":
            self._limit_v2(limits)
        else:
            self._limit_v1(limits)
        self._oom_before = self._oom_count()

    def _enable_v2(self, directory: Path) -> None:
        root = self.layout.roots[""]
        parents = [*reversed(directory.relative_to(root).parents)]
        for part in parents:
            place = root / part
            place.mkdir(exist_ok=True)
            try:
                have = (place / "cgroup.controllers").read_text(encoding="ascii").split()
            except OSError:
                have = []
            for name in _V2:
                if name not in have:
                    continue
                try:
                    _write(place / "cgroup.subtree_control", f"+{name}")
                except OSError as error:
                    self.notes.append(f"cgroup controller {name}: {error.strerror} at {place}: its limits do not hold")

    def _set(self, controller: str, file: str, value: str, what: str, *, need: bool = True) -> None:
        directory = self.directories.get(controller)
        if directory is None or not (directory / file).exists():
            if need:
                self.notes.append(f"{what} cannot be limited here: no {file}")
            return
        try:
            _write(directory / file, value)
        except OSError as error:
            if not need:
                return
            raise OSError(error.errno, f"setting {what} ({file} = {value}): {error.strerror}") from None

    def _limit_v1(self, limits: Limits) -> None:
        if not limits.all_devices and "devices" in self.directories:
            self._set("devices", "devices.deny", "a", "devices")
            fd = os.open(self.directories["devices"] / "devices.allow", os.O_WRONLY | os.O_CLOEXEC)
            try:
                for rule in ALLOWED_DEVICES:
                    os.write(fd, rule.encode())  # one rule a write
            finally:
                os.close(fd)
        if limits.memory:
            total = str(limits.swap or limits.memory * 2)
            # In this order: memory.memsw must never be below memory.limit.
            self._set("memory", "memory.limit_in_bytes", str(limits.memory), "memory")
            self._set("memory", "memory.memsw.limit_in_bytes", total, "swap", need=False)
        if limits.quota:
            self._set("cpu", "cpu.cfs_period_us", str(limits.period), "cpu")
            self._set("cpu", "cpu.cfs_quota_us", str(limits.quota), "cpu")
        if limits.pids:
            self._set("pids", "pids.max", str(limits.pids), "pids")

    def _limit_v2(self, limits: Limits) -> None:
        if limits.memory:
            swap = (limits.swap or limits.memory * 2) - limits.memory
            self._set("", "memory.max", str(limits.memory), "memory")
            self._set("", "memory.swap.max", str(max(swap, 0)), "swap", need=False)
        if limits.quota:
            self._set("", "cpu.max", f"{limits.quota} {limits.period}", "cpu")
        if limits.pids:
            self._set("", "pids.max", str(limits.pids), "pids")

    def join(self, pid: int = 0) -> None:
        """Moves `pid` (0: the caller) in. Takes milliseconds: the kernel waits for an RCU grace period."""
        for directory in self.directories.values():
            _write(directory / "cgroup.procs", str(pid))

    def oom_killed(self) -> bool:
        """Whether the kernel killed something here for memory since `create`."""
        return self._oom_count() > self._oom_before

    def _oom_count(self) -> int:
        if self.layout.version == "v2":
            file = self.directories.get("", Path("/nonexistent")) / "memory.events"
        else:
            file = self.directories.get("memory", Path("/nonexistent")) / "memory.oom_control"
        try:
            for line in file.read_text(encoding="ascii").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        except (OSError, ValueError):
            pass
        return 0

    def kill(self) -> None:
        """Ends every process that is here. One that was reused in between is left alone: it is not in the list."""
        for name, directory in self.directories.items():
            if (directory / "cgroup.kill").exists():  # v2, Linux 5.14
                _write(directory / "cgroup.kill", "1")
                return
            if name in ("pids", "devices", ""):
                for _ in range(100):
                    if not _kill_all(directory / "cgroup.procs"):
                        return
                    time.sleep(0.001)

    def remove(self) -> None:
        """Removes the directories; gives the kernel up to a second to let go of the dead."""
        for directory in self.directories.values():
            for attempt in range(100):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno == errno.EBUSY and attempt < 99:
                        time.sleep(0.01)
                        continue
                break


def _kill_all(procs: Path) -> bool:
    """Whether there was anything left to end."""
    pids = procs.read_text(encoding="ascii").split()
    for pid in pids:
        try:
            handle = os.pidfd_open(int(pid))
        except ProcessLookupError:
            continue
        try:
            if pid in procs.read_text(encoding="ascii").split():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)
    return bool(pids)


def _write(path: Path, value: str) -> None:
    # Not Path.write_text: O_CREAT and O_TRUNC mean nothing here, and a typo must not make a file in a test's tree.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
