"""Pseudo terminals opened in a chosen devpts instance."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pair(ptmx_fd_path: str | int) -> tuple[int, int]:
    """(master, slave). The slave comes from the master itself (TIOCGPTPEER, Linux 4.13), not from a path under
    /dev/pts that somebody could have exchanged (CVE-2025-52565)."""
    master = (
        ptmx_fd_path if isinstance(ptmx_fd_path, int) else os.open(ptmx_fd_path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    )
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def resize(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def take(slave: int) -> None:
    """The slave becomes the controlling terminal of this (new) session, and stdin, stdout and stderr."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)
