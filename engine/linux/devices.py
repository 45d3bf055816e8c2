"""The host's device nodes: what `--device` and `--privileged` name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

# What runc's HostDevices leaves out: the container has its own, or they are other containers'.
_SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"))


@dataclass(frozen=True, slots=True)
class HostDevice:
    """One node as the host has it."""

    path: str
    kind: str  # "c" or "b"
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


def device(path: str) -> HostDevice | None:
    """The node at `path`, symbolic links followed; None when it is something else. Raises OSError."""
    status = os.stat(path)
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
    return HostDevice(path, kind, *numbers, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def devices_below(folder: str) -> Iterator[HostDevice]:
    """Every node in `folder` and its folders; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.name in _SKIPPED or entry.is_symlink():
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from devices_below(entry.path)
                elif (found := device(entry.path)) is not None:
                    yield found
            except (FileNotFoundError, PermissionError):  # it went away, or is another container's mount
                continue


def all_devices() -> list[HostDevice]:
    """What `--privileged` shows."""
    return list(devices_below("/dev"))
