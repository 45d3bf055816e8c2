"""What is said to the kernel by netlink, read back by the tools that everybody trusts: `ip`, `bridge` and `nft`."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.linux import namespace
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink, NetlinkError
from engine.runtime import bridges, firewall
from engine.runtime.netconfig import Endpoint, NetworkConfig, PublishedPort

pytestmark = [pytest.mark.root, pytest.mark.peer("ip"), pytest.mark.peer("nft")]
NETWORK = NetworkConfig("f" * 64, "t", "wb-ffffffffffff", gateway4="10.9.0.1/24", gateway6="fd09::1/64")


def apart(work: Callable[[], Any]) -> Any:
    """Runs `work` on a thread in a network namespace of its own."""
    results: list[Any] = []

    def run() -> None:
        try:
            namespace.unshare(namespace.NEWNET)
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def said(*command: str) -> Any:
    return json.loads(subprocess.check_output(command, text=True) or "[]")


def test_links_addresses_routes_and_ports() -> None:
    def work() -> None:
        with Netlink(nl.ROUTE) as sock:
            sock.send([rt.new_bridge("br", 1400, "02:00:00:00:00:01")])
            sock.send([rt.new_veth("va", "vb", threading.get_native_id(), 1400, "02:00:00:00:00:02")])
            bridge = rt.get_link(sock, "br")
            assert bridge is not None
            with pytest.raises(NetlinkError):
                sock.send([rt.isolate_port("va")])  # no port of a bridge yet
            sock.send([rt.set_link("va", no_ipv6_address=True), rt.set_link("va", up=True, master=bridge.index)])
            sock.send([rt.isolate_port("va")])
            four, six = ipaddress.ip_interface("10.9.0.1/24"), ipaddress.ip_interface("fd09::1/64")
            sock.send([rt.add_address(bridge.index, four), rt.add_address(bridge.index, six)])
            sock.send([rt.set_link(index=bridge.index, up=True)])
            sock.send([rt.default_route(ipaddress.ip_address("10.9.0.254"), bridge.index)])
            sock.send([rt.unreachable(ipaddress.ip_address("169.254.169.254"))])
            assert {link.name: link.kind for link in rt.links(sock)} == {
                "lo": "",
                "br": "bridge",
                "va": "veth",
                "vb": "veth",
            }
        links = {link["ifname"]: link for link in said("ip", "-j", "-d", "link")}
        assert links["br"]["linkinfo"]["info_kind"] == "bridge"
        assert (links["br"]["mtu"], links["br"]["address"]) == (1400, "02:00:00:00:00:01")
        assert (links["vb"]["mtu"], links["vb"]["address"]) == (1400, "02:00:00:00:00:02")
        assert links["va"]["master"] == "br"
        assert links["va"]["inet6_addr_gen_mode"] == "none"
        port = links["va"]["linkinfo"]["info_slave_data"]
        assert (port["isolated"], port["hairpin"]) == (True, False)
        found = {(a["local"], a["prefixlen"]) for a in said("ip", "-j", "addr", "show", "br")[0]["addr_info"]}
        assert {("10.9.0.1", 24), ("fd09::1", 64)} <= found
        routes = said("ip", "-j", "route")
        assert {"dst": "default", "gateway": "10.9.0.254", "dev": "br"}.items() <= routes[0].items()
        assert any(r.get("type") == "unreachable" and r["dst"] == "169.254.169.254" for r in routes)
        shown: list[dict[str, Any]] = []
        while (
            not shown
        ):  # the kernel drops neighbours when it has noticed, a moment later, that the bridge has no carrier
            with Netlink(nl.ROUTE) as sock:
                sock.send([rt.set_neighbour(bridge.index, ipaddress.ip_address("10.9.0.7"), "02:00:00:00:00:07")])
            shown = said("ip", "-j", "neigh", "show", "10.9.0.7")
        assert shown[0]["lladdr"] == "02:00:00:00:00:07"

    apart(work)


def test_the_kernels_own_words_come_back() -> None:
    def work() -> None:
        with Netlink(nl.ROUTE) as sock:
            with pytest.raises(NetlinkError, match="link nothing"):
                sock.send([rt.set_link("nothing", up=True)])
            sock.send([rt.delete_link("nothing")])  # gone already is fine
            assert rt.get_link(sock, "nothing") is None

    apart(work)


# nft's words for what `network_batch` makes of NETWORK; handles and counters aside.
RULES = """
prerouting iifname != "wb-ffffffffffff" ip daddr != 127.0.0.0/8
postrouting ip saddr 10.9.0.0/24 oifname != "wb-ffffffffffff" masquerade
postrouting ip6 saddr fd09::/64 oifname != "wb-ffffffffffff" masquerade
forward iifname "wb-ffffffffffff" oifname "wb-ffffffffffff" accept
forward oifname "wb-ffffffffffff" ct state established,related accept
forward oifname "wb-ffffffffffff" ct status dnat accept
forward oifname "wb-ffffffffffff" drop
forward iifname "wb-ffffffffffff" oifname "docker*" drop
"""


def test_a_networks_table_as_nft_reads_it() -> None:
    def work() -> str:
        with nft.open_socket() as sock:
            assert firewall.ensure(sock, firewall.network_batch(NETWORK))
            assert not firewall.ensure(sock, firewall.network_batch(NETWORK)), "it is there already"
            endpoint = Endpoint("e" * 64, NETWORK, "eth0", "10.9.0.2/24", "fd09::2/64")
            ports = (PublishedPort("0.0.0.0", 8080, 80, "tcp"), PublishedPort("192.0.2.9", 53, 5353, "udp"))
            firewall.publish(sock, ports, endpoint)
            firewall.publish(sock, ports, endpoint)  # as after a killed monitor
            listed = subprocess.check_output(["nft", "list", "table", "inet", NETWORK.bridge], text=True)
            firewall.withdraw(sock, ports, endpoint)
            empty = subprocess.check_output(["nft", "list", "table", "inet", NETWORK.bridge], text=True)
            assert "elements" not in empty
            firewall.remove(sock, NETWORK)
            assert NETWORK.bridge not in subprocess.check_output(["nft", "list", "tables"], text=True)
        return listed

    listed = apart(work)
    chains: dict[str, str] = {}
    for part in listed.split("\tchain ")[1:]:
        chains[part.split(" ")[0]] = part
    for rule in RULES.strip().splitlines():
        chain, _, words = rule.partition(" ")
        lines = [set(line.split()) for line in chains[chain].splitlines()]
        assert any(set(words.split()) <= line for line in lines), (rule, chains[chain])
    assert "masquerade" not in chains["forward"]
    assert "type nat hook prerouting priority dstnat" in chains["prerouting"]


def test_where_the_kernel_lacks_a_part_the_message_names_it() -> None:
    import errno

    for what, words in (("bridge wb-x", "bridge"), ("veth wv-x", "veth"), ("nf_tables table x", "nf_tables")):
        text = bridges.explain(NetlinkError(errno.EOPNOTSUPP, f"{what}: Operation not supported"))
        assert f"this kernel lacks {words}" in text
        assert "--network host or none" in text
