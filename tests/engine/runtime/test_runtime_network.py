"""Bridge networks at the level of the runtime: real namespaces, real packets, a real supervisor; what is left afterwards."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.linux import namespace
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.runtime import bridges
from engine.runtime.netconfig import ContainerNetwork, Dns, Endpoint, NetworkConfig, PortBinding, mac_of, to_json
from tests.patience import PATIENCE

from .conftest import Box, MakeBox

pytestmark = pytest.mark.root


def until(ready: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


@pytest.fixture
def network() -> NetworkConfig:
    identity = os.urandom(32).hex()
    # One of 32768 subnets: other runs of the tests on this host have theirs.
    second, third = 128 | int(identity[:2], 16) & 127, int(identity[2:4], 16)
    return NetworkConfig(identity, "testnet", f"wb-{identity[:12]}", f"10.{second}.{third}.1/24")


def endpoint(network: NetworkConfig, last: int, *names: str, **more: Any) -> Endpoint:
    base = network.gateway4.rpartition(".")[0]
    address = f"{base}.{last}"
    values: dict[str, Any] = {"default": not network.internal, "link": "eth0", **more}
    mac = mac_of(ipaddress.ip_address(address))
    return Endpoint(os.urandom(32).hex(), network, address4=f"{address}/24", mac=mac, names=names, **values)


def section(*endpoints: Endpoint, ports: tuple[PortBinding, ...] = (), **more: Any) -> dict[str, Any]:
    return {"network": "bridge", "network_section": to_json(ContainerNetwork("bridge", endpoints, ports, **more))}


def links() -> set[str]:
    with Netlink(nl.ROUTE) as sock:
        return {link.name for link in rt.links(sock)}


def ready(one: Box) -> str:
    """Its first line of output."""
    log = one.bundle / "log.json"
    until(lambda: log.exists() and log.read_bytes().count(b"\n"), "the first line")
    return one.output().splitlines()[0]


def test_a_container_has_its_address_route_and_no_ipv6(box: MakeBox, network: NetworkConfig) -> None:
    script = "ip -o addr; ip route; ip -6 addr; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6"
    one = box("sh", "-c", script, **section(endpoint(network, 2)))
    assert one.run() == 0
    out = one.output()
    base = network.gateway4.rpartition(".")[0]
    assert f"inet {base}.2/24 brd {base}.255 scope global eth0" in out
    assert f"default via {base}.1 dev eth0" in out
    assert "inet6" not in out, "CVE-2024-32473: no link-local address where the network has no IPv6"
    assert out.splitlines()[-1] == "1"


def test_what_the_network_made_goes_after_the_last_container(
    box: MakeBox, network: NetworkConfig, runtime: Any
) -> None:
    one = box("sleep", "60", **section(endpoint(network, 2)))
    two = box("true", **section(endpoint(network, 3)))
    one.start()
    assert two.run() == 0
    assert network.bridge in links()
    assert Path(f"/proc/sys/net/ipv6/conf/{network.bridge}/accept_ra").read_text() == "0\n", "CVE-2020-13401"
    with nft.open_socket() as sock:
        assert nft.has_table(sock, nft.INET, network.bridge)
    time.sleep(bridges.IDLE * 1.5)
    assert network.bridge in links(), "there is still a container on it"
    runtime.signal(one.id, 9)
    one.wait()
    until(lambda: network.bridge not in links(), "the bridge is gone")
    with nft.open_socket() as sock:
        assert not nft.has_table(sock, nft.INET, network.bridge)
        assert not [r for r in nft.rules(sock, nft.IPV4, "filter", "FORWARD") if network.id[:12] in r.comment]
    until(lambda: not [n for n in os.listdir(runtime.run_dir / "net") if network.bridge in n], "its files are gone")


def test_containers_of_a_network_reach_each_other_and_resolve_names(box: MakeBox, network: NetworkConfig) -> None:
    server = box(
        "sh", "-c", "echo up; echo hello | nc -l -p 80; sleep 60",
        **section(endpoint(network, 2, "web", "shop"), dns=Dns()),
    )  # fmt: skip
    server.start()
    ready(server)
    script = "nslookup shop.testnet 127.0.0.11; nc web 80"
    client = box("sh", "-c", "echo nameserver 127.0.0.11 >/etc/resolv.conf;" + script, **section(endpoint(network, 3, "c"), dns=Dns()))  # fmt: skip
    assert client.run() == 0, client.output("stderr")
    assert "hello" in client.output()
    assert network.gateway4.rpartition(".")[0] + ".2" in client.output()


def inside(pid: int, work: Callable[[], Any]) -> Any:
    """Runs `work` on a thread that is in the network namespace of `pid`; what it opens there stays there."""
    result: list[Any] = []

    def run() -> None:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            namespace.setns(fd, namespace.NEWNET)
            result.append(work())
        except BaseException as error:
            result.append(error)
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


@pytest.fixture
def echo() -> Iterator[Callable[..., None]]:
    """`echo(box, protocol, port)` serves inside a container until the test ends: what it hears, and from whom."""
    stop: list[socket.socket] = []

    def serve(one: Box, protocol: str, port: int) -> None:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET, kind)
            sock.bind(("0.0.0.0", port))
            return sock

        sock = inside(one.runtime.state(one.bundle).pid, listen)
        stop.append(sock)
        threading.Thread(target=answer, args=(sock, protocol), daemon=True).start()

    yield serve
    for sock in stop:
        with contextlib.suppress(OSError, TypeError):  # the socket is shut down at the end of the test
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def answer(sock: socket.socket, protocol: str) -> None:
    if protocol == "tcp":
        sock.listen()
    with contextlib.suppress(OSError, TypeError):  # the socket is shut down at the end of the test
        while True:
            if protocol == "udp":
                data, client = sock.recvfrom(100)
                sock.sendto(data + b" " + client[0].encode(), client)
            else:
                connection, client = sock.accept()
                with connection:
                    connection.sendall(connection.recv(100) + b" " + client[0].encode())


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_answers_on_every_address_of_the_host(
    box: MakeBox, network: NetworkConfig, protocol: str, echo: Any
) -> None:
    one = box("sleep", "60", **section(endpoint(network, 2), ports=(PortBinding(80, protocol),)))
    one.start()
    echo(one, protocol, 80)
    published = runtime_ports(one)
    assert {port["host_ip"] for port in published} >= {"0.0.0.0"}
    number = published[0]["host_port"]
    assert len({port["host_port"] for port in published}) == 1, "the same on both families"
    gateway = network.gateway4.partition("/")[0]
    # The loopback by way of the proxy, the others translated by the kernel.
    for address, source in (("127.0.0.1", gateway), (own_address(), own_address()), (gateway, gateway)):
        assert say(address, number, protocol) == f"ping {source}".encode(), address
    if len(published) > 1:
        assert say("::1", number, protocol) == f"ping {gateway}".encode(), "IPv6 to a container without it"


def own_address() -> str:
    with Netlink(nl.ROUTE) as sock:
        by_route = {route.index for route in rt.routes(sock) if not route.destination.prefixlen}
        found = [str(address.ip) for index, address in rt.addresses(sock, socket.AF_INET) if index in by_route]
    if not found:
        pytest.skip("no default route: no address but the loopback's")
    return found[0]


def runtime_ports(one: Box) -> list[dict[str, Any]]:
    network = one.runtime.state(one.bundle).network
    assert network is not None
    return list(network["published"])


def say(address: str, port: int, protocol: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        try:
            sock.connect((address, port))
            sock.send(b"ping")
            return sock.recv(100)
        except OSError:
            return b""
