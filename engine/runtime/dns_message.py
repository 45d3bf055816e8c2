"""DNS messages (RFC 1035), as much as a server for containers' names needs: read a question, write an answer."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, AAAA, ANY, OPT = 1, 2, 5, 6, 12, 28, 255, 41
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
TTL = 600  # seconds, as Docker's; answers are made anew for every question all the same
_HEADER = struct.Struct(">6H")
UDP_PLAIN = 512  # bytes a client takes that says nothing of its size


@dataclass(frozen=True, slots=True)
class Question:
    """What a query asks. `name` in lower case without the final dot; `size` is what the client takes by UDP."""

    id: int
    flags: int
    name: str
    type: int
    cls: int
    raw: bytes  # the question section, echoed in the answer
    edns: bool
    size: int

    @property
    def standard(self) -> bool:
        return not self.flags & 0x7800 and self.cls in (IN, 255)


def read_question(message: bytes) -> Question | None:
    """None when it is no query with one question that can be read."""
    if len(message) < 12:
        return None
    ident, flags, questions, _answers, _authority, additional = _HEADER.unpack_from(message)
    if flags & 0x8000 or questions != 1:
        return None
    labels: list[str] = []
    at = 12
    while True:
        if at >= len(message):
            return None
        length = message[at]
        at += 1
        if not length:
            break
        if length > 63 or at + length > len(message) or len(labels) > 127:
            return None  # a pointer has nothing to point to in the first name
        labels.append(message[at : at + length].decode("latin-1").lower())
        at += length
    if at + 4 > len(message):
        return None
    kind, cls = struct.unpack_from(">HH", message, at)
    at += 4
    edns, size = False, UDP_PLAIN
    # An OPT record (RFC 6891) is a root name, so it begins with 0 and has fixed places.
    if additional and at + 11 <= len(message) and message[at] == 0:
        record, payload = struct.unpack_from(">HH", message, at + 1)
        if record == OPT:
            edns, size = True, max(UDP_PLAIN, payload)
    return Question(ident, flags, ".".join(labels), kind, cls, message[12:at], edns, size)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def answer(question: Question, records: Sequence[tuple[int, bytes]] = (), code: int = NOERROR, *, udp: bool) -> bytes:
    """The reply. `records` are (type, data) for the name that was asked. Truncated (TC) where UDP has no room."""
    flags = 0x8080 | question.flags & 0x7900 | code  # QR, RA, what was asked of opcode and RD
    limit = question.size if udp else 65535
    body = b""
    count = 0
    for kind, data in records:
        record = b"\xc0\x0c" + struct.pack(">HHIH", kind, IN, TTL, len(data)) + data
        if 12 + len(question.raw) + len(body) + len(record) + (11 if question.edns else 0) > limit:
            flags |= 0x0200
            break
        body += record
        count += 1
    extra = b"\0" + struct.pack(">HHIH", OPT, 4096, 0, 0) if question.edns else b""
    header = _HEADER.pack(question.id, flags, 1, count, 0, 1 if extra else 0)
    return header + question.raw + body + extra


def encode_name(name: str) -> bytes:
    """Labels of a name; what is too long for a label is cut."""
    out = b""
    for label in name.rstrip(".").split("."):
        raw = label.encode("latin-1", "replace")[:63]
        out += bytes([len(raw)]) + raw
    return out + b"\0"


def reverse_name(name: str) -> Address | None:
    """The address that `x.y.z.w.in-addr.arpa` or an `ip6.arpa` name stands for."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        pass
    return None
