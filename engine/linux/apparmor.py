"""AppArmor, where the host has it: whether it is on, which profiles are loaded, and the change of profile at
execve(2) (Documentation/admin-guide/LSM/apparmor.rst; apparmor.d(5))."""

from __future__ import annotations

import errno
import os

from engine.linux import mount
from engine.linux.openat2 import open_in_root

_PROC_MAGIC = 0x9FA0


def enabled(root: str = "/") -> bool:
    """Whether the kernel runs it. `root` is "/" but in tests."""
    try:
        with open(os.path.join(root, "sys/module/apparmor/parameters/enabled"), encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def loaded(name: str, root: str = "/") -> bool:
    """Whether a profile of that name is in the kernel. Raises OSError when that cannot be asked."""
    with open(os.path.join(root, "sys/kernel/security/apparmor/profiles"), encoding="utf-8", errors="replace") as file:
        return any(line.rpartition(" (")[0] == name for line in file)


def verified_proc(fd: int) -> None:
    """Raises OSError when `fd` is not procfs."""
    if mount.filesystem(fd) != _PROC_MAGIC:
        raise OSError(errno.EINVAL, "/proc of this host is not procfs")


def profile_on_exec(name: str) -> None:
    """The next execve(2) of this process changes to `name`. Call while the host's /proc is at /proc: what is written to is
    verified to be procfs, with nothing mounted over it (CVE-2019-16884, CVE-2025-52881). Raises OSError."""
    top = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        verified_proc(top)
        try:
            fd = open_in_root(top, "thread-self/attr/apparmor/exec", os.O_WRONLY, no_mounts=True)
        except FileNotFoundError:  # before Linux 5.8
            fd = open_in_root(top, "thread-self/attr/exec", os.O_WRONLY, no_mounts=True)
    finally:
        os.close(top)
    try:
        os.write(fd, b"exec " + name.encode())
    finally:
        os.close(fd)
