"""Inside a container's new network namespace: what init makes there for its monitor (see `netns`), and the way to the name server."""

from __future__ import annotations

import socket
import struct

from engine.linux import namespace
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.runtime import bridges, dns, firewall
from engine.runtime.netconfig import ContainerNetwork


def open_inside(config: ContainerNetwork, channel: socket.socket) -> None:
    """Called by init right after unshare(2): settings that must be there before the links, and sockets for the monitor."""
    namespace.loopback_up()
    if config.mode != "bridge":
        return
    open_bridged(channel, ipv6=any(endpoint.address6 for endpoint in config.endpoints))


def open_bridged(channel: socket.socket, *, ipv6: bool) -> None:
    """`open_inside` for a container on bridges."""
    if not ipv6:
        # "default" for links to come, "all" for those that are there (CVE-2024-32473).
        for name in ("default", "all"):
            bridges.sysctl(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "1")
    netlink = (socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    udp.bind((dns.ADDRESS, 0))
    tcp.bind((dns.ADDRESS, 0))
    tcp.listen(64)
    made = [socket.socket(*netlink, nl.ROUTE), socket.socket(*netlink, nl.NETFILTER), udp, tcp]
    socket.send_fds(channel, [b'{"network":1}'], [sock.fileno() for sock in made])
    for sock in made:
        sock.close()


def lead_dns(udp: int, tcp: int) -> nft.Batch:
    """Port 53 of 127.0.0.11 is the free ports that the server has."""
    batch = nft.Batch(nft.IPV4, "workbench-dns").add_table()
    batch.add_chain("output", nft.Hook("nat", nft.OUTPUT, firewall.DSTNAT))
    address = socket.inet_aton(dns.ADDRESS)
    for protocol, port in ((17, udp), (6, tcp)):
        batch.add_rule(
            "output",
            nft.payload(nft.NETWORK, 16, 4) + nft.cmp(address),
            nft.meta(nft.L4PROTO) + nft.cmp(bytes([protocol])),
            nft.payload(nft.TRANSPORT, 2, 2) + nft.cmp(b"\0\x35"),
            nft.load(address, 0),
            nft.load(struct.pack(">H", port), 1),
            nft.dnat(nft.IPV4, 0, 1),
        )
    return batch
