"""Links, addresses, routes and neighbours (rtnetlink(7)) as messages for `netlink.Netlink`.

Each function returns one `Message`, so that a caller sends what belongs together in one system call.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from engine.linux import netlink as nl
from engine.linux.netlink import Message, Netlink, attribute, nested, text, u8, u32

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH = 28, 29
IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_NET_NS_PID, _IFLA_AF_SPEC, _IFLA_EXT_MASK, _IFLA_PROTINFO = 19, 26, 29, 12
_GENERATE_NONE = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, u8(8, 1)))  # IFLA_INET6_ADDR_GEN_MODE: no link-local
_ADDRESS_NODAD, _ADDRESS_PERMANENT = 0x02, 0x80

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return struct.pack("=BBHiII", family, 0, 0, index, flags, change)


def mac_bytes(text_form: str) -> bytes:
    """Raises ValueError."""
    raw = bytes.fromhex(text_form.replace(":", "").replace("-", ""))
    if len(raw) != 6:
        raise ValueError(f"{text_form!r} is no MAC address")
    return raw


def new_bridge(name: str, mtu: int, mac: str) -> Message:
    """Down. A fixed address: one of its own would change whenever a port with a lower one joins."""
    body = _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu) + attribute(_IFLA_ADDRESS, mac_bytes(mac))
    body += nested(_IFLA_LINKINFO, text(1, "bridge"))
    return Message(NEWLINK, body, nl.CREATE | nl.EXCL, f"bridge {name}")


def new_veth(name: str, peer: str, pid: int, mtu: int, peer_mac: str) -> Message:
    """A pair, down: `name` here, `peer` in the network namespace of the process `pid` from the very beginning
    (to move it there afterwards takes the kernel some ten times as long)."""
    inside = _ifinfo() + text(_IFLA_IFNAME, peer) + u32(_IFLA_NET_NS_PID, pid) + u32(_IFLA_MTU, mtu)
    inside += attribute(_IFLA_ADDRESS, mac_bytes(peer_mac))
    body = _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    body += nested(_IFLA_LINKINFO, text(1, "veth"), nested(2, nested(1, inside)))
    return Message(NEWLINK, body, nl.CREATE | nl.EXCL, f"veth {name}")


def set_link(
    name: str = "", *, index: int = 0, up: bool | None = None, master: int | None = None, no_ipv6_address: bool = False
) -> Message:
    body = _ifinfo(index, IFF_UP if up else 0, IFF_UP if up is not None else 0)
    if name:
        body += text(_IFLA_IFNAME, name)
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    if no_ipv6_address:
        body += _GENERATE_NONE
    return Message(NEWLINK, body, 0, f"link {name or index}")


def isolate_port(name: str) -> Message:
    """A bridge port that exchanges frames with no other isolated port (IFLA_BRPORT_ISOLATED), only with the bridge itself."""
    body = _ifinfo() + text(_IFLA_IFNAME, name)
    body += nested(_IFLA_LINKINFO, text(4, "bridge"), nested(5, u8(33, 1)))  # IFLA_INFO_SLAVE_KIND and _DATA
    return Message(NEWLINK, body, 0, f"isolation of link {name}")


def delete_link(name: str) -> Message:
    return Message(DELLINK, _ifinfo() + text(_IFLA_IFNAME, name), 0, f"delete link {name}", frozenset((errno.ENODEV,)))


def add_address(index: int, address: Interface) -> Message:
    raw = address.ip.packed
    v6 = address.version == 6
    family = socket.AF_INET6 if v6 else socket.AF_INET
    body = struct.pack("=BBBBi", family, address.network.prefixlen, _ADDRESS_NODAD if v6 else 0, 0, index)
    body += attribute(2, raw) + attribute(1, raw)
    if not v6 and address.network.prefixlen < 31:
        body += attribute(4, address.network.broadcast_address.packed)
    return Message(NEWADDR, body, nl.CREATE | nl.EXCL, f"address {address}", nl.EEXIST)


def default_route(gateway: Address, index: int) -> Message:
    """By way of `gateway`, which need not be in a subnet of the link."""
    v6 = gateway.version == 6
    family = socket.AF_INET6 if v6 else socket.AF_INET
    # table main (254), protocol boot (3), scope universe (0), type unicast (1); RTNH_F_ONLINK (4)
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 3, 0, 1, 0 if v6 else 4)
    body += attribute(5, gateway.packed) + u32(4, index)
    return Message(NEWROUTE, body, nl.CREATE | nl.REPLACE, f"default route by {gateway}")


def delete_default_route(family: int) -> Message:
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 254, 0, 0xFF, 0, 0)
    return Message(DELROUTE, body, 0, "delete default route", nl.GONE)


def unreachable(address: Address) -> Message:
    """connect(2) to it fails at once (EHOSTUNREACH)."""
    v6 = address.version == 6
    family = socket.AF_INET6 if v6 else socket.AF_INET
    body = struct.pack("=BBBBBBBBI", family, address.max_prefixlen, 0, 0, 254, 3, 0, 7, 0)
    body += attribute(1, address.packed)
    return Message(NEWROUTE, body, nl.CREATE | nl.REPLACE, f"unreachable {address}")


def set_neighbour(index: int, address: Address, mac: str) -> Message:
    """What the host knows of an address's link layer, said anew (state REACHABLE, so that it ages as any other)."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    body = struct.pack("=BBHiHBB", family, 0, 0, index, 0x02, 0, 0)
    body += attribute(1, address.packed) + attribute(2, mac_bytes(mac))
    return Message(NEWNEIGH, body, nl.CREATE | nl.REPLACE, f"neighbour {address}")


# --- looking --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    up: bool
    mtu: int
    master: int  # index of the bridge it is a port of, 0 for none
    kind: str  # "bridge", "veth", "" for hardware
    mac: str


def links(sock: Netlink) -> list[Link]:
    message = Message(GETLINK, _ifinfo() + u32(_IFLA_EXT_MASK, 0), nl.DUMP, "list of links")
    return [_link(body) for kind, body in sock.ask(message) if kind == NEWLINK]


def get_link(sock: Netlink, name: str) -> Link | None:
    message = Message(GETLINK, _ifinfo() + text(_IFLA_IFNAME, name), 0, f"link {name}", frozenset((errno.ENODEV,)))
    for kind, body in sock.ask(message):
        if kind == NEWLINK:
            return _link(body)
    return None


def _link(body: bytes) -> Link:
    _family, _pad, _type, index, flags, _change = struct.unpack_from("=BBHiII", body)
    found = nl.attributes(body[16:])
    info = nl.attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index,
        found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        bool(flags & IFF_UP),
        struct.unpack("=I", found[_IFLA_MTU])[0] if _IFLA_MTU in found else 0,
        struct.unpack("=I", found[_IFLA_MASTER])[0] if _IFLA_MASTER in found else 0,
        info.get(1, b"").rstrip(b"\0").decode(),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def addresses(sock: Netlink, family: int = 0) -> list[tuple[int, Interface]]:
    """(link index, address) of every address."""
    found: list[tuple[int, Interface]] = []
    message = Message(GETADDR, struct.pack("=BBBBi", family, 0, 0, 0, 0), nl.DUMP, "list of addresses")
    for kind, body in sock.ask(message):
        if kind != NEWADDR:
            continue
        _family, prefix, _flags, _scope, index = struct.unpack_from("=BBBBi", body)
        parts = nl.attributes(body[8:])
        raw = parts.get(2) or parts.get(1)
        if raw:
            found.append((index, ipaddress.ip_interface((raw, prefix))))
    return found


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` of a default route is 0.0.0.0/0 or ::/0."""

    destination: Network
    index: int
    gateway: Address | None


def routes(sock: Netlink, family: int = socket.AF_INET) -> list[Route]:
    """Unicast routes of the main table."""
    found: list[Route] = []
    message = Message(GETROUTE, struct.pack("=BBBBBBBBI", family, *(0,) * 7, 0), nl.DUMP, "list of routes")
    any_address: Network = ipaddress.ip_network("::/0" if family == socket.AF_INET6 else "0.0.0.0/0")
    for kind, body in sock.ask(message):
        if kind != NEWROUTE:
            continue
        fields = struct.unpack_from("=BBBBBBBBI", body)
        prefix, table, route_type = fields[1], fields[4], fields[7]
        if table != 254 or route_type != 1:
            continue
        parts = nl.attributes(body[12:])
        destination: Network = ipaddress.ip_network((parts[1], prefix)) if 1 in parts else any_address
        index = struct.unpack("=I", parts[4])[0] if 4 in parts else 0
        gateway = ipaddress.ip_address(parts[5]) if 5 in parts else None
        found.append(Route(destination, index, gateway))
    return found
