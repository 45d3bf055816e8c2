"""Carries connections and datagrams between a published port and the container, in a process of its own.

Forked from the monitor when the first one comes, so that an idle container pays nothing and a busy one does not keep its
log waiting. TCP data goes through pipes by splice(2) and is never copied into this process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from engine.linux import libc
from engine.runtime.ports import Held

_PIPE = 1 << 18
_IDLE_UDP = 90.0  # seconds after which a UDP client is forgotten (Docker's)
_MOST_UDP = 4096


def run(held: Sequence[Held], targets: Sequence[tuple[str, int]], keep: Sequence[int]) -> NoReturn:
    """The child's whole life: serves `held`, each to its target, until it is killed. `keep` are its descriptors."""
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(0)
        libc.set_name("wb-proxy")
        _close_others({*keep, *(each.sock.fileno() for each in held)})
        loop = _Loop()
        signal.signal(signal.SIGUSR1, lambda *_: loop.retire([each.sock for each in held]))
        for each, target in zip(held, targets, strict=True):
            if each.port.protocol == "tcp":
                loop.add(each.sock.fileno(), selectors.EVENT_READ, _Listener(loop, each.sock, target).accept)
            else:
                loop.add(each.sock.fileno(), selectors.EVENT_READ, _Datagrams(loop, each.sock, target).receive)
        loop.run()
    finally:
        os._exit(1)


def _close_others(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)


Handler = Callable[[int], None]


class _Loop:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.timers: list[Callable[[float], None]] = []

    def add(self, fd: int, events: int, handler: Handler) -> None:
        self.selector.register(fd, events, handler)

    def want(self, fd: int, events: int, handler: Handler) -> None:
        """Waits for `events`; 0 waits for nothing."""
        known = fd in self.selector.get_map()
        if not events:
            if known:
                self.selector.unregister(fd)
        elif known:
            if self.selector.get_key(fd).events != events:
                self.selector.modify(fd, events, handler)
        else:
            self.selector.register(fd, events, handler)

    def retire(self, listeners: Sequence[socket.socket]) -> None:
        """Another container's proxy has the ports now: what is connected goes on, nothing new is accepted."""
        for sock in listeners:
            if sock.fileno() in self.selector.get_map():
                self.selector.unregister(sock.fileno())
                sock.close()

    def run(self) -> NoReturn:
        while True:
            for key, events in self.selector.select(15 if self.timers else None):
                if key.fd in self.selector.get_map():
                    key.data(events)
            now = time.monotonic()
            for timer in self.timers:
                timer(now)


def _connect(target: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


class _Listener:
    def __init__(self, loop: _Loop, sock: socket.socket, target: tuple[str, int]) -> None:
        self.loop, self.sock, self.target = loop, sock, target

    def accept(self, _events: int) -> None:
        for _ in range(64):
            try:
                client, _address = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    time.sleep(0.05)  # others must end first
                return
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                server = _connect(self.target)
                _Connection(self.loop, client, server)
            except OSError:
                client.close()


class _Half:
    """One direction: from a socket into a pipe, from the pipe into the other socket."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.inside = 0
        self.ended = self.shut = False

    def pump(self) -> None:
        """Moves what can be moved now. Raises OSError when either end is broken."""
        while True:
            moved = False
            if not self.ended and not self.inside:
                with contextlib.suppress(BlockingIOError):
                    count = os.splice(self.source.fileno(), self.write_end, _PIPE)
                    self.ended = not count
                    self.inside += count
                    moved = bool(count)
            if self.inside:
                with contextlib.suppress(BlockingIOError):
                    count = os.splice(self.read_end, self.sink.fileno(), self.inside)
                    self.inside -= count
                    moved = moved or bool(count)
            if not moved:
                break
        if self.ended and not self.inside and not self.shut:
            self.shut = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


class _Connection:
    def __init__(self, loop: _Loop, client: socket.socket, server: socket.socket) -> None:
        self.loop, self.client, self.server = loop, client, server
        self.connected = False
        self.halves = (_Half(client, server), _Half(server, client))
        self.loop.want(server.fileno(), selectors.EVENT_WRITE, self.step)

    def step(self, _events: int) -> None:
        try:
            if not self.connected:
                failure = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failure:
                    raise OSError(failure, os.strerror(failure))
                self.connected = True
            for half in self.halves:
                half.pump()
        except OSError:
            self.close(reset=True)
            return
        if all(half.shut for half in self.halves):
            self.close(reset=False)
            return
        there, back_again = self.halves
        for sock, out, back in ((self.client, there, back_again), (self.server, back_again, there)):
            events = 0
            # While something is in the pipe the other end is full: to read on would spin on a pipe without room.
            if not out.ended and not out.inside:
                events |= selectors.EVENT_READ
            if back.inside:
                events |= selectors.EVENT_WRITE
            self.loop.want(sock.fileno(), events, self.step)

    def close(self, *, reset: bool) -> None:
        for sock in (self.client, self.server):
            self.loop.want(sock.fileno(), 0, self.step)
            if reset:  # tell the other end that it broke, as a direct connection would
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        for half in self.halves:
            half.close()


class _Datagrams:
    """One UDP port: a socket towards the container for each client, so that answers find their way back."""

    def __init__(self, loop: _Loop, sock: socket.socket, target: tuple[str, int]) -> None:
        self.loop, self.sock, self.target = loop, sock, target
        self.clients: dict[Any, tuple[socket.socket, float]] = {}
        loop.timers.append(self.forget)

    def receive(self, _events: int) -> None:
        for _ in range(256):
            try:
                data, client = self.sock.recvfrom(65535)
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._towards(client).send(data)

    def _towards(self, client: Any) -> socket.socket:
        known = self.clients.get(client)
        now = time.monotonic()
        if known is None:
            if len(self.clients) >= _MOST_UDP:
                self.forget(now + _IDLE_UDP)
            family = socket.AF_INET6 if ":" in self.target[0] else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            sock.connect(self.target)
            self.loop.add(sock.fileno(), selectors.EVENT_READ, lambda _events: self._back(sock, client))
        else:
            sock = known[0]
        self.clients[client] = (sock, now)
        return sock

    def _back(self, sock: socket.socket, client: Any) -> None:
        for _ in range(256):
            try:
                data = sock.recv(65535)
            except OSError:
                return
            with contextlib.suppress(OSError):
                self.sock.sendto(data, client)

    def forget(self, now: float) -> None:
        for client, (sock, seen) in list(self.clients.items()):
            if now - seen >= _IDLE_UDP:
                self.loop.want(sock.fileno(), 0, lambda _events: None)
                sock.close()
                del self.clients[client]
