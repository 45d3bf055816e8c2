"""Capabilities: names, Docker's default set, and putting a set in force.

Docker sets bounding, permitted and effective and leaves inheritable and ambient empty (CVE-2022-24769: a non-empty
inheritable set lets a file's inheritable bits give capabilities back to an unprivileged user).
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Collection

from engine.linux import libc, pseudo

# linux/capability.h, in numeric order.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBER = {name: number for number, name in enumerate(NAMES)}

# The 14 of Docker (moby daemon/pkg/oci/caps/defaults.go). Mask 0x00000000a80425fb.
DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip

_VERSION_3 = 0x20080522


def mask(names: Collection[str]) -> int:
    """Bit mask of names without their CAP_ prefix."""
    return sum(1 << NUMBER[name] for name in set(names))


@functools.cache
def last_cap() -> int:
    """The highest capability that this kernel has."""
    try:
        return int(pseudo.read("/proc/sys/kernel/cap_last_cap"))
    except OSError:
        return len(NAMES) - 1


def available(last: int | None = None) -> tuple[str, ...]:
    """Every capability that this kernel knows: what `--privileged` means."""
    return NAMES[: (last_cap() if last is None else last) + 1]


def permitted() -> int:
    """What this process itself may have: nobody can be given more (the host of a nested engine may hold some back)."""
    header, data = struct.pack("=Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    libc.syscall(libc.NR_CAPGET, header, data, what="capget")
    low, high = struct.unpack_from("=I", data.raw, 4)[0], struct.unpack_from("=I", data.raw, 16)[0]
    return int(low | high << 32)


def raise_permitted() -> None:
    """Everything permitted becomes effective."""
    bits = permitted()
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("=Ii", _VERSION_3, 0)
    libc.syscall(libc.NR_CAPSET, header, struct.pack("=6I", low, low, 0, high, high, 0), what="capset")


def drop_bounding(keep: int, last: int) -> None:
    """Takes everything but `keep` out of the bounding set. Needs CAP_SETPCAP."""
    for number in range(last + 1):
        if not keep >> number & 1:
            libc.prctl(libc.PR_CAPBSET_DROP, number)


def sets(bits: int) -> tuple[bytes, bytes]:
    """capset(2)'s header and data for `set_effective`."""
    low, high = bits & 0xFFFFFFFF, bits >> 32
    return struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0)


def set_effective(bits: int) -> None:
    """Permitted and effective become `bits`; inheritable and ambient become empty."""
    libc.syscall(libc.NR_CAPSET, *sets(bits), what="capset")
    try:
        libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:
        if os.uname().release.startswith(("3.", "4.0", "4.1.", "4.2.")):  # before ambient sets
            return
        raise
