"""Networks through the whole engine: real containers, real traffic, other hosts as network namespaces; the security
anchor's network table (NW-01 to NW-06), one test a row; and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import (
    BuildFinished,
    BuildRequest,
    ContainerSpec,
    EndpointSettings,
    IpamConfig,
    NetworkSpec,
    PortBinding,
)
from engine.errors import Conflict, InvalidInput, NotFound, StartFailed
from engine.linux import libc, namespace
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.local import LocalEngine, open_engine
from tests.patience import PATIENCE
from tests.serving import free_port

pytestmark = pytest.mark.root

BASE = "workbench/base"


@pytest.fixture
async def engine(data_root: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(data_root)
    await opened.ensure_base()
    yield opened
    for container in await opened.containers(all=True):
        await opened.remove(container.id, force=True)
    await opened.prune_networks()
    await opened.close()


def until(ready: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


def inside(pid: int, work: Callable[[], Any]) -> Any:
    """Runs `work` on a thread that is in the network namespace of `pid`."""
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


class Host:
    """Another machine: a network namespace with a wire to this one (10.251.N.1 here, .2 there)."""

    def __init__(self) -> None:
        # Names and numbers of its own for each: the kernel takes a while to remove the one before.
        self.number = int.from_bytes(os.urandom(1), "big") % 250
        self.name = f"wbt{os.urandom(4).hex()}"
        ready, self._ready = os.pipe()
        stop, self._stop = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                namespace.unshare(namespace.NEWNET)
                namespace.loopback_up()
                os.write(self._ready, b"x")
                os.close(self._stop)
                os.read(stop, 1)
            os._exit(0)
        os.close(stop)
        os.read(ready, 1)
        os.close(ready)
        os.close(self._ready)
        self.here, self.there = f"10.251.{self.number}.1", f"10.251.{self.number}.2"
        with Netlink(nl.ROUTE) as sock:
            sock.send([rt.new_veth(self.name, "wire", self.pid, 1500, "02:00:00:00:00:09")])
            link = rt.get_link(sock, self.name)
            assert link is not None
            interface = ipaddress.ip_interface(f"{self.here}/24")
            sock.send([rt.add_address(link.index, interface), rt.set_link(index=link.index, up=True)])

        def configure() -> None:
            with Netlink(nl.ROUTE) as sock:
                wire = rt.get_link(sock, "wire")
                assert wire is not None
                address = rt.add_address(wire.index, ipaddress.ip_interface(f"{self.there}/24"))
                up = rt.set_link(index=wire.index, up=True)
                sock.send([address, up, rt.default_route(ipaddress.ip_address(self.here), wire.index)])

        inside(self.pid, configure)

    def run(self, work: Callable[[], Any]) -> Any:
        return inside(self.pid, work)

    def close(self) -> None:
        with Netlink(nl.ROUTE) as sock:
            sock.send(
                [rt.delete_link(self.name)]
            )  # else it goes when the kernel has taken the namespace apart, some time later
        os.close(self._stop)
        os.waitpid(self.pid, 0)


@pytest.fixture
def other_host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


SERVER = (
    "import socket\n"
    "s = socket.create_server(('', 80))\n"
    "print('up', flush=True)\n"
    "while True:\n"
    "    c, a = s.accept(); c.sendall(a[0].encode()); c.close()\n"
)


SERVER6 = SERVER.replace("('', 80)", "('', 80), family=socket.AF_INET6, dualstack_ipv6=True")


async def serve(engine: LocalEngine, name: str, *, server: str = SERVER, **spec: Any) -> int:
    """A container that tells each client its address on port 80; returns its pid."""
    await engine.create(ContainerSpec(BASE, name=name, command=("python3", "-c", server), **spec))
    await engine.start(name)
    async for line in engine.logs(name, follow=True):
        if line.text == "up":
            break
    return (await engine.container(name)).summary.pid


def call(address: str, port: int = 80, seconds: float = 3) -> str:
    try:
        with socket.create_connection((address, port), seconds) as sock:
            return sock.recv(100).decode()
    except OSError as error:
        return f"{type(error).__name__}"


async def run(engine: LocalEngine, *command: str, **spec: Any) -> tuple[int, str]:
    name = await engine.create(ContainerSpec(BASE, command=command, **spec))
    stream = await engine.start_attached(name)
    await stream.close_stdin()
    out = b""
    while chunk := await stream.read():
        out += chunk[1]
    return await engine.wait(name), out.decode()


def python(text: str) -> tuple[str, str, str]:
    return "python3", "-c", text


CALL = "import socket,sys\ntry:\n s=socket.create_connection((sys.argv[1],int(sys.argv[2])),3); print(s.recv(99).decode())\nexcept OSError as e: print(type(e).__name__, e.errno)\n"


async def address(engine: LocalEngine, name: str, network: str = "bridge") -> str:
    return str((await engine.container(name)).summary.networks[network]["IPAddress"])


async def test_a_published_port_from_another_host_and_the_way_out(engine: LocalEngine, other_host: Host) -> None:
    """Side by side with whoever has set a FORWARD policy: Docker's drops all that it does not know."""
    port = free_port()
    await serve(engine, "web", port_bindings={"80/tcp": (PortBinding("", str(port)),)})
    assert other_host.run(lambda: call(other_host.here, port)) == other_host.there, "its own address is seen"
    detail = await engine.container("web")
    assert detail.summary.ports == (f"0.0.0.0:{port}->80/tcp", f"[::]:{port}->80/tcp")
    shown: Any = detail.config["NetworkSettings"]
    assert shown["Ports"]["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": str(port)}
    # An unpublished port is not reached by a route to the container's address.
    inner = await address(engine, "web")
    assert other_host.run(lambda: call(inner, 80, 1)) == "TimeoutError"

    def listen() -> socket.socket:
        return socket.create_server((other_host.there, 7070))

    def answer() -> None:
        with contextlib.suppress(OSError), server.accept()[0] as connection:
            connection.sendall(b"out")

    with other_host.run(listen) as server:
        answering = threading.Thread(target=answer)
        answering.start()
        try:
            assert await run(engine, *python(CALL), other_host.there, "7070") == (0, "out\n")
        finally:
            server.shutdown(socket.SHUT_RDWR)  # nobody waits for a call that did not come
            answering.join()


async def test_names_aliases_connect_and_disconnect_while_it_runs(engine: LocalEngine, data_root: Path) -> None:
    await engine.create_network(NetworkSpec("front"))
    await engine.create_network(NetworkSpec("back"))
    await serve(engine, "db", network_mode="back", networks={"back": EndpointSettings(aliases=("store",))})
    pid = await serve(engine, "app", network_mode="front")
    look = "import socket,sys\ntry: print(socket.gethostbyname(sys.argv[1]))\nexcept OSError as e: print('no', e.errno)"

    async def resolve(name: str) -> str:
        from engine.api import ExecSpec

        stream = await engine.exec("app", ExecSpec((*python(look), name)))
        out = b""
        while chunk := await stream.read():
            out += chunk[1]
        await stream.close()
        return out.decode().strip()

    inner = await address(engine, "db", "back")
    assert (await resolve("store")).startswith("no"), "of a network that it is not on"
    await engine.connect_network("back", "app")
    assert await resolve("store") == await resolve("db") == await resolve("DB.back") == inner
    assert inside(pid, lambda: call(inner)) == await address(engine, "app", "back")
    hosts = (data_root / "containers" / (await engine.container("app")).summary.id / "hosts").read_text()
    assert await address(engine, "app", "back") in hosts
    with pytest.raises(Conflict, match="already exists"):
        await engine.connect_network("back", "app")
    with pytest.raises(Conflict, match="active endpoints"):
        await engine.remove_network("back")
    await engine.rename("db", "database")
    assert await resolve("database") == inner
    await engine.disconnect_network("back", "app")
    assert (await resolve("store")).startswith("no")
    assert "back" not in (await engine.container("app")).summary.networks
    hosts = (data_root / "containers" / (await engine.container("app")).summary.id / "hosts").read_text()
    assert hosts.count("\n") == 7, hosts


async def test_fixed_addresses_and_what_is_refused(engine: LocalEngine) -> None:
    third = os.getpid() % 250
    subnet = f"10.250.{third}.0/24"
    await engine.create_network(NetworkSpec("fixed", ipam=(IpamConfig(subnet, ip_range=f"10.250.{third}.128/25"),)))
    settings = {"fixed": EndpointSettings(ipv4_address=f"10.250.{third}.77", mac_address="02:11:22:33:44:55")}
    await serve(engine, "one", network_mode="fixed", networks=settings)
    endpoint = (await engine.container("one")).summary.networks["fixed"]
    assert (endpoint["IPAddress"], endpoint["MacAddress"]) == (f"10.250.{third}.77", "02:11:22:33:44:55")
    await serve(engine, "two", network_mode="fixed")
    assert await address(engine, "two", "fixed") == f"10.250.{third}.128", "the first of the range"
    with pytest.raises(Conflict, match="already in use"):
        await run(engine, "true", network_mode="fixed", networks=settings)
    for spec, words in (
        ({"networks": {"bridge": EndpointSettings(ipv4_address="172.17.0.9")}}, "user defined networks only"),
        ({"networks": {"bridge": EndpointSettings(aliases=("a",))}}, "network-scoped alias"),
        ({"network_mode": "host", "block_metadata": True}, "shares the network of the host"),
        ({"network_mode": "container:one", "port_bindings": {"80/tcp": (PortBinding(),)}}, "conflicting options"),
    ):
        with pytest.raises(InvalidInput, match=words):
            await engine.create(ContainerSpec(BASE, command=("true",), **spec))  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="overlaps"):
        await engine.create_network(NetworkSpec("overlapping", ipam=(IpamConfig(subnet),)))
    with pytest.raises(Conflict, match="already exists"):
        await engine.create_network(NetworkSpec("fixed"))
    with pytest.raises(NotFound):
        await engine.create(ContainerSpec(BASE, command=("true",), network_mode="nowhere"))


async def test_a_port_in_use_says_by_whom(engine: LocalEngine) -> None:
    port = str(free_port())
    await serve(engine, "first", port_bindings={"80/tcp": (PortBinding("127.0.0.1", port),)})
    with pytest.raises(StartFailed, match=rf"Bind for .*{port} failed: port is already allocated: by container first"):
        await run(engine, "true", port_bindings={"80/tcp": (PortBinding("127.0.0.1", port),)})
    with socket.create_server(("127.0.0.1", 0)) as mine:
        number = str(mine.getsockname()[1])
        with pytest.raises(
            StartFailed, match=rf"{number} failed: port is already allocated: by .*\(pid {os.getpid()}\)"
        ):
            await run(engine, "true", port_bindings={"80/tcp": (PortBinding("127.0.0.1", number),)})


async def test_container_network_none_and_host(engine: LocalEngine) -> None:
    pid = await serve(engine, "main")
    shared = "import os; print(os.readlink('/proc/self/ns/net')); print(open('/etc/hostname').read())"
    code, out = await run(engine, *python(shared), network_mode="container:main")
    short = (await engine.container("main")).summary.id[:12]
    assert (code, out.split()) == (0, [os.readlink(f"/proc/{pid}/ns/net"), short])
    code, out = await run(engine, "sh", "-c", "cat /proc/net/dev | wc -l", network_mode="none")
    assert out.strip() == "3", "two lines of heading and lo"
    code, out = await run(engine, *python("import os; print(os.readlink('/proc/self/ns/net'))"), network_mode="host")
    assert out.strip() == os.readlink("/proc/self/ns/net")


async def test_nw_01_nothing_of_an_internal_network_leaves(engine: LocalEngine, other_host: Host) -> None:
    """CVE-2024-29018: its name server asks nobody outside; and its packets stay."""
    await engine.create_network(NetworkSpec("inner", internal=True))
    asked = other_host.run(lambda: _udp(other_host.there))
    look = "import socket\ntry: print(socket.gethostbyname('secret.example.com'))\nexcept OSError as e: print('no')"
    code, out = await run(engine, *python(look), network_mode="inner", dns=(other_host.there,))
    assert (code, out) == (0, "no\n")
    code, out = await run(engine, *python(CALL), other_host.there, "53", network_mode="inner")
    assert out.startswith("OSError 101"), "there is no route out"
    asked.settimeout(0.5)
    with pytest.raises(TimeoutError):
        asked.recv(100)
    await run(engine, *python(look), dns=(other_host.there,))
    assert asked.recv(100), "the same from an ordinary one arrives"
    asked.close()


def _udp(where: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((where, 53))
    return sock


async def test_nw_02_no_ipv6_address_without_ipv6_and_one_with_it(engine: LocalEngine) -> None:
    look = "print(open('/proc/net/if_inet6').read())"
    assert (await run(engine, *python(look)))[1].strip() == "", "CVE-2024-32473"
    await engine.create_network(NetworkSpec("six", enable_ipv6=True))
    port = free_port()
    bindings = {"80/tcp": (PortBinding("", str(port)),)}
    await serve(engine, "web6", server=SERVER6, network_mode="six", port_bindings=bindings)
    six = str((await engine.container("web6")).summary.networks["six"]["GlobalIPv6Address"])
    assert six.startswith("fd")
    assert "eth0" in (await run(engine, *python(look), network_mode="six"))[1]
    for outside in ("::1", "127.0.0.1"):
        answer = await asyncio.to_thread(call, outside, port)
        assert answer.startswith("fd" if outside == "::1" else "::ffff:"), (outside, answer)
    ask = await run(engine, *python(CALL), six, "80", network_mode="six")
    assert ask[1].startswith("fd"), "containers reach each other by IPv6"


async def test_nw_03_what_another_program_flushes_is_restored_and_said(engine: LocalEngine, other_host: Host) -> None:
    """CVE-2025-54388, -54410: a firewall's reload takes no rule of ours for long."""
    port = free_port()
    await serve(engine, "kept", port_bindings={"80/tcp": (PortBinding("", str(port)),)})
    network = await engine.network("bridge")
    table = f"wb-{network.id[:12]}"
    with nft.open_socket() as sock:
        nft.Batch(nft.INET, table).delete_table().commit(sock)
        until(lambda: nft.has_table(sock, nft.INET, table), "the table is back")
    until(lambda: other_host.run(lambda: call(other_host.here, port)) == other_host.there, "the port is back")
    inner = await address(engine, "kept")
    assert other_host.run(lambda: call(inner, 80, 1)) == "TimeoutError", "and the isolation"


async def test_nw_04_the_bridge_takes_no_router_advertisements(engine: LocalEngine) -> None:
    await serve(engine, "one")
    bridge = f"wb-{(await engine.network('bridge')).id[:12]}"
    conf = Path(f"/proc/sys/net/ipv6/conf/{bridge}")
    assert (conf / "accept_ra").read_text() == "0\n"
    assert Path(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet").read_text() == "0\n"


@pytest.fixture
def metadata(other_host: Host) -> Iterator[Host]:
    """The other host is the cloud's metadata service as well."""

    def configure() -> socket.socket:
        with Netlink(nl.ROUTE) as sock:
            wire = rt.get_link(sock, "wire")
            assert wire is not None
            sock.send([rt.add_address(wire.index, ipaddress.ip_interface("169.254.169.254/32"))])
        return socket.create_server(("169.254.169.254", 80))

    server = other_host.run(configure)
    with Netlink(nl.ROUTE) as sock:
        link = rt.get_link(sock, other_host.name)
        assert link is not None
        sock.send([rt.add_address(link.index, ipaddress.ip_interface("169.254.169.1/24"))])

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].sendall(b"credentials")

    threading.Thread(target=answer, daemon=True).start()
    yield other_host
    server.close()


async def test_nw_05_metadata_is_refused_where_asked_and_from_build_steps(
    engine: LocalEngine, metadata: Host, tmp_path: Path
) -> None:
    ask = (*python(CALL), "169.254.169.254", "80")
    assert await run(engine, *ask) == (0, "credentials\n")
    _code, out = await run(engine, *ask, block_metadata=True)
    assert out.startswith("OSError 113"), out
    # Who may change the routes inside is stopped on the host, by the port that its packets come in on.
    await serve(engine, "router", block_metadata=True)
    pid = (await engine.container("router")).summary.pid

    def without_routes() -> str:
        with Netlink(nl.ROUTE) as sock:
            message = rt.unreachable(ipaddress.ip_address("169.254.169.254"))
            sock.send([nl.Message(rt.DELROUTE, message.body)])
        return call("169.254.169.254", 80, 1)

    assert inside(pid, without_routes) == "TimeoutError"
    blocked = await engine.create(ContainerSpec(BASE, command=("true",), block_metadata=True))
    assert (await engine.container(blocked)).config["HostConfig"]["BlockMetadata"] is True  # type: ignore[index]
    (tmp_path / "ask.py").write_text(CALL)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY ask.py /\nRUN python3 /ask.py 169.254.169.254 80 > /answer\nCMD cat /answer\n"
    )
    for allow, expected in ((False, "OSError"), (True, "credentials")):
        request = BuildRequest(tmp_path, tags=("meta",), no_cache=True, allow_metadata=allow)
        events = [event async for event in engine.build(request)]
        assert isinstance(events[-1], BuildFinished)
        name = await engine.create(ContainerSpec("meta"))
        await engine.start(name)
        await engine.wait(name)
        assert "".join([line.text async for line in engine.logs(name)]).startswith(expected)


async def test_nw_06_a_loopback_port_is_the_loopbacks_alone(engine: LocalEngine, other_host: Host) -> None:
    port = free_port()
    await serve(engine, "local", port_bindings={"80/tcp": (PortBinding("127.0.0.1", str(port)),)})
    assert await asyncio.to_thread(call, "127.0.0.1", port)
    assert (await engine.container("local")).summary.ports == (f"127.0.0.1:{port}->80/tcp",)
    assert other_host.run(lambda: call(other_host.here, port, 1)) == "ConnectionRefusedError"

    def route_to_its_loopback() -> str:
        """From the same link, with a packet for 127.0.0.1 sent to this host."""
        libc.call("unshare", namespace.NEWNS)
        with Netlink(nl.ROUTE) as sock:
            wire = rt.get_link(sock, "wire")
            assert wire is not None
            Path("/proc/sys/net/ipv4/conf/wire/route_localnet").write_text("1")
            mac = Path("/proc/self/net/arp").read_text()
            assert mac
            gateway = ipaddress.ip_address(other_host.here)
            body = rt.default_route(gateway, wire.index)
            sock.send([body])
        with socket.socket() as sock2:
            sock2.settimeout(1)
            sock2.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire\0")
            try:
                sock2.connect(("127.0.0.1", port))
                return "connected"
            except OSError as error:
                return type(error).__name__

    assert other_host.run(route_to_its_loopback) != "connected"


async def test_nothing_is_left_after_the_last_container(engine: LocalEngine) -> None:
    await engine.create_network(NetworkSpec("gone"))
    await serve(engine, "last", network_mode="gone", port_bindings={"80/tcp": (PortBinding("", ""),)})
    bridge = f"wb-{(await engine.network('gone')).id[:12]}"
    await engine.remove("last", force=True)

    def links() -> set[str]:
        with Netlink(nl.ROUTE) as sock:
            return {link.name for link in rt.links(sock)}

    until(lambda: bridge not in links(), "the bridge")
    with nft.open_socket() as sock:
        assert not nft.has_table(sock, nft.INET, bridge)
        assert not [r for r in nft.rules(sock, nft.IPV4, "filter", "FORWARD") if bridge[3:] in r.comment]
    await engine.remove_network("gone")
    assert "gone" not in [network.name for network in await engine.networks()]
