"""Monitors that wait for a container, each with a parked first process (`parked`): what a start gets from the supervisor is then
ready, instead of being made while somebody waits.

A few processes that share the supervisor's memory; they wait in recvmsg(2) and use no processor. None is made while
containers come one after the other, since that would only slow them. Those that nobody needed for `IDLE` seconds are given
back, and made again after the next start. A spare whose supervisor goes away, however it does, hears that on its channel, takes away
what it has prepared and ends; what of a killed spare stays (an empty group), the supervisor removes.

A monitor whose container has ended becomes a spare again: a new one costs a fork and the copies of a thousand pages. It gets
rid of all that it had of the container before (`_Clean`), and ends where that is not certain.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from engine.linux import cgroup as cg
from engine.linux import idmap, libc
from engine.runtime import init_namespaces, tiny_exec
from engine.runtime.parked import PARENT, Parked, park

WANTED, LOW = 4, 1  # made anew when so few are left
PAUSE = 0.014  # seconds without a connection before spares are made
QUIET = 0.05  # seconds without one before they join their groups, if no start does
IDLE = 600.0
SWEEP = 1.0
TRIES = 3  # so many that die before they are ready: this host does not let us, so no more of them
MOST = 6  # so many may wait; a monitor that comes back then is one too many
LENT = 32  # so many monitors are waited for; the supervisor has a descriptor for each
LIVES = 100  # containers of one monitor
_GROWN = 8 << 10  # kB that a monitor may have more than as a spare
_PREPARED, _READY, _TAKEN, _JOIN = b"a", b".", b"m", b"j"
Serve: TypeAlias = Callable[[socket.socket, Parked | None, Callable[[], None]], bool]


@dataclass(slots=True)
class _Spare:
    pid: int
    channel: socket.socket
    proven: bool = False  # it was prepared once
    joins: bool = False
    busy: bool = False
    lent: bool = False  # it is a container's monitor
    lives: int = 0  # of how many it was

    @property
    def idle(self) -> bool:
        return not (self.busy or self.lent)


class Spares:
    """The supervisor's side. A spare calls `alone`, then `prepare`, and what that gives as `serve(connection, parked, begin)` with
    each connection: that calls `begin` when a container is to be started, and says whether it was that container's monitor, then it
    does not return if it cannot be one again."""

    def __init__(self, layout: cg.Layout, alone: Callable[[], None], prepare: Callable[[], Serve]) -> None:
        self._layout, self._alone, self._prepare = layout, alone, prepare
        self._all: dict[int, _Spare] = {}  # by the descriptor of the channel
        self._fill_at: float | None = None
        self._join_at: float | None = None
        self._until = 0.0
        self._tries = TRIES if os.geteuid() == 0 and not idmap.inside() and layout.version != "none" else 0
        self._graves = _left_over(layout)  # names of groups that may be there still
        self._sweep_at = time.monotonic()

    def fds(self) -> list[int]:
        return list(self._all)

    def due(self) -> float | None:
        """When `turn` has something to do (time.monotonic)."""
        times = [
            self._fill_at,
            self._join_at,
            self._until if self._all else None,
            self._sweep_at if self._graves else None,
        ]
        return min((when for when in times if when is not None), default=None)

    def hand(self, connection: socket.socket) -> bool:
        """Gives the connection to a spare; False: there is none."""
        if self._tries:
            self._fill_at = time.monotonic() + PAUSE
        for fd, spare in sorted(self._all.items(), key=lambda pair: not pair[1].joins):
            if not spare.idle:
                continue
            try:
                socket.send_fds(spare.channel, [b"c"], [connection.fileno()])
            except OSError:
                self._drop(fd)
                continue
            spare.busy = True
            return True
        return False

    def hear(self, fd: int) -> None:
        spare = self._all[fd]
        try:
            word = spare.channel.recv(16)
        except OSError:
            word = b""
        if word == _TAKEN:
            self._lend(fd)
        elif word == _PREPARED and spare.lent and sum(other.idle for other in self._all.values()) >= MOST:
            spare.lives += 1
            self._drop(fd)
        elif word in (_PREPARED, _READY):
            if spare.lent:
                spare.joins, spare.lent, spare.lives = False, False, spare.lives + 1
                self._until = time.monotonic() + IDLE
            spare.proven, spare.busy, self._tries = True, False, TRIES
            if word == _PREPARED:
                self._join_at = time.monotonic() + QUIET
        else:
            self._drop(fd)

    def _lend(self, fd: int) -> None:
        spare = self._all.pop(fd)
        self._all[fd] = spare  # the latest is the last
        spare.lent, spare.busy = True, False
        self._bury(spare)
        lent = [number for number, other in self._all.items() if other.lent]
        if len(lent) > LENT:
            self._all.pop(lent[0]).channel.close()
        # It has renamed its group: now, and until its end, nobody is held up by a process that moves.
        self._join()

    def _join(self) -> None:
        """Several at once: the first one waits in the kernel, the others then move for nothing."""
        self._join_at = None
        for spare in self._all.values():
            if spare.proven and not spare.joins and not spare.lent:
                spare.joins = True
                with contextlib.suppress(OSError):
                    spare.channel.send(_JOIN)

    def _drop(self, fd: int) -> None:
        """It is dead, or not wanted any more."""
        spare = self._all.pop(fd)
        spare.channel.close()
        if not spare.proven:
            self._tries -= 1
        self._bury(spare)

    def _bury(self, spare: _Spare) -> None:
        self._graves.add(_name(spare.pid, spare.lives))
        self._sweep_at = time.monotonic() + SWEEP

    def _sweep(self) -> None:
        """Groups of spares that are gone. One that is not empty belongs to a monitor which has yet to rename it."""
        for name in list(self._graves):
            if not _remove_group(self._layout, name):
                self._graves.discard(name)
        self._sweep_at = time.monotonic() + SWEEP

    def turn(self) -> None:
        """Makes what is missing, gives back what nobody needs."""
        now = time.monotonic()
        if self._graves and now >= self._sweep_at:
            self._sweep()
        if self._join_at is not None and now >= self._join_at:
            self._join()
        if self._all and now >= self._until and self._fill_at is None:
            self.dismiss()
        if self._fill_at is None or now < self._fill_at:
            return
        self._fill_at, self._until = None, now + IDLE
        have = sum(spare.idle for spare in self._all.values())
        if have <= LOW and self._tries:
            for _ in range(WANTED - have):
                self._add()

    def _add(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return
        if pid == 0:
            try:
                ours.close()
                self.forget()
                self._alone()
                _wait(self._layout, theirs, self._prepare)
            finally:
                os._exit(0)
        theirs.close()
        self._all[ours.fileno()] = _Spare(pid, ours)

    def forget(self) -> None:
        """In a child: they are not its affair."""
        for spare in self._all.values():
            spare.channel.close()
        self._all = {}

    def dismiss(self) -> None:
        for fd in list(self._all):
            spare = self._all.pop(fd)
            spare.channel.close()
            self._bury(spare)


def _name(pid: int, lives: int) -> str:
    """Another one each time: the supervisor looks for the last one to remove it."""
    return f"spare-{pid}-{lives}"


def _left_over(layout: cg.Layout) -> set[str]:
    """Groups of spares that were killed together with their supervisor."""
    found: set[str] = set()
    for root in layout.roots.values():
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(root / PARENT) if name.startswith("spare-")]
            found.update(name for name in names if not _held(name.split("-")[1]))
    return found


def _held(pid: str) -> bool:
    """Whether it lives and its supervisor does."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
        with open(f"/proc/{parent}/comm", encoding="utf-8", errors="replace") as file:
            return state not in "ZX" and file.read() == "wb-supervisor\n"
    except OSError:
        return False


def _remove_group(layout: cg.Layout, name: str) -> bool:
    """Whether some of it is still there."""
    left = False
    for root in layout.roots.values():
        try:
            os.rmdir(root / PARENT / name)
        except OSError as error:
            left = left or error.errno == errno.EBUSY
    return left


def _wait(layout: cg.Layout, channel: socket.socket, prepare: Callable[[], Serve]) -> None:
    clean = _Clean()
    for life in range(LIVES):
        if not _life(layout, channel, prepare, life):
            return
        clean.up()
        with contextlib.suppress(BlockingIOError):
            if not channel.recv(16, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return


def _life(layout: cg.Layout, channel: socket.socket, prepare: Callable[[], Serve], life: int) -> bool:
    """Until it was a container's monitor, or (False) until nobody wants it."""
    parked = park(layout, _name(os.getpid(), life))
    try:
        serve = prepare()
        channel.send(_PREPARED)
        while True:
            raw, fds, _flags, _address = socket.recv_fds(channel, 16, 1, socket.MSG_CMSG_CLOEXEC)
            if not raw:
                return False
            if parked is not None:
                parked.join()
            if fds:
                with socket.socket(fileno=fds[0]) as connection:
                    if serve(connection, parked, lambda: _taken(channel)):
                        parked = None
                        return True
            if raw != _JOIN:
                channel.send(_READY)
    except BrokenPipeError:  # there is no supervisor any more
        return False
    finally:
        with contextlib.suppress(OSError):
            if parked is not None:
                parked.discard()


def _taken(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        channel.send(_TAKEN)


class _Clean:
    """What a spare has at the beginning; `up` makes it so again, or ends the process."""

    def __init__(self) -> None:
        self._fds = {0, 1, 2, *_open()}
        self._size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def up(self) -> None:
        gc.collect()  # objects first: what is closed under them they would close again, when it is another's
        tiny_exec.forget()
        for fd in _open() - self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while True:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    os._exit(0)  # a child goes on
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > self._size + _GROWN:
            os._exit(0)
        init_namespaces.back_to_own()
        libc.set_name("wb-supervisor")


def _open() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}
