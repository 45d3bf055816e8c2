"""Control groups of both versions behind one class.

v1 (also "hybrid": v1 controllers beside an empty v2 tree): one directory per controller, `<mount>/<path>`.
v2: one directory, `<mount>/<path>`, with the controllers enabled from the root down; processes are in leaves only.

What is written comes from `cgroup_limits` (numbers) and `device_filter` (devices), which are pure.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.linux import device_filter, idmap, libc, pseudo
from engine.linux.cgroup_limits import Write, not_on_v2, plan_v1, plan_v2

Version = Literal["v1", "hybrid", "v2", "none"]

# What a v1 container is in from the start. The rest (cpuset, the freezer) it joins when something is asked of it.
_V1 = ("devices", "memory", "cpu", "cpuacct", "pids", "blkio")
_V1_LATER = ("cpuset",)
_V2 = ("cpu", "memory", "pids", "io", "cpuset")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the controllers are mounted. `roots` maps a v1 controller to its mount, or "" to the v2 mount; `delegated`: to
    an ordinary user's own part of that tree (see `delegation`)."""

    version: Version
    roots: dict[str, Path]
    delegated: bool = False


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
                if name in _V1 or name in _V1_LATER:
                    v1.setdefault(name, where)
    if v1:
        return Layout("hybrid" if v2 else "v1", v1)
    return Layout("v2", {"": v2}) if v2 else Layout("none", {})


def recorded(root: str) -> Layout:
    """The layout of a container whose monitor has noted its delegated subtree; without one, what this process sees."""
    return Layout("v2", {"": Path(root)}, delegated=True) if root else here()


def here() -> Layout:
    """The layout that this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return discover(file.read())


def has_block_weight(layout: Layout | None = None) -> bool:
    """Whether v1 groups here have a weight of block I/O, which takes the CFQ or BFQ scheduler (True on v2: its start says)."""
    root = (layout or here()).roots.get("blkio")
    if root is None:
        return True
    names = ("blkio.weight", "blkio.bfq.weight")  # the latter is not in the root itself
    return any((root / name).exists() for name in names) or any(any(root.glob(f"*/{name}")) for name in names)


class Cgroup:
    """The group of one container: made, limited, joined, asked about out-of-memory kills, removed."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout = layout
        self.path = path.lstrip("/")
        self.notes: list[str] = []
        self.directories = {name: root / self.path for name, root in layout.roots.items() if name not in _V1_LATER}
        self._oom_before = 0
        self._filtered = False
        self._lacks: dict[str, str] = {}  # why a controller of v2 is not to be had

    @property
    def v2(self) -> bool:
        return self.layout.version == "v2"

    def exists(self) -> bool:
        """Whether the container has a group here at all."""
        return any(directory.is_dir() for directory in self.directories.values())

    def create(self, resources: dict[str, Any]) -> None:
        """Makes the directories and puts OCI's `linux.resources` in force. A limit that is refused raises OSError; what
        this host has no controller for is in `notes`."""
        if "cpus" in resources.get("cpu", {}) or "mems" in resources.get("cpu", {}):
            self._add("cpuset")
        elif not self.v2 and self._add("cpuset"):
            # To be seen, not joined, which takes milliseconds: Java takes no notice of limits where cpuset is missing.
            self._make("cpuset")
            self.directories.pop("cpuset", None)
        for name in list(self.directories):
            self._make(name)
        self.filter_devices(resources)
        self._set_limits(resources)
        if self.notes and not self.directories and idmap.inside():
            # An ordinary user without a group of its own, which `info` says. Here only what was asked for and is not so.
            asked = any(resources.get(kind) for kind in ("memory", "cpu", "pids", "blockIO"))
            self.notes = ["limits do not hold: there is no control group of one's own here"] if asked else []
        self._oom_before = self._oom_count()

    def filter_devices(self, resources: dict[str, Any]) -> None:
        """Puts the rules for devices in force, once: while they are written, on v1, devices that are allowed are not to be had for a
        moment. Raises OSError."""
        if (
            not self._filtered and not idmap.inside()
        ):  # an ordinary user has no devices to give, and may not filter them
            self._set_devices(resources.get("devices", ()))
        self._filtered = True

    def update(self, resources: dict[str, Any]) -> None:
        """New limits for a group with processes in it. Raises OSError."""
        cpu = resources.get("cpu", {})
        if not self.v2 and ("cpus" in cpu or "mems" in cpu) and self._add("cpuset"):
            self._make("cpuset")
            self._set_limits(resources)
            self._gather("cpuset")
            return
        self._set_limits(resources)

    def rename(self, other: Cgroup) -> None:
        """Gives this group, with whom it has, the path of `other`, which is beside it (v1: rename(2) of each directory).
        Raises OSError."""
        for name, directory in self.visible().items():
            os.rename(directory, self.layout.roots[name] / other.path)

    def visible(self) -> dict[str, Path]:
        """The directories by controller, with those that no process has joined yet."""
        later = {name: root / self.path for name, root in self.layout.roots.items() if name in _V1_LATER}
        return self.directories | {name: path for name, path in later.items() if path.is_dir()}

    # --- directories ---------------------------------------------------------------------------------

    def _add(self, name: str) -> bool:
        """Takes one of the controllers that are joined when needed. False: it is there already, or not on this host."""
        if name in self.directories or name not in self.layout.roots:
            return False
        self.directories[name] = self.layout.roots[name] / self.path
        return True

    def _make(self, name: str) -> None:
        directory = self.directories[name]
        try:
            if self.v2:
                self._enable_v2(directory)
            directory.mkdir(parents=True, exist_ok=True)
            if name == "cpuset":
                self._inherit_cpuset(directory)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            self.notes.append(f"cgroup controller {name or 'v2'} is not writable here: its limits do not hold")
            del self.directories[name]

    def _enable_v2(self, directory: Path) -> None:
        """Down to the parent of the container's group, which itself stays a leaf."""
        root = self.layout.roots[""]
        for part in reversed(directory.relative_to(root).parents):
            place = root / part
            place.mkdir(exist_ok=True)
            have = _words(place / "cgroup.controllers")
            done = _words(place / "cgroup.subtree_control")
            for name in _V2:
                if name not in have or name in done:
                    continue
                try:
                    _write(place / "cgroup.subtree_control", f"+{name}")
                except OSError as error:
                    # Said of the limits that are asked for, not of each container. EBUSY: processes in what is a container's root.
                    self._lacks[name] = f": {error.strerror} at {place}"

    def _inherit_cpuset(self, directory: Path) -> None:
        """v1: a new cpuset is empty, and nothing can join an empty one."""
        root = self.layout.roots["cpuset"]
        for part in reversed((directory / "x").relative_to(root).parents):
            for file in ("cpuset.cpus", "cpuset.mems"):
                place = root / part / file
                if part != Path() and not place.read_text(encoding="ascii").strip():
                    _write(place, (place.parent.parent / file).read_text(encoding="ascii").strip())

    # --- limits --------------------------------------------------------------------------------------

    def _set_limits(self, resources: dict[str, Any]) -> None:
        if self.v2:
            self.notes += not_on_v2(resources)
            leaf = self.directories.get("", Path("/nonexistent"))
            quota, period = (_words(leaf / "cpu.max") + ["max", "100000"])[:2]
            if not period.isdigit():  # a file with one word
                period = "100000"
            plan = plan_v2(resources, current_memory=_integer(leaf / "memory.max"), current_cpu=(quota, int(period)))
        else:
            plan = plan_v1(resources)
        retry = [write for write in plan if not self._perform(write, last=False)]
        # memory and memory-with-swap, or quota and period: one must be raised before the other.
        for write in retry[::-1] if len(retry) > 1 else retry:
            self._perform(write, last=True)

    def _perform(self, write: Write, *, last: bool) -> bool:
        """False: the kernel found it inconsistent with another limit; it may come later."""
        directory = self.directories.get(write.controller, Path("/nonexistent"))
        file, value = write.file, write.value
        for other, otherwise in write.instead:
            if (directory / other).exists():
                file, value = other, otherwise
        if not (directory / file).exists():
            if write.need:
                self.notes.append(
                    f"{write.what} cannot be limited here: no {file}{self._lacks.get(file.split('.')[0], '')}"
                )
            return True
        try:
            _write(directory / file, value)
        except OSError as error:
            if not last and error.errno in (errno.EINVAL, errno.EBUSY):
                return False
            if not write.need and error.errno == errno.EOPNOTSUPP:
                return True
            raise OSError(error.errno, f"setting {write.what} ({file} = {value}): {error.strerror}") from None
        return True

    def _set_devices(self, rules: Sequence[dict[str, Any]]) -> None:
        if not rules:
            return
        if self.v2:
            if "" in self.directories:
                try:
                    device_filter.attach(self.directories[""], rules)
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTTY):
                        raise
                    self.notes.append(f"no device filter on this host: {error.strerror}")
            return
        if "devices" not in self.directories:
            self.notes.append("no device filter on this host: the devices controller is not there")
            return
        opened: dict[str, int] = {}
        try:
            for file, line in device_filter.lines_v1(rules):
                if file not in opened:
                    opened[file] = os.open(self.directories["devices"] / file, os.O_WRONLY | os.O_CLOEXEC)
                os.write(opened[file], line.encode())  # one rule a write
        finally:
            for fd in opened.values():
                os.close(fd)

    # --- members -------------------------------------------------------------------------------------

    def join(self, pid: int = 0) -> None:
        """Moves `pid` (0: the caller) in. Takes milliseconds: the kernel waits for an RCU grace period."""
        for directory in self.joined():
            _write(directory / "cgroup.procs", str(pid))

    def joined(self) -> list[Path]:
        """Where a process of the container belongs."""
        if not self.v2:
            for name in _V1_LATER:  # an update by another process may have moved the container into it
                place = self.visible().get(name)
                if place is not None and _words(place / "cgroup.procs"):
                    self._add(name)
        return list(dict.fromkeys(self.directories.values()))

    def fork(self) -> tuple[int, bool]:
        """fork(2): the pid, 0 in the child, and whether the child was born in the group. That spares it `join`; it is for v2."""
        if self.v2 and "" in self.directories:
            try:
                group = os.open(self.directories[""], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    return libc.clone_into(group), True
                finally:
                    os.close(group)
            except OSError:  # before Linux 5.7, or a group that takes nobody: `join` says why
                pass
        return os.fork(), False

    def _gather(self, name: str) -> None:
        """Moves all members into a controller that they were not in; children of a moved one are born in it."""
        target = self.directories[name]
        while outside := set(self.members()) - set(_words(target / "cgroup.procs")):
            for pid in outside:
                try:
                    _write(target / "cgroup.procs", pid)
                except ProcessLookupError:
                    pass

    def members(self) -> list[str]:
        """Process ids, of the group and those below it that the container made."""
        for name in ("pids", "memory", "devices", "cpu", ""):
            if name in self.directories:
                found: list[str] = []
                for folder, _folders, _files in os.walk(self.directories[name]):
                    found += _words(Path(folder) / "cgroup.procs")
                return found
        return []

    def oom_killed(self) -> bool:
        """Whether the kernel killed something here for memory since `create`."""
        return self._oom_count() > self._oom_before

    def _oom_count(self) -> int:
        name, file = ("", "memory.events") if self.v2 else ("memory", "memory.oom_control")
        try:
            text = pseudo.read(f"{self.directories.get(name, '/nonexistent')}/{file}")
            return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
        except (OSError, ValueError):
            return 0

    def kill(self) -> None:
        """Ends every process that is here."""
        everything = self.directories.get("", Path("/nonexistent")) / "cgroup.kill"
        if everything.exists():  # v2, Linux 5.14
            _write(everything, "1")
            return
        for _ in range(1000):
            if not self._kill_members():
                return
            time.sleep(0.001)

    def _kill_members(self) -> bool:
        """Whether there was anything left to end. A pid that was reused in between is left alone: it is not here."""
        found = self.members()
        for pid in found:
            try:
                handle = os.pidfd_open(int(pid))
            except ProcessLookupError:
                continue
            try:
                if pid in self.members():
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(handle)
        return bool(found)

    def remove(self) -> None:
        """Removes the directories, with what a container made below; gives the kernel up to a second to let go of the
        dead."""
        for name in _V1_LATER:  # an update through another process may have made it
            self._add(name)
        for directory in self.directories.values():
            try:  # nearly always there is nothing below
                os.rmdir(directory)
                continue
            except OSError:
                pass
            try:
                below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue
            for path in below:
                for folder, _folders, _files in os.walk(path, topdown=False):
                    _remove(folder)
            _remove(directory)


def _remove(directory: str | Path) -> None:
    for attempt in range(100):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.EBUSY and attempt < 99:
                time.sleep(0.01)
                continue
        return


def _words(path: Path) -> list[str]:
    try:
        return pseudo.read(path).split()
    except OSError:
        return []


def _integer(path: Path) -> int:
    """The number in a file; 0 for "max" and for no file."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else 0


def _write(path: Path, value: str) -> None:
    # Not Path.write_text: O_CREAT and O_TRUNC mean nothing here, and a typo must not make a file in a test's tree.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
