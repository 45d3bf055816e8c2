"""What a container may not see or not write: masked and read-only paths, and the read-only root.

Each path is resolved once inside the root, and what covers it is a descriptor that was verified.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from engine.linux import mount as m
from engine.linux.openat2 import open_in_root
from engine.runtime.rootfs_devices import SetupError

_HANDLE = os.O_PATH | os.O_CLOEXEC
_INERT = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
_CPUS = "/sys/devices/system/cpu"


def protect(root: int, spec: dict[str, Any]) -> None:
    """The last thing that is done to the root before it is entered."""
    for path in spec["linux"]["readonlyPaths"]:
        fd = _existing(root, path)
        if fd >= 0:
            m.bind(fd, fd, m.MS_RDONLY | _INERT, recursive=True)
            os.close(fd)
    null, empty = null_device(), -1
    for path in [*spec["linux"]["maskedPaths"], *thermal_throttle(spec["linux"]["maskedPaths"])]:
        fd = _existing(root, path)
        if fd < 0:
            continue
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            m.bind(null, fd)
        elif empty >= 0:
            m.bind(empty, fd)
        else:
            m.mount_at("tmpfs", fd, "tmpfs", m.MS_RDONLY | _INERT, "nr_inodes=1")
            empty = _existing(root, path)
        os.close(fd)
    os.close(null)
    if empty >= 0:
        os.close(empty)
    if spec["root"]["readonly"]:
        m.mount("", f"/proc/self/fd/{root}", "", m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY)


def _existing(root: int, path: str) -> int:
    try:
        return open_in_root(root, path, _HANDLE)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def thermal_throttle(masked: list[str], cpus: str = _CPUS) -> list[str]:
    """Each CPU's thermal_throttle, as Docker masks beside its list (GHSA-jq35)."""
    if not masked or not os.path.isdir(f"{cpus}/cpu0/thermal_throttle"):
        return []
    names = sorted(name for name in os.listdir(cpus) if name[:3] == "cpu" and name[3:].isdigit())
    return [f"{_CPUS}/{name}/thermal_throttle" for name in names]


def null_device() -> int:
    """The host's /dev/null, verified: the thing that hides files must not be a link to a file (CVE-2025-31133)."""
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise SetupError("/dev/null of this host is not the null device")
    return fd
