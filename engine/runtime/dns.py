"""The name server of a container on user-defined networks: 127.0.0.11, served by its monitor.

Init has made the sockets inside the container's network namespace, on a free port, and one nf_tables rule there leads port
53 to it: the container's own port 53 stays free for a server of its own. What is no container's name goes to the host's
name servers, from the host's namespace; never, when all of the container's networks are internal (CVE-2024-29018).

The names come from the files `RUN/net/<bridge>.d/<endpoint>`, which every member's monitor writes for its container and
removes after it: so they are right without any engine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.runtime import dns_message as dm
from engine.runtime.loop import READ, WRITE, Loop, Timer
from engine.runtime.netconfig import Dns

ADDRESS = "127.0.0.11"
_WAIT = 4.0  # seconds for one upstream server
_TRIES = 3
_MOST = 256  # questions under way at once: more than that is a flood
_TCP_IDLE = 20.0


# --- names ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Named:
    """A container on one network as its file says."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]


class Directory:
    """The names of one network. A folder's time says whether it changed; a young one is read again anyway, since two
    changes within a clock tick look like one."""

    def __init__(self, path: str, network: str) -> None:
        self.path, self.network = path, network.lower()
        self._stamp = -1
        self._entries: list[Named] = []

    def entries(self) -> list[Named]:
        try:
            stamp = os.stat(self.path).st_mtime_ns
        except FileNotFoundError:
            return []
        if stamp != self._stamp:
            self._entries = self._read()
            self._stamp = stamp if time.time_ns() - stamp > 1_000_000_000 else -1
        return self._entries

    def _read(self) -> list[Named]:
        found = []
        for name in sorted(os.listdir(self.path)):
            if name.startswith("."):
                continue
            with contextlib.suppress(OSError, ValueError, KeyError), open(f"{self.path}/{name}", "rb") as file:
                document = json.loads(file.read())
                found.append(Named(tuple(n.lower() for n in document["names"]), tuple(document["addresses"])))
        return found

    def find(self, name: str) -> list[str] | None:
        """The addresses of `name`, None if nobody here has it."""
        short = name.removesuffix(f".{self.network}")
        found = [a for each in self.entries() if short in each.names or name in each.names for a in each.addresses]
        return found or None

    def reverse(self, address: str) -> str | None:
        for each in self.entries():
            if address in each.addresses and each.names:
                return f"{each.names[0]}.{self.network}"
        return None


def resolve(
    question: dm.Question, directories: Sequence[Directory], links: Mapping[str, str]
) -> list[tuple[int, bytes]] | None:
    """The records for a question about containers; None when it is about something else."""
    if not question.standard:
        return None
    if question.type == dm.PTR:
        address = dm.reverse_name(question.name)
        for directory in directories if address is not None else ():
            name = directory.reverse(str(address))
            if name:
                return [(dm.PTR, dm.encode_name(name))]
        return None
    for directory in directories:
        found = directory.find(links.get(question.name, question.name))
        if found is None:
            continue
        addresses = [ipaddress.ip_address(text) for text in found]
        addresses.sort(key=lambda _: os.urandom(4))
        records = []
        for address in addresses:
            kind = dm.A if address.version == 4 else dm.AAAA
            if question.type in (kind, dm.ANY):
                records.append((kind, address.packed))
        return records  # a name without an address of the family that was asked: it exists, and has none
    return None


# --- upstream -------------------------------------------------------------------------------------


class Upstream:
    """The servers to ask: those given, or the host's `/etc/resolv.conf` as it is now."""

    def __init__(self, given: Sequence[str], path: str = "/etc/resolv.conf") -> None:
        self._given, self._path = list(given), path
        self._stamp = 0
        self._servers: list[str] = []

    def servers(self) -> list[str]:
        if self._given:
            return self._given
        try:
            stamp = os.stat(self._path).st_mtime_ns
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    words = [line.split() for line in file]
                self._servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
                self._stamp = stamp
        except OSError:
            self._servers = []
        return self._servers


def _family(server: str) -> int:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


def _address(server: str) -> tuple[str, int]:
    return (server, 53)


class Server:
    """Serves one container. `loop` is the monitor's; nothing here blocks."""

    def __init__(self, loop: Loop, udp: socket.socket, tcp: socket.socket, config: Dns) -> None:
        self.loop, self._udp, self._tcp = loop, udp, tcp
        self.forward = True
        self._links: dict[str, str] = {}
        self.link(config.links)
        self.directories: list[Directory] = []
        self._upstream = Upstream(config.servers)
        self.pending: set[_Query] = set()
        self.streams: set[_Stream] = set()
        udp.setblocking(False)
        tcp.setblocking(False)
        loop.watch(udp.fileno(), READ, self._on_datagram)
        loop.watch(tcp.fileno(), READ, self._on_connect)

    def link(self, names: Mapping[str, str]) -> None:
        """Aliases that mean other names."""
        self._links.update({alias.lower(): name.lower() for alias, name in names.items()})

    def close(self) -> None:
        for query in list(self.pending):
            query.close()
        for stream in list(self.streams):
            stream.close()
        for sock in (self._udp, self._tcp):
            self.loop.forget(sock.fileno())
            sock.close()

    def _on_datagram(self, _fd: int, _events: int) -> None:
        for _ in range(64):
            try:
                message, client = self._udp.recvfrom(65535)
            except OSError:
                return

            def reply(raw: bytes, client: Any = client) -> None:
                with contextlib.suppress(OSError):
                    self._udp.sendto(raw, client)

            self.handle(message, reply, udp=True)

    def _on_connect(self, _fd: int, _events: int) -> None:
        with contextlib.suppress(OSError):
            sock, _address = self._tcp.accept()
            if len(self.streams) >= _MOST:
                sock.close()
                return
            sock.setblocking(False)
            self.streams.add(_Stream(self, sock))

    def handle(self, message: bytes, reply: Callable[[bytes], None], *, udp: bool) -> None:
        """Answers a query now, or sends it on."""
        question = dm.read_question(message)
        if question is None:
            if len(message) >= 12 and not message[2] & 0x80:
                reply(message[:2] + b"\x80\x01" + b"\0" * 8)  # FORMERR
            return
        records = resolve(question, self.directories, self._links)
        if records is not None:
            reply(dm.answer(question, records, udp=udp))
            return
        servers = self._upstream.servers() if self.forward else []
        if not servers or len(self.pending) >= _MOST:
            # On an internal network a name that no container has does not exist; without a server nobody knows.
            code = dm.NXDOMAIN if not self.forward else dm.SERVFAIL
            reply(dm.answer(question, (), code, udp=udp))
            return
        _Query(self, message, question, servers, reply, udp=udp)


class _Query:
    """A question on its way: one server after the other, the answer given back as it came."""

    def __init__(
        self,
        server: Server,
        message: bytes,
        question: dm.Question,
        servers: Sequence[str],
        reply: Callable[[bytes], None],
        *,
        udp: bool,
    ) -> None:
        self.server, self.question, self.reply, self.udp = server, question, reply, udp
        self.original = message
        self.ident = int.from_bytes(os.urandom(2))
        self.message = struct.pack(">H", self.ident) + message[2:]
        self.order = list(servers) * (1 if len(servers) >= _TRIES else 2)
        self.sock: socket.socket | None = None
        self.out = self.buffer = b""
        self.timer: Timer | None = None
        server.pending.add(self)
        self.next()

    def next(self) -> None:
        self._drop()
        while self.order:
            target = self.order.pop(0)
            kind = socket.SOCK_DGRAM if self.udp else socket.SOCK_STREAM
            try:
                self.sock = socket.socket(_family(target), kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
                with contextlib.suppress(BlockingIOError):
                    self.sock.connect(_address(target))
                if self.udp:
                    self.sock.send(self.message)
                    events = READ
                else:
                    self.out = struct.pack(">H", len(self.message)) + self.message
                    events = READ | WRITE
            except OSError:
                self._drop()
                continue
            self.timer = self.server.loop.later(_WAIT, self.next)
            self.server.loop.watch(self.sock.fileno(), events, self._ready)
            return
        self.finish(dm.answer(self.question, (), dm.SERVFAIL, udp=self.udp))

    def _ready(self, _fd: int, events: int) -> None:
        if self.sock is None:  # given up within the same round of the loop
            return
        try:
            if events & WRITE and self.out:
                self.out = self.out[self.sock.send(self.out) :]
                if not self.out:
                    self.server.loop.change(self.sock.fileno(), READ)
                return
            raw = self.sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # refused: the next one, at once
            self.next()
            return
        if not self.udp:
            if not raw:
                self.next()
                return
            self.buffer += raw
            if len(self.buffer) < 2 or len(self.buffer) < 2 + int.from_bytes(self.buffer[:2], "big"):
                return
            raw = self.buffer[2 : 2 + int.from_bytes(self.buffer[:2], "big")]
        # Only the answer to what was asked (the socket is connected, so only that server's): RFC 5452.
        question = self.original[12 : 12 + len(self.question.raw)].lower()
        right = len(raw) >= 12 and raw[:2] == self.message[:2] and raw[12 : 12 + len(question)].lower() == question
        if not right:
            return
        code = raw[3] & 0x0F
        if code in (dm.SERVFAIL, dm.REFUSED, dm.NOTIMP) and self.order:
            self.next()
            return
        self.finish(self.original[:2] + raw[2:])

    def finish(self, raw: bytes) -> None:
        self.close()
        self.reply(raw)

    def _drop(self) -> None:
        self.out = self.buffer = b""
        if self.timer is not None:
            self.timer.cancel()
        if self.sock is not None:
            self.server.loop.forget(self.sock.fileno())
            self.sock.close()
            self.sock = None

    def close(self) -> None:
        self._drop()
        self.server.pending.discard(self)


class _Stream:
    """A TCP client: questions with two bytes of length in front."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server, self.sock = server, sock
        self.buffer, self.out = b"", b""
        self.closed = False
        self.timer = server.loop.later(_TCP_IDLE, self.close)
        server.loop.watch(sock.fileno(), READ, self._ready)

    def _ready(self, _fd: int, events: int) -> None:
        if self.closed:
            return
        try:
            if events & WRITE:
                self._flush()
            if events & READ:
                raw = self.sock.recv(65535)
                if not raw:
                    self.close()
                    return
                self.buffer += raw
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self.timer.cancel()
        self.timer = self.server.loop.later(_TCP_IDLE, self.close)
        while len(self.buffer) >= 2 and not self.closed:
            size = int.from_bytes(self.buffer[:2], "big")
            if len(self.buffer) < 2 + size:
                return
            message, self.buffer = self.buffer[2 : 2 + size], self.buffer[2 + size :]
            self.server.handle(message, self._reply, udp=False)

    def _reply(self, raw: bytes) -> None:
        if self.closed:
            return
        self.out += struct.pack(">H", len(raw)) + raw
        try:
            self._flush()
        except OSError:
            self.close()

    def _flush(self) -> None:
        try:
            while self.out:
                self.out = self.out[self.sock.send(self.out) :]
        except BlockingIOError:
            pass
        self.server.loop.change(self.sock.fileno(), READ | (WRITE if self.out else 0))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.timer.cancel()
            self.server.loop.forget(self.sock.fileno())
            self.sock.close()
            self.server.streams.discard(self)
