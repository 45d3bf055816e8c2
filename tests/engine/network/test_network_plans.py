"""The pure room: addresses, ports as people write them and as Docker shows them, files in /etc, driver options."""

from __future__ import annotations

import ipaddress
import random

import pytest

from engine.errors import AccessDenied, Conflict, InvalidInput, Unsupported
from engine.model import Port, PortBinding
from engine.network import bridge, files, ipam, ports


def test_a_chosen_subnet_is_the_first_of_dockers_that_meets_nothing() -> None:
    assert str(ipam.choose([])) == "172.17.0.0/16"
    taken = [ipaddress.ip_network(text) for text in ("172.16.0.0/14", "172.20.5.0/24", "0.0.0.0/0", "fd00::/8")]
    assert str(ipam.choose(taken)) == "172.21.0.0/16", "a default route is no obstacle"
    half = [ipaddress.ip_network("172.16.0.0/12")]
    assert str(ipam.choose(half)) == "192.168.0.0/20"
    with pytest.raises(Conflict, match="no free range"):
        ipam.choose([*half, ipaddress.ip_network("192.168.0.0/16")])


@pytest.mark.parametrize("seed", range(20))
def test_allocation_never_gives_twice_nor_what_is_not_to_be_given(seed: int) -> None:
    chance = random.Random(seed)
    prefix = chance.choice([24, 26, 28, 29, 30])
    size = 32 - prefix
    net = ipaddress.IPv4Network((10 << 24 | chance.randrange(1 << 24) >> size << size, prefix))
    reserved = {str(net[chance.randrange(net.num_addresses)]) for _ in range(2)}
    pool = ipam.make_pool(str(net), str(net[chance.randrange(1, net.num_addresses - 1)]), auxiliary=reserved)
    taken: set[ipam.Address] = set()
    for _ in range(sum(ipam.usable(pool, address) for address in net)):
        given = ipam.allocate(pool, taken)
        assert given not in taken
        assert ipam.usable(pool, given)
        assert all(not ipam.usable(pool, a) or a in taken for a in net if a < given), "the lowest free one"
        taken.add(given)
    with pytest.raises(Conflict, match="no available"):
        ipam.allocate(pool, taken)
    back = chance.choice(sorted(taken)) if taken else None
    if back is not None:
        assert ipam.allocate(pool, taken - {back}) == back
        assert ipam.allocate(pool, taken - {back}, back) == back
        with pytest.raises(Conflict, match="in use"):
            ipam.allocate(pool, taken, back)


@pytest.mark.parametrize(
    ("subnet", "more", "words"),
    [
        ("10.0.0.1/24", {}, "should be 10.0.0.0/24"),
        ("10.0.0.0", {}, "no prefix length"),
        ("ten", {}, "invalid subnet"),
        ("10.0.0.0/31", {}, "too small"),
        ("10.0.0.0/24", {"gateway": "10.0.1.1"}, "no matching subnet for gateway"),
        ("10.0.0.0/24", {"ip_range": "10.0.1.0/25"}, "no matching subnet for range"),
        ("10.0.0.0/24", {"auxiliary": ["10.0.1.9"]}, "no matching subnet for aux-address"),
    ],
)
def test_subnets_that_cannot_be(subnet: str, more: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        ipam.make_pool(subnet, **more)  # type: ignore[arg-type]


def test_ipv6_subnets_are_unique_local_and_of_the_network() -> None:
    first, again, other = ipam.choose_v6("a"), ipam.choose_v6("a"), ipam.choose_v6("b")
    assert first == again != other
    assert first.prefixlen == 64
    assert first.subnet_of(ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("0:80", [("80/tcp", "", "")]),
        ("127.0.0.1:8080:80/udp", [("80/udp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("::1:8080:80", [("80/tcp", "::1", "8080")]),
        ("9000-9001:80-81", [("80/tcp", "", "9000"), ("81/tcp", "", "9001")]),
        ("9000-9005:80", [("80/tcp", "", "9000-9005")]),
        ("80-81", [("80/tcp", "", ""), ("81/tcp", "", "")]),
        ("target=80,published=8080,protocol=udp", [("80/udp", "", "8080")]),
    ],
)
def test_publish(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert ports.parse_publish(text) == [(port, PortBinding(ip, host)) for port, ip, host in expected]


@pytest.mark.parametrize(
    "text", ["", "x", "80:", "1.2.3:80:80", "70000", "80/icmp", "5-3", "1-3:80-81", "80/sctp", "[::1:80", "a:b:c:d"]
)
def test_publish_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidInput):
        ports.parse_publish(text)


def test_ports_are_shown_as_docker_shows_them() -> None:
    both = [Port(80 + n, "tcp", 80 + n, ip) for ip in ("0.0.0.0", "::") for n in range(3)]
    shown = ports.displayable(
        [*both, Port(81, "udp", 8082, "127.0.0.1"), Port(99, "tcp"), Port(443, "tcp", 8443, "::")]
    )
    assert shown == (
        "99/tcp, 0.0.0.0:80-82->80-82/tcp, [::]:80-82->80-82/tcp, 127.0.0.1:8082->81/udp, [::]:8443->443/tcp"
    ) or shown == (
        "0.0.0.0:80-82->80-82/tcp, [::]:80-82->80-82/tcp, 99/tcp, 127.0.0.1:8082->81/udp, [::]:8443->443/tcp"
    )
    assert ports.port_map(["80/tcp", "9/udp"], [Port(80, "tcp", 1, "::")]) == {
        "80/tcp": [{"HostIp": "::", "HostPort": "1"}],
        "9/udp": None,
    }


def test_resolv_conf() -> None:
    host = files.parse_resolver("# c\nnameserver 127.0.0.53\nnameserver fe80::1\nsearch a b\noptions edns0 trust-ad\n")
    assert files.outside(host, ipv6=False).text() == (
        "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch a b\noptions edns0 trust-ad\n"
    )
    assert files.outside(host, ipv6=True).servers == ("fe80::1",)
    assert files.embedded(host).text() == "nameserver 127.0.0.11\nsearch a b\noptions edns0 trust-ad ndots:0\n"
    flags = files.with_flags(host, ["1.1.1.1"], ["."], ["ndots:2"])
    assert (flags.servers, flags.search, files.embedded(flags).options) == (("1.1.1.1",), (), ("ndots:2",))
    with pytest.raises(InvalidInput):
        files.with_flags(host, ["one"], [], [])


def test_hosts_file() -> None:
    text = files.hosts(
        [("172.17.0.2", files.own_names("foo", "ex.org"))], ["a:1.2.3.4", "hg:host-gateway"], "172.17.0.1"
    )
    assert text.splitlines()[-3:] == ["1.2.3.4\ta", "172.17.0.1\thg", "172.17.0.2\tfoo.ex.org foo"]
    assert files.remove_line(files.add_line(text, "10.0.0.2", "foo"), "10.0.0.2") == text
    for bad in ("a", "a:", ":1.2.3.4", "a:b", "a b:1.2.3.4"):
        with pytest.raises(InvalidInput):
            files.parse_extra_host(bad)


def test_driver_options() -> None:
    prefix = "com.docker.network."
    read = bridge.parse_options({f"{prefix}bridge.enable_icc": "false", f"{prefix}driver.mtu": "1300"})
    assert (read.icc, read.mtu, read.masquerade) == (False, 1300, True)
    for key, value in (("bridge.enable_icc", "maybe"), ("driver.mtu", "9"), ("bridge.name", "much-too-long-a-name")):
        with pytest.raises(InvalidInput):
            bridge.parse_options({prefix + key: value})
    with pytest.raises(Unsupported, match="not known"):
        bridge.parse_options({f"{prefix}bridge.inhibit_ipv4": "true"})
    assert bridge.parse_options({"org.example.note": "bar"}) == bridge.BridgeOptions()  # somebody else's word
    for name in ("host", "-x", "a/b", ""):
        with pytest.raises((InvalidInput, AccessDenied)):
            bridge.check_network_name(name)
