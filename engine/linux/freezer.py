"""Stopping every process of a control group at once, where it stands, and letting it go on.

v2: the group's own `cgroup.freeze` (Documentation/admin-guide/cgroup-v2.rst). v1: the freezer controller
(Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst), whose group is made when it is first needed and filled
then: moving a process takes the kernel milliseconds, which no start should pay for.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from engine.linux.cgroup import Cgroup

_PATIENCE = 5.0  # seconds for the last process to stop
_TRY = 0.02  # seconds of them for one attempt (v1)


def freeze(cgroup: Cgroup, path: str) -> None:
    """Returns when all are stopped. `path` is the group's path below a controller's mount. Raises OSError."""
    if cgroup.layout.version == "v2":
        group = cgroup.directories.get("")
        if group is None:
            raise OSError(errno.EOPNOTSUPP, "pausing needs a control group, and there is none of one's own here")
        _write(group / "cgroup.freeze", "1")
        try:
            _await(group / "cgroup.events", "frozen 1", _PATIENCE)
        except OSError:
            _write(group / "cgroup.freeze", "0")
            raise
        return
    folder = _folder(path)
    if folder is None:
        raise OSError(errno.EOPNOTSUPP, "pausing needs the freezer controller of cgroup v1, which is not mounted here")
    folder.mkdir(parents=True, exist_ok=True)
    _gather(cgroup, folder)
    end = time.monotonic() + _PATIENCE
    while True:
        _write(folder / "freezer.state", "FROZEN")
        try:
            return _await(folder / "freezer.state", "FROZEN", _TRY)
        except OSError:
            _write(folder / "freezer.state", "THAWED")
            if time.monotonic() > end:
                raise
        # A process that is just being born, or waits for one (vfork), keeps the group FREEZING for good: all go on, and once more.
        time.sleep(0.001)


def thaw(cgroup: Cgroup, path: str) -> None:
    """Lets them go on. Fine when they were not frozen."""
    if cgroup.layout.version == "v2":
        group = cgroup.directories.get("")
        if group is not None and group.exists():
            _write(group / "cgroup.freeze", "0")
        return
    folder = _folder(path)
    if folder is not None and folder.exists():
        _write(folder / "freezer.state", "THAWED")


def remove(cgroup: Cgroup, path: str) -> None:
    """Takes away what `freeze` made, once the group is empty."""
    if cgroup.layout.version == "v2":
        return
    folder = _folder(path)
    if folder is None:
        return
    for _attempt in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
            time.sleep(0.01)
        else:
            return


def _folder(path: str) -> Path | None:
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kinds = right.split(" ")
        if kinds[0] == "cgroup" and "freezer" in kinds[-1].split(","):
            return Path(left.split(" ")[4].replace("\\040", " ")) / path
    return None


def _gather(cgroup: Cgroup, folder: Path) -> None:
    """Moves every member into the freezer's group, again and again until none is outside: children of one that was moved
    are born inside."""
    source = next(iter(cgroup.directories.values()), None)
    if source is None:
        raise OSError(errno.EOPNOTSUPP, "pausing needs a cgroup controller to find the processes by")
    for _round in range(1000):
        inside = set(_members(folder))
        outside = [pid for pid in _members(source) if pid not in inside]
        if not outside:
            return
        for pid in outside:
            try:
                _write(folder / "cgroup.procs", pid)
            except ProcessLookupError:
                pass
    raise OSError(errno.EAGAIN, "the container's processes multiply faster than they can be stopped")


def _members(group: Path) -> list[str]:
    """Of the group and all below it."""
    found: list[str] = []
    for folder, _folders, _files in os.walk(group):
        try:
            found += (Path(folder) / "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            pass
    return found


def _await(file: Path, wanted: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while wanted not in file.read_text(encoding="ascii").splitlines():
        if time.monotonic() > end:
            raise OSError(errno.EAGAIN, f"not all processes stopped within {_PATIENCE:.0f} s")
        time.sleep(0.001)


def _write(path: Path, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
