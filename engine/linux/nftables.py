"""nf_tables over netlink (linux/netfilter/nf_tables.h): tables, chains, sets, maps and rules without libnftables.

A `Batch` collects changes and commits them in one transaction: all of it or nothing. Expressions are the kernel's own
(`meta`, `payload`, `cmp`, …), each a function here that returns its encoding; registers are the 4-byte ones, numbered
from 0, so that the parts of a concatenated key lie side by side.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from engine.linux import netlink as nl
from engine.linux.netlink import Message, Netlink, attribute, nested, text

IPV4, IPV6, INET, BRIDGE = 2, 10, 1, 7
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
DROP, ACCEPT, RETURN, JUMP = 0, 1, -5, -3
EQ, NEQ = 0, 1

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE, NEWSET = range(10)
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
_SET_MAP = 0x8
_REG_0 = 8  # NFT_REG32_00
EVENTS_GROUP = 1 << (7 - 1)  # NFNLGRP_NFTABLES as a bind(2) mask

# meta keys
PROTOCOL, MARK, IIFNAME, OIFNAME, NFPROTO, L4PROTO = 1, 3, 6, 7, 15, 16
# payload bases
LINK, NETWORK, TRANSPORT = 0, 1, 2
# ct keys and bits (host byte order)
CT_STATE, CT_STATUS = 0, 2
ESTABLISHED, RELATED = 0x2, 0x4
DST_NAT = 0x20
LOCAL = 2  # RTN_LOCAL


def be32(kind: int, value: int) -> bytes:
    """nf_tables counts in network byte order."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">Q", value))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


# --- expressions ----------------------------------------------------------------------------------


def meta(key: int, register: int = 0) -> bytes:
    return _expression("meta", be32(2, key), be32(1, _REG_0 + register))


def cmp(data: bytes, operator: int = EQ, register: int = 0) -> bytes:
    return _expression("cmp", be32(1, _REG_0 + register), be32(2, operator), _value(3, data))


def payload(base: int, offset: int, length: int, register: int = 0) -> bytes:
    return _expression("payload", be32(1, _REG_0 + register), be32(2, base), be32(3, offset), be32(4, length))


def bitwise(mask: bytes, register: int = 0) -> bytes:
    where = _REG_0 + register
    zero = b"\0" * len(mask)
    return _expression("bitwise", be32(1, where), be32(2, where), be32(3, len(mask)), _value(4, mask), _value(5, zero))


def conntrack(key: int, register: int = 0) -> bytes:
    return _expression("ct", be32(2, key), be32(1, _REG_0 + register))


def fib_type(register: int = 0) -> bytes:
    """The kind of address that the destination is here (RTN_LOCAL, …), by the routing table."""
    return _expression("fib", be32(1, _REG_0 + register), be32(2, 3), be32(3, 0x2))


def lookup(name: str, register: int = 0, *, into: int | None = None) -> bytes:
    """Goes on when the key is in the set; of a map, its data is put `into`."""
    target = [] if into is None else [be32(3, _REG_0 + into)]
    return _expression("lookup", text(1, name), be32(2, _REG_0 + register), *target)


def verdict(code: int, chain: str = "") -> bytes:
    inside = [be32(1, code), *([text(2, chain)] if chain else [])]
    return _expression("immediate", be32(1, 0), nested(2, nested(2, *inside)))


def load(data: bytes, register: int = 0) -> bytes:
    return _expression("immediate", be32(1, _REG_0 + register), _value(2, data))


def dnat(family: int, address: int, port: int) -> bytes:
    """To the address and port that the two registers hold."""
    return _expression("nat", be32(1, 1), be32(2, family), be32(3, _REG_0 + address), be32(5, _REG_0 + port))


def masquerade() -> bytes:
    return _expression("masq")


def reject() -> bytes:
    """ICMP (or ICMPv6) "administratively prohibited": a connect(2) fails at once."""
    return _expression("reject", be32(1, 2), attribute(2, bytes([3])))


def counter() -> bytes:
    return _expression("counter", be64(1, 0), be64(2, 0))


def expression_data(encoded: bytes) -> bytes:
    """The attributes inside an encoded expression, as `Rule.expressions` has them."""
    return nl.attributes(nl.attributes(encoded)[1])[2]


# --- what rules are made of most ------------------------------------------------------------------


def interface(name: str) -> bytes:
    """An interface name as the kernel compares it: 16 bytes."""
    return name.encode().ljust(16, b"\0")


def iif(name: str, operator: int = EQ) -> bytes:
    return meta(IIFNAME) + cmp(interface(name), operator)


def oif(name: str, operator: int = EQ) -> bytes:
    return meta(OIFNAME) + cmp(interface(name), operator)


def oif_prefix(name: str) -> bytes:
    return meta(OIFNAME) + cmp(name.encode())


def family_is(family: int) -> bytes:
    return meta(NFPROTO) + cmp(bytes([family]))


def state(bits: int) -> bytes:
    return conntrack(CT_STATE) + bitwise(struct.pack("=I", bits)) + cmp(b"\0\0\0\0", NEQ)


def status(bits: int) -> bytes:
    return conntrack(CT_STATUS) + bitwise(struct.pack("=I", bits)) + cmp(b"\0\0\0\0", NEQ)


def to_local() -> bytes:
    return fib_type() + cmp(struct.pack("=I", LOCAL))


def comment(words: str) -> bytes:
    """A rule's comment, as `nft` and `iptables-nft` show it (libnftnl's user data: type 0, length, text)."""
    raw = words.encode()[:250] + b"\0"
    return bytes([0, len(raw)]) + raw


# --- transactions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain hangs. `kind` is filter or nat; `policy` ACCEPT or DROP."""

    kind: str
    number: int
    priority: int
    policy: int = ACCEPT


def _header(family: int, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


class Batch:
    """Changes to be committed together."""

    def __init__(self, family: int, table: str) -> None:
        self.family, self.table = family, table
        self._messages: list[Message] = []

    def __len__(self) -> int:
        return len(self._messages)

    def _add(self, kind: int, flags: int, what: str, *attributes: bytes, allow: frozenset[int] = frozenset()) -> Batch:
        body = _header(self.family) + b"".join(attributes)
        self._messages.append(Message(_SUBSYSTEM << 8 | kind, body, flags, f"nf_tables {what}", allow))
        return self

    def add_table(self) -> Batch:
        """Fails (EEXIST), and the whole batch with it, when the table is there: so it is there whole or not at all."""
        return self._add(NEWTABLE, nl.CREATE | nl.EXCL, f"table {self.table}", text(1, self.table), be32(2, 0))

    def delete_table(self) -> Batch:
        return self._add(DELTABLE, 0, f"delete table {self.table}", text(1, self.table))

    def add_chain(self, name: str, hook: Hook | None = None) -> Batch:
        more: list[bytes] = []
        if hook is not None:
            more = [nested(4, be32(1, hook.number), be32(2, hook.priority)), be32(5, hook.policy), text(7, hook.kind)]
        return self._add(NEWCHAIN, nl.CREATE, f"chain {self.table} {name}", text(1, self.table), text(3, name), *more)

    def add_set(self, name: str, key_length: int, data_length: int = 0) -> Batch:
        """A hash set, or with `data_length` a map. Lengths in bytes, each part of a key padded to four."""
        # The type numbers are for `nft list` alone; 0 is "invalid", which it prints as hex.
        kind = [be32(3, _SET_MAP), be32(6, 5), be32(7, data_length)] if data_length else [be32(3, 0)]
        ident = len(self._messages) + 1
        return self._add(
            NEWSET,
            nl.CREATE,
            f"set {self.table} {name}",
            text(1, self.table),
            text(2, name),
            *kind,
            be32(4, 5),
            be32(5, key_length),
            be32(10, ident),
        )

    def add_rule(self, chain: str, *expressions: bytes, note: str = "") -> Batch:
        more = [attribute(7, comment(note))] if note else []
        return self._add(
            NEWRULE,
            nl.CREATE | nl.APPEND,
            f"rule in {self.table} {chain}",
            text(1, self.table),
            text(2, chain),
            nested(4, *expressions),
            *more,
        )

    def insert_rule(self, chain: str, before: int, *expressions: bytes, note: str = "") -> Batch:
        """In front of the rule with the handle `before`."""
        more = [attribute(7, comment(note))] if note else []
        return self._add(
            NEWRULE,
            nl.CREATE,
            f"rule in {self.table} {chain}",
            text(1, self.table),
            text(2, chain),
            nested(4, *expressions),
            be64(6, before),
            *more,
        )

    def delete_rule(self, chain: str, handle: int) -> Batch:
        return self._add(
            DELRULE, 0, f"delete rule in {self.table} {chain}", text(1, self.table), text(2, chain), be64(3, handle)
        )

    def _elements(self, kind: int, flags: int, name: str, elements: Sequence[tuple[bytes, bytes]]) -> Batch:
        # Attribute lengths have 16 bits: some hundred elements a message.
        for start in range(0, len(elements), 400):
            part = [
                nested(1, _value(1, key), *([_value(2, data)] if data and kind == NEWSETELEM else []))
                for key, data in elements[start : start + 400]
            ]
            self._add(
                kind, flags, f"element of {self.table} {name}", text(1, self.table), text(2, name), nested(3, *part)
            )
        return self

    def add_elements(self, name: str, elements: Sequence[tuple[bytes, bytes]]) -> Batch:
        """Keys, with data for a map (b"" for a set). A key that is there with other data is an error (EEXIST)."""
        return self._elements(NEWSETELEM, nl.CREATE, name, elements)

    def delete_elements(self, name: str, keys: Sequence[bytes]) -> Batch:
        return self._elements(DELSETELEM, 0, name, [(key, b"") for key in keys])

    def commit(self, sock: Netlink) -> None:
        """Raises NetlinkError; nothing has changed then."""
        if not self._messages:
            return
        frame = _header(0, _SUBSYSTEM)
        begin = Message(_BATCH_BEGIN, frame, 0, f"nf_tables transaction on {self.table}", ack=False)
        end = Message(_BATCH_END, frame, 0, ack=False)
        sock.send([begin, *self._messages, end])


# --- looking --------------------------------------------------------------------------------------

NO_NFTABLES = frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT))


def open_socket(*, groups: int = 0) -> Netlink:
    return Netlink(nl.NETFILTER, groups=groups)


@dataclass(frozen=True, slots=True)
class Chain:
    hook: bool
    policy: int


def get_chain(sock: Netlink, family: int, table: str, name: str) -> Chain | None:
    """None when there is no such chain."""
    message = Message(
        _SUBSYSTEM << 8 | GETCHAIN,
        _header(family) + text(1, table) + text(3, name),
        0,
        f"nf_tables chain {table} {name}",
        frozenset((errno.ENOENT, *NO_NFTABLES)),
    )
    for _kind, body in sock.ask(message):
        found = nl.attributes(body[4:])
        return Chain(4 in found, struct.unpack(">I", found[5])[0] if 5 in found else ACCEPT)
    return None


def has_table(sock: Netlink, family: int, table: str) -> bool:
    """Raises NetlinkError where the kernel has no nf_tables."""
    message = Message(
        _SUBSYSTEM << 8 | GETTABLE,
        _header(family) + text(1, table),
        0,
        f"nf_tables table {table}",
        frozenset((errno.ENOENT,)),
    )
    return bool(sock.ask(message))


def tables(sock: Netlink, family: int) -> list[str]:
    """The names of a family's tables; none where the kernel has no nf_tables."""
    message = Message(_SUBSYSTEM << 8 | GETTABLE, _header(family), nl.DUMP, "nf_tables tables", NO_NFTABLES)
    found = []
    for _kind, body in sock.ask(message):
        if body[0] == family:  # nfgenmsg.nfgen_family
            found.append(nl.attributes(body[4:]).get(1, b"").rstrip(b"\0").decode())
    return found


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it lies in the kernel. `expressions` are (name, raw attributes)."""

    handle: int
    expressions: tuple[tuple[str, bytes], ...]
    comment: str


def rules(sock: Netlink, family: int, table: str, chain: str) -> list[Rule]:
    """The rules of one chain in order; none where there is no such chain."""
    message = Message(
        _SUBSYSTEM << 8 | GETRULE,
        _header(family) + text(1, table) + text(2, chain),
        nl.DUMP,
        f"nf_tables rules of {table} {chain}",
        frozenset((errno.ENOENT, *NO_NFTABLES)),
    )
    found = []
    for _kind, body in sock.ask(message):
        parts = nl.attributes(body[4:])
        if parts.get(1, b"").rstrip(b"\0").decode() != table or parts.get(2, b"").rstrip(b"\0").decode() != chain:
            continue
        expressions = []
        for _elem, raw in nl.attribute_list(parts.get(4, b"")):
            expression = nl.attributes(raw)
            expressions.append((expression[1].rstrip(b"\0").decode(), expression.get(2, b"")))
        found.append(Rule(struct.unpack(">Q", parts[3])[0], tuple(expressions), _comment(parts.get(7, b""))))
    return found


def _comment(raw: bytes) -> str:
    at = 0
    while at + 2 <= len(raw):
        kind, size = raw[at], raw[at + 1]
        if kind == 0:
            return raw[at + 2 : at + 2 + size].rstrip(b"\0").decode("utf-8", "replace")
        at += 2 + size
    return ""


def watch() -> socket.socket:
    """A socket that becomes readable when a table, chain or rule is removed or a chain changes, whoever does it.

    A classic BPF filter (socket(7), SO_ATTACH_FILTER) looks at the message type, so that the elements that come and go
    with containers wake nobody.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, nl.NETFILTER)
    try:
        wanted = [DELTABLE, NEWCHAIN, DELCHAIN, DELRULE]
        # ldh [4] (nlmsg_type, read big-endian), then one jeq for each.
        program = [(0x28, 0, 0, 4)]
        for index, kind in enumerate(wanted):
            number = socket.htons(_SUBSYSTEM << 8 | kind)
            program.append((0x15, len(wanted) - index, 0, number))
        program += [(0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
        raw = b"".join(struct.pack("=HBBI", *step) for step in program)
        _attach_filter(sock, raw, len(program))
        sock.bind((0, EVENTS_GROUP))
    except BaseException:
        sock.close()
        raise
    return sock


def _attach_filter(sock: socket.socket, raw: bytes, length: int) -> None:
    import ctypes

    buffer = ctypes.create_string_buffer(raw, len(raw))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", length, ctypes.addressof(buffer)))
