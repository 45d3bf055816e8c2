"""What a network needs of the host's packet filter: its own nf_tables tables, and a way past a foreign FORWARD policy.

Each network has a table of the family inet, named as its bridge, made in one transaction and removed as one object:
nobody else's table is touched, and two data roots or a Docker daemon beside this engine cannot collide with it.
Published ports are elements of maps, so that a container's coming and going moves no rule.

**127.0.0.0/8 and ::1 are never translated.** A port bound to 127.0.0.1 has no entry here at all, and the others do not match it:
the monitor's proxy serves the loopback. So the bridge needs no `route_localnet`, which would let a neighbour on the
same link (or a container) reach the host's loopback (CVE-2020-8558 and its kin).

**A network's own containers reach its published ports through the proxy too**, as they do with Docker: nothing that comes
from the bridge is translated. With br_netfilter (a Docker on the host loads it) the kernel would turn such a packet round in
the bridge, where a port never sends a frame back to its sender, and isolated ports (`enable_icc=false`) none to each other.

**A foreign FORWARD policy.** A packet must be accepted by every base chain. Docker (and ufw) set the policy of
`filter FORWARD` to drop, and no rule in a table of ours can overrule it. Docker's own answer for others is a rule in that
chain. Ours go to its very end, where only packets arrive that no rule of Docker, ufw or the administrator has spoken
about; they name our bridge alone, carry a comment that says whose they are, and go with the network. What they let
through has been judged by our own forward chain, which keeps our containers off other bridges (Docker's own rules for that
rely on the policy). The chains of iptables-legacy are out of reach: where they drop, `blocked` says so. A chain that ends in an explicit drop or reject gets them in front of that.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import struct
from collections.abc import Iterable

from engine.linux import nftables as nft
from engine.linux import xtables
from engine.linux.netlink import Netlink, NetlinkError
from engine.linux.nftables import Batch, Hook
from engine.runtime.netconfig import METADATA_ADDRESSES, Endpoint, NetworkConfig, PublishedPort

DSTNAT, FILTER, SRCNAT, GUARD = -100, 0, 100, -300
_PROTOCOLS = {"tcp": 6, "udp": 17}


def network_batch(network: NetworkConfig) -> Batch:
    """The table of one network. Commit raises EEXIST when it is there."""
    batch = Batch(nft.INET, network.bridge).add_table()
    for name, address in (("4", 4), ("6", 16)):
        batch.add_set(f"ports{name}", address + 8, address + 4)  # address . protocol . port → address . port
        batch.add_set(f"any{name}", 8, address + 4)  # protocol . port → address . port
    batch.add_chain("prerouting", Hook("nat", nft.PREROUTING, DSTNAT))
    batch.add_chain("output", Hook("nat", nft.OUTPUT, DSTNAT))
    batch.add_chain("postrouting", Hook("nat", nft.POSTROUTING, SRCNAT))
    batch.add_chain("forward", Hook("filter", nft.FORWARD, FILTER))
    if not network.internal:
        for chain in ("prerouting", "output"):
            others = nft.iif(network.bridge, nft.NEQ) if chain == "prerouting" else b""
            _destination(batch, chain, 4, others)
            _destination(batch, chain, 6, others)
        _source(batch, network)
    _forward(batch, network)
    return batch


def _destination(batch: Batch, chain: str, version: int, others: bytes) -> None:
    size, offset, family = (4, 16, nft.IPV4) if version == 4 else (16, 24, nft.IPV6)
    words = size // 4
    here = nft.family_is(family) + others
    if version == 4:
        here += nft.payload(nft.NETWORK, offset, 1) + nft.cmp(b"\x7f", nft.NEQ)
    else:
        here += nft.payload(nft.NETWORK, offset, size) + nft.cmp(b"\0" * 15 + b"\1", nft.NEQ)
    key = nft.payload(nft.NETWORK, offset, size, 0) + nft.meta(nft.L4PROTO, words)
    key += nft.payload(nft.TRANSPORT, 2, 2, words + 1)
    batch.add_rule(chain, here, key, nft.lookup(f"ports{version}", into=8), nft.dnat(family, 8, 8 + words))
    key = nft.meta(nft.L4PROTO, 0) + nft.payload(nft.TRANSPORT, 2, 2, 1)
    batch.add_rule(
        chain, here, nft.to_local(), key, nft.lookup(f"any{version}", into=8), nft.dnat(family, 8, 8 + words)
    )


def _source(batch: Batch, network: NetworkConfig) -> None:
    for gateway in network.gateways():
        size, offset, family = (4, 12, nft.IPV4) if gateway.version == 4 else (16, 8, nft.IPV6)
        inside = nft.family_is(family) + nft.payload(nft.NETWORK, offset, size)
        inside += nft.bitwise(gateway.network.netmask.packed) + nft.cmp(gateway.network.network_address.packed)
        if network.masquerade:
            batch.add_rule("postrouting", inside, nft.oif(network.bridge, nft.NEQ), nft.masquerade())


def _forward(batch: Batch, network: NetworkConfig) -> None:
    ours, accept, drop = network.bridge, nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
    batch.add_rule("forward", nft.iif(ours), nft.oif(ours), accept)
    if network.internal:
        batch.add_rule("forward", nft.iif(ours), drop)
        batch.add_rule("forward", nft.oif(ours), drop)
        return
    known, mapped = nft.state(nft.ESTABLISHED | nft.RELATED), nft.status(nft.DST_NAT)
    # In: answers, and what a published port has brought.
    batch.add_rule("forward", nft.oif(ours), known, accept)
    batch.add_rule("forward", nft.oif(ours), mapped, accept)
    batch.add_rule("forward", nft.oif(ours), drop)
    # Out: anywhere but to other engines' bridges, unless they publish it.
    batch.add_rule("forward", nft.iif(ours), known, accept)
    batch.add_rule("forward", nft.iif(ours), mapped, accept)
    for prefix in ("docker", "podman"):
        batch.add_rule("forward", nft.iif(ours), nft.oif_prefix(prefix), drop)
    # "br-" and twelve more, the last of them there: Docker's names, and not a user's br-lan.
    full = nft.meta(nft.OIFNAME) + nft.bitwise(b"\0" * 14 + b"\xff\0") + nft.cmp(b"\0" * 16, nft.NEQ)
    batch.add_rule("forward", nft.iif(ours), nft.oif_prefix("br-"), full, drop)


def guard_batch(network: NetworkConfig) -> Batch:
    """A table of the family bridge that drops what guarded ports send to the metadata addresses.

    By the port that a frame comes in on, not by its sender's address: a container may forge that. What makes a program
    fail at once, instead of waiting, is a route inside (`rtnetlink.unreachable`).
    """
    batch = Batch(nft.BRIDGE, network.bridge).add_table().add_set("guarded", 16)
    batch.add_chain("prerouting", Hook("filter", nft.PREROUTING, GUARD))
    from_guarded = nft.meta(nft.IIFNAME) + nft.lookup("guarded")
    for address in map(ipaddress.ip_address, METADATA_ADDRESSES):
        kind, offset = (b"\x08\x00", 16) if address.version == 4 else (b"\x86\xdd", 24)
        target = nft.meta(nft.PROTOCOL) + nft.cmp(kind) + nft.payload(nft.NETWORK, offset, len(address.packed))
        batch.add_rule("prerouting", from_guarded, target, nft.cmp(address.packed), nft.verdict(nft.DROP))
    return batch


def ensure(sock: Netlink, batch: Batch) -> bool:
    """Commits; False when the table was there."""
    try:
        batch.commit(sock)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


# --- published ports ------------------------------------------------------------------------------


def _port(number: int) -> bytes:
    return struct.pack(">H", number) + b"\0\0"


def port_elements(port: PublishedPort, endpoint: Endpoint) -> list[tuple[str, bytes, bytes]]:
    """(map, key, data) of one published port; none for the loopback and for what the endpoint has no address of."""
    host = ipaddress.ip_address(port.host_ip)
    if host.is_loopback:
        return []
    text = endpoint.address4 if host.version == 4 else endpoint.address6
    if not text:
        return []
    key = struct.pack("=I", _PROTOCOLS[port.protocol]) + _port(port.host_port)
    data = ipaddress.ip_interface(text).ip.packed + _port(port.container_port)
    if host.is_unspecified:
        return [(f"any{host.version}", key, data)]
    return [(f"ports{host.version}", host.packed + key, data)]


def publish(sock: Netlink, ports: Iterable[PublishedPort], endpoint: Endpoint) -> None:
    """Adds the ports; what a killed monitor has left under the same key is replaced."""
    elements = _by_map(ports, endpoint)
    if not elements:
        return
    try:
        _commit(sock, endpoint, elements)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        withdraw(sock, ports, endpoint)
        _commit(sock, endpoint, elements)


def republish(sock: Netlink, ports: Iterable[PublishedPort], before: Endpoint, endpoint: Endpoint) -> None:
    """The ports lead to `endpoint` instead of `before`, in one transaction: no packet finds none."""
    elements, old = _by_map(ports, endpoint), _by_map(ports, before)
    if before.network.bridge != endpoint.network.bridge:
        publish(sock, ports, endpoint)
        return
    batch = Batch(nft.INET, endpoint.network.bridge)
    for name, pairs in old.items():
        batch.delete_elements(name, [key for key, _ in pairs])
    for name, pairs in elements.items():
        batch.add_elements(name, pairs)
    try:
        if elements or old:
            batch.commit(sock)
    except NetlinkError:  # somebody flushed them: what is missing is added
        publish(sock, ports, endpoint)


def _by_map(ports: Iterable[PublishedPort], endpoint: Endpoint) -> dict[str, list[tuple[bytes, bytes]]]:
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    for port in ports:
        for name, key, data in port_elements(port, endpoint):
            found.setdefault(name, []).append((key, data))
    return found


def _commit(sock: Netlink, endpoint: Endpoint, elements: dict[str, list[tuple[bytes, bytes]]]) -> None:
    batch = Batch(nft.INET, endpoint.network.bridge)
    for name, pairs in elements.items():
        batch.add_elements(name, pairs)
    batch.commit(sock)


def withdraw(sock: Netlink, ports: Iterable[PublishedPort], endpoint: Endpoint) -> None:
    """Removes the ports that are there."""
    elements = _by_map(ports, endpoint)
    batch = Batch(nft.INET, endpoint.network.bridge)
    for name, pairs in elements.items():
        batch.delete_elements(name, [key for key, _ in pairs])
    try:
        batch.commit(sock)
    except NetlinkError:  # one of them is missing, or the table: one by one, then
        for name, pairs in elements.items():
            for key, _ in pairs:
                with contextlib.suppress(NetlinkError):
                    Batch(nft.INET, endpoint.network.bridge).delete_elements(name, [key]).commit(sock)


def set_guard(sock: Netlink, endpoint: Endpoint, *, on: bool) -> None:
    batch = Batch(nft.BRIDGE, endpoint.network.bridge)
    key = nft.interface(endpoint.host_link)
    if on:
        ensure(sock, guard_batch(endpoint.network))
        batch.add_elements("guarded", [(key, b"")]).commit(sock)
    else:
        with contextlib.suppress(NetlinkError):
            batch.delete_elements("guarded", [key]).commit(sock)


# --- past a foreign policy ------------------------------------------------------------------------


def _note(network: NetworkConfig) -> str:
    return f"container-workbench network {network.id[:12]}"


def ensure_pass(sock: Netlink, network: NetworkConfig) -> None:
    """See the module. Nothing to do where there is no such chain, or our rules are in it."""
    for family, gateway in ((nft.IPV4, network.gateway4), (nft.IPV6, network.gateway6)):
        if not gateway or (network.internal and not os.path.exists("/proc/sys/net/bridge")):
            continue
        chain = nft.get_chain(sock, family, "filter", "FORWARD")
        if chain is None or not chain.hook:
            continue
        present = nft.rules(sock, family, "filter", "FORWARD")
        if any(rule.comment == _note(network) for rule in present):
            continue
        last = present[-1] if present else None
        ends = last is not None and [name for name, _ in last.expressions if name != "counter"]
        final = last.handle if last and _is_refusal(ends or [], last) else 0
        batch = Batch(family, "filter")
        for match in (nft.iif(network.bridge), nft.oif(network.bridge)):
            rule = (match, nft.counter(), nft.verdict(nft.ACCEPT))
            if final:
                batch.insert_rule("FORWARD", final, *rule, note=_note(network))
            else:
                batch.add_rule("FORWARD", *rule, note=_note(network))
        batch.commit(sock)


def blocked(network: NetworkConfig) -> str:
    """Why packets of the network are dropped where no rule of ours is heard, and what to do; "" when they are not."""
    for version, gateway in ((4, network.gateway4), (6, network.gateway6)):
        if not gateway or network.internal:
            continue
        try:
            drops = xtables.forward_drops(version, network.bridge)
        except OSError:  # it changed meanwhile, or may not be asked: nothing is known
            continue
        if drops:
            program, link = ("iptables-legacy" if version == 4 else "ip6tables-legacy"), network.bridge
            return (
                f"network {network.name}: this host's {program} drops forwarded packets, so its containers reach nothing "
                f"outside and other hosts not their ports: {program} -I FORWARD -i {link} -j ACCEPT; "
                f"{program} -I FORWARD -o {link} -j ACCEPT"
            )
    return ""


def _is_refusal(kinds: list[str], rule: nft.Rule) -> bool:
    """Whether a rule is an unconditional drop or reject: iptables writes the latter as a `target` expression."""
    if kinds == ["immediate"]:
        return rule.expressions[-1][1] == nft.expression_data(nft.verdict(nft.DROP))
    return kinds == ["reject"] or (kinds == ["target"] and b"REJECT\0" in rule.expressions[-1][1])


def passing(sock: Netlink) -> set[str]:
    """The networks (12 digits of their ids) that have rules of `ensure_pass`."""
    begin = "container-workbench network "
    notes = {rule.comment for family in (nft.IPV4, nft.IPV6) for rule in nft.rules(sock, family, "filter", "FORWARD")}
    return {note.removeprefix(begin) for note in notes if note.startswith(begin)}


def remove_pass(sock: Netlink, network: NetworkConfig) -> None:
    for family in (nft.IPV4, nft.IPV6):
        for rule in nft.rules(sock, family, "filter", "FORWARD"):
            if rule.comment == _note(network):
                with contextlib.suppress(NetlinkError):
                    Batch(family, "filter").delete_rule("FORWARD", rule.handle).commit(sock)


def remove(sock: Netlink, network: NetworkConfig) -> None:
    """Everything of one network, in the order that leaves no hole open."""
    remove_pass(sock, network)
    for family in (nft.INET, nft.BRIDGE):
        with contextlib.suppress(NetlinkError):
            Batch(family, network.bridge).delete_table().commit(sock)
