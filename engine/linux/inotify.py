"""File change notification (inotify(7)) as a descriptor that an event loop can wait on."""

from __future__ import annotations

import ctypes
import os
import struct

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ISDIR = 0x40000000
IN_ONLYDIR = 0x1000000
IN_DONT_FOLLOW = 0x2000000
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC


class Inotify:
    """One inotify instance. Events say only that something happened: the reader looks for itself what."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self.fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def add(self, path: str, mask: int = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE) -> int:
        """The watch descriptor that events bear. Raises `OSError` (ENOSPC: the user's limit of watches is reached)."""
        found: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return found

    def remove(self, watch: int) -> None:
        """Ends a watch; one that has ended already is no error."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[tuple[int, int, bytes]]:
        """What is queued: watch descriptor, mask and name, in order."""
        events: list[tuple[int, int, bytes]] = []
        while True:
            try:
                data = os.read(self.fd, 1 << 18)
            except BlockingIOError:
                return events
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                events.append((watch, mask, data[at : at + length].rstrip(b"\0")))
                at += length

    def drain(self) -> bool:
        """Reads what is queued away; true when there was something."""
        seen = False
        while True:
            try:
                seen = bool(os.read(self.fd, 65536)) or seen
            except BlockingIOError:
                return seen

    def close_beside(self) -> None:
        """For who has something to answer: the kernel waits until nobody can be looking at the watches (a grace period of SRCU), which
        takes 7 to 20 ms."""
        import threading  # the supervisor has no use for it

        threading.Thread(target=self.close, name="inotify-close", daemon=True).start()

    def close(self) -> None:
        # Before close(2), which takes its time and lets other threads run: the number is free, and another's, from its first moment.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
