"""Which addresses a network has and which one a container gets. Pure: what is taken is told, nothing is looked up.

The pools are Docker's (libnetwork ipamutils): 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in parts of /20. An IPv6
subnet is a random /64 of fd00::/8 (RFC 4193).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from engine.errors import Conflict, InvalidInput

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Pool:
    """One subnet of a network. `given` says that the user chose it: then containers may ask for an address."""

    subnet: Subnet
    gateway: Address
    ip_range: Subnet | None = None  # addresses that are not asked for come from here
    reserved: frozenset[Address] = frozenset()  # --aux-address
    given: bool = False

    @property
    def version(self) -> int:
        return self.subnet.version


def candidates() -> Iterator[IPv4Network]:
    """Docker's pools in Docker's order."""
    for second in range(17, 32):
        yield IPv4Network(f"172.{second}.0.0/16")
    yield from IPv4Network("192.168.0.0/16").subnets(new_prefix=20)


def choose(taken: Collection[Subnet]) -> IPv4Network:
    """The first pool that overlaps nothing in `taken`. Raises Conflict."""
    used = [subnet for subnet in taken if isinstance(subnet, IPv4Network) and subnet.prefixlen]
    for subnet in candidates():
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Conflict(
        "no free range of private addresses is left for a network",
        hint="remove networks that nothing uses (workbench network prune), or give one with --subnet",
    )


def choose_v6(identity: str) -> IPv6Network:
    """A /64 of the network's own: 40 bits of its id make the chance of meeting another one in a trillion."""
    digest = hashlib.sha256(identity.encode()).digest()
    return IPv6Network((int.from_bytes(b"\xfd" + digest[:7] + bytes(8), "big"), 64))


def first_host(subnet: Subnet) -> Address:
    """The address that a gateway gets when nobody says otherwise: Docker's ".1"."""
    return subnet[1] if subnet.num_addresses > 2 else subnet[0]


def parse_subnet(text: str, what: str = "subnet") -> Subnet:
    """Raises InvalidInput."""
    if "/" in text:
        try:
            return ipaddress.ip_network(text, strict=True)
        except ValueError:
            pass
    try:
        meant = ipaddress.ip_interface(text).network
    except ValueError:
        raise InvalidInput(f"invalid {what} {text!r}", hint="write it as 10.5.0.0/16 or fd12:3456::/64") from None
    if "/" not in text:
        raise InvalidInput(f"invalid {what} {text!r}: it has no prefix length", hint=f"{text}/24, for instance")
    raise InvalidInput(f"invalid {what} {text}: it should be {meant}")


def parse_address(text: str, what: str) -> Address:
    """Raises InvalidInput."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidInput(f"invalid {what} {text!r}: it is no IP address") from None


def make_pool(subnet: str, gateway: str = "", ip_range: str = "", auxiliary: Iterable[str] = ()) -> Pool:
    """A subnet as the user gave it, checked. Raises InvalidInput."""
    net = parse_subnet(subnet)
    if net.num_addresses < 4:
        raise InvalidInput(f"subnet {net} is too small for a gateway and a container", hint="a /30 has room for one")
    if (net.version == 6 and net.prefixlen > 126) or net.is_loopback or net.is_multicast:
        raise InvalidInput(f"subnet {net} cannot be a network's")
    router = parse_address(gateway, "gateway") if gateway else first_host(net)
    if router not in net:
        raise InvalidInput(f"no matching subnet for gateway {router}: it is not in {net}")
    inner = parse_subnet(ip_range, "ip-range") if ip_range else None
    if inner is not None and (inner.version != net.version or not inner.subnet_of(net)):  # type: ignore[arg-type]
        raise InvalidInput(f"no matching subnet for range {inner}: it is not in {net}")
    reserved = frozenset(parse_address(text, "aux-address") for text in auxiliary)
    for address in reserved:
        if address not in net:
            raise InvalidInput(f"no matching subnet for aux-address {address}: it is not in {net}")
    return Pool(net, router, inner, reserved, given=True)


def check_overlap(pool: Pool, others: Iterable[tuple[str, Subnet]]) -> None:
    """Raises Conflict when the pool meets another (owner, subnet)."""
    for owner, subnet in others:
        if subnet.version == pool.subnet.version and subnet.prefixlen and subnet.overlaps(pool.subnet):
            raise Conflict(
                f"Pool overlaps with other one on this address space: {pool.subnet} with {subnet} of {owner}",
                hint="choose another --subnet, or leave it out",
            )


def meets(pool: Pool, other: Subnet) -> bool:
    return other.version == pool.subnet.version and bool(other.overlaps(pool.subnet))


def usable(pool: Pool, address: Address) -> bool:
    """Whether a container may have the address at all."""
    subnet = pool.subnet
    if address not in subnet or address == pool.gateway or address in pool.reserved:
        return False
    if address == subnet.network_address:
        return False
    return not (subnet.version == 4 and address == subnet.broadcast_address)


def allocate(pool: Pool, taken: Collection[Address], wanted: Address | None = None) -> Address:
    """The address that was asked for, else the lowest free one. Raises InvalidInput, Conflict."""
    if wanted is not None:
        if wanted not in pool.subnet:
            raise InvalidInput(f"address {wanted} is not in the network's subnet {pool.subnet}")
        if not usable(pool, wanted):
            raise InvalidInput(f"address {wanted} is the network's own, its gateway or reserved")
        if wanted in taken:
            raise Conflict(f"Address already in use: {wanted}")
        return wanted
    area = pool.ip_range or pool.subnet
    for number in range(area.num_addresses):
        address: Address = area[number]
        if usable(pool, address) and address not in taken:
            return address
        if number > 1 << 20:  # an IPv6 subnet does not end within a lifetime; that many containers do not run
            break
    raise Conflict(
        f"no available IPv{pool.version} addresses on the network's pool {area}",
        hint="remove containers that are not needed, or make a network with a larger --subnet",
    )
