"""Namespaces: what unshare(2) and setns(2) take."""

from __future__ import annotations

import fcntl
import socket
import struct

from engine.linux import libc

NEWTIME = 0x00000080
NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def unshare(flags: int) -> None:
    libc.call("unshare", flags)


def setns(fd: int, flags: int) -> None:
    """Joins namespaces: `fd` is a pidfd (Linux 5.8; several flags) or an open /proc/PID/ns file (one flag)."""
    libc.call("setns", fd, flags)


def sethostname(name: str) -> None:
    raw = name.encode()
    libc.call("sethostname", raw, len(raw))


def setdomainname(name: str) -> None:
    """The NIS domain name, which is what `domainname` shows; Docker sets it too."""
    raw = name.encode()
    libc.call("setdomainname", raw, len(raw))


def loopback_up() -> None:
    """Brings `lo` up in the network namespace of the caller."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("H", request, 16)
        struct.pack_into("H", request, 16, flags | _IFF_UP)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)
