"""Netlink (netlink(7), rtnetlink(7)): messages, attributes, and a socket that sends many of them in one system call.

The kernel takes a datagram of several messages in order and answers each; one `sendmsg` so makes a link, its address and
its routes. Standard library only: the monitor uses this while a container starts.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

ROUTE, NETFILTER = 0, 12  # NETLINK_ROUTE, NETLINK_NETFILTER

# Flags of a message (linux/netlink.h).
REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_CAPPED, _ACK_TLVS = 0x100, 0x200
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_BUFFER = 1 << 18
_TIMEOUT = 30  # seconds; the kernel answers within the send, so this is for a bug, not for waiting


class NetlinkError(OSError):
    """The kernel refused a message; the text says which and, where the kernel tells, why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `what` names it in errors; an errno in `allow` counts as success; `ack` False: no answer comes."""

    type: int
    body: bytes
    flags: int = 0
    what: str = ""
    allow: frozenset[int] = field(default_factory=frozenset)
    ack: bool = True


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = 4 + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + b"\0" * (-size % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A string attribute, with its NUL."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def attributes(raw: bytes) -> dict[int, bytes]:
    """The attributes of a message or a nest by number; the last of a kind wins. Stops at what is no attribute."""
    return dict(attribute_list(raw))


def attribute_list(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(raw):
        size, kind = _ATTRIBUTE.unpack_from(raw, at)
        if size < 4 or at + size > len(raw):
            return
        yield kind & _TYPE_MASK, raw[at + 4 : at + size]
        at += size + (-size % 4)


class Netlink:
    """A netlink socket. It belongs to the network namespace that it was made in, whoever uses it later."""

    def __init__(self, protocol: int = ROUTE, *, groups: int = 0, sock: socket.socket | None = None) -> None:
        if sock is None:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            try:
                sock.bind((0, groups))
                sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # errors without a copy of the request
                sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)  # and with the kernel's own words
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _TIMEOUT, 0))
            except BaseException:
                sock.close()
                raise
        self.sock = sock
        self._sequence = 0

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, messages: Sequence[Message]) -> None:
        """All in one datagram; raises NetlinkError for the first that failed. The others have been tried as well."""
        waiting: dict[int, Message] = {}
        silent: dict[int, Message] = {}
        raw = b""
        for message in messages:
            self._sequence += 1
            (waiting if message.ack else silent)[self._sequence] = message
            flags = message.flags | REQUEST | (ACK if message.ack else 0)
            raw += _HEADER.pack(16 + len(message.body), message.type, flags, self._sequence, 0) + message.body
            raw += b"\0" * (-len(message.body) % 4)
        if not waiting:
            return
        self.sock.sendto(raw, (0, 0))
        failed: tuple[int, NetlinkError] | None = None
        while waiting:
            for kind, flags, sequence, payload in self._receive():
                if kind != NLMSG_ERROR:
                    continue
                number = -int(struct.unpack_from("=i", payload)[0])
                sent = waiting.pop(sequence, None)
                if sent is None:
                    if number and sequence in silent:  # a batch that failed as a whole: nothing else is answered
                        raise _error(number, silent[sequence].what, flags, payload)
                    continue
                if number and number not in sent.allow and (failed is None or sequence < failed[0]):
                    failed = (sequence, _error(number, sent.what, flags, payload))
        if failed:
            raise failed[1]

    def ask(self, message: Message) -> list[tuple[int, bytes]]:
        """The answers (type, body) to a GET request: of a dump when `message.flags` holds DUMP, else of one object."""
        self._sequence += 1
        dump = message.flags & DUMP == DUMP
        flags = message.flags | REQUEST | (0 if dump else ACK)
        raw = _HEADER.pack(16 + len(message.body), message.type, flags, self._sequence, 0) + message.body
        self.sock.sendto(raw, (0, 0))
        found: list[tuple[int, bytes]] = []
        while True:
            for kind, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    number = -int(struct.unpack_from("=i", payload)[0])
                    if number and number not in message.allow:
                        raise _error(number, message.what, flags, payload)
                    return found
                found.append((kind, payload))

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        raw = self.sock.recv(_BUFFER)
        at = 0
        while at + 16 <= len(raw):
            size, kind, flags, sequence, _port = _HEADER.unpack_from(raw, at)
            if size < 16:
                return
            yield kind, flags, sequence, raw[at + 16 : at + size]
            at += size + (-size % 4)


def _error(number: int, what: str, flags: int, payload: bytes) -> NetlinkError:
    words = ""
    if flags & _ACK_TLVS:
        # struct nlmsgerr: errno, then the request's header (alone, when capped), then attributes; 1 is the message.
        start = 20 if flags & _CAPPED else 4 + struct.unpack_from("=I", payload, 4)[0]
        words = attributes(payload[start:]).get(1, b"").rstrip(b"\0").decode("utf-8", "replace")
    reason = os.strerror(number) + (f" ({words})" if words else "")
    return NetlinkError(number, f"{what}: {reason}" if what else reason)


EEXIST = frozenset((errno.EEXIST,))
ENOENT = frozenset((errno.ENOENT,))
GONE = frozenset((errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL))
