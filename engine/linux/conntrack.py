"""The kernel's table of connections, over ctnetlink (linux/netfilter/nfnetlink_conntrack.h): forgetting UDP flows.

A datagram flow that began before its port was published (or was led to a container that is gone) goes on as it began for
as long as its client sends: the address translation is decided by the first packet alone.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Collection

from engine.linux import netlink as nl
from engine.linux.netlink import Message, Netlink, NetlinkError, attribute, nested

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_UDP = 17


def forget_udp(sock: Netlink, ports: Collection[int]) -> int:
    """Deletes the UDP flows whose first packet went to one of `ports`. `sock` is a NETLINK_NETFILTER one. Returns how many."""
    count = 0
    for family in (2, 10):
        header = struct.pack(">BBH", family, 0, 0)
        message = Message(
            _SUBSYSTEM << 8 | _GET,
            header,
            nl.DUMP,
            "list of connections",
            frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT)),
        )
        for _kind, body in sock.ask(message):
            original = nl.attributes(body[4:]).get(1, b"")
            protocol = nl.attributes(nl.attributes(original).get(2, b""))
            if protocol.get(1) != bytes([_UDP]) or 3 not in protocol:
                continue
            if struct.unpack(">H", protocol[3])[0] not in ports:
                continue
            with contextlib.suppress(NetlinkError):
                sock.send([Message(_SUBSYSTEM << 8 | _DELETE, header + _again(original), 0, "delete connection")])
                count += 1
    return count


def _again(original: bytes) -> bytes:
    """The tuple as a request wants it: its parts are nests."""
    parts = nl.attributes(original)
    inside = [nested(kind, *(attribute(k, v) for k, v in nl.attribute_list(parts[kind]))) for kind in (1, 2)]
    if 3 in parts:
        inside.append(attribute(3, parts[3]))
    return nested(1, *inside)
