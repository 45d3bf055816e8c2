"""Ways to a container that Docker has: its own published port, its neighbours', the loopbacks, UDP after a restart, names by TCP.

The expected answers are a real dockerd's on the same host.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.api import ContainerSpec, NetworkSpec, PortBinding
from engine.local import LocalEngine, open_engine
from engine.service.images import BASE
from tests.patience import PATIENCE
from tests.service.test_network import CALL, Host, call, other_host, python, run, serve

__all__ = ["other_host"]
pytestmark = pytest.mark.root
FIRST = random.randrange(20_000, 30_000)  # of the ports below: several runs on one machine do not meet
ECHO = (
    "import socket\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53)); print('up', flush=True)\n"
    "while True:\n"
    "    data, client = s.recvfrom(9999); s.sendto(data, client)\n"
)


@pytest.fixture
async def engine(data_root: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(data_root)
    await opened.ensure_base()
    yield opened
    for container in await opened.containers(all=True):
        await opened.remove(container.id, force=True)
    for network in await opened.networks():
        if network.name not in ("bridge", "host", "none"):
            await opened.remove_network(network.name)
    await opened.close()


async def called(engine: LocalEngine, address: str, port: int, network: str = "bridge") -> str:
    """What a new container on `network` hears at the address."""
    return (await run(engine, *python(CALL), address, str(port), network_mode=network))[1].strip()


async def test_a_container_reaches_its_own_published_port(engine: LocalEngine, other_host: Host) -> None:
    """Hairpin. By any address of the host; its neighbours, another network's containers and the host too."""
    own = f"{SELF}\nprint('heard', ask(('{other_host.here}', {FIRST + 1})), flush=True)\nloop()"
    await serve(engine, "self", server=own, port_bindings={"80/tcp": (PortBinding("", str(FIRST + 1)),)})
    async for line in engine.logs("self", follow=True):
        if line.text.startswith("heard"):
            assert not line.text.endswith("Error"), line.text
            break
    await engine.create_network(NetworkSpec("elsewhere"))
    for network in ("bridge", "elsewhere"):
        assert "Error" not in await called(engine, other_host.here, FIRST + 1, network)
    for address in ("127.0.0.1", "::1", other_host.here):
        assert not (await asyncio.to_thread(call, address, FIRST + 1)).endswith("Error"), address
    direct = str((await engine.container("self")).summary.networks["bridge"]["IPAddress"])
    assert (await called(engine, direct, 80, "elsewhere")).startswith("TimeoutError"), "networks are apart"


SELF = """import socket, threading, time
s = socket.create_server(('', 80))
def loop():
    while True:
        c, a = s.accept(); c.sendall(a[0].encode()); c.close()
def ask(where):
    try:
        with socket.create_connection(where, 3) as c: return c.recv(99).decode()
    except OSError as e: return type(e).__name__
print('up', flush=True)
threading.Thread(target=loop, daemon=True).start()
time.sleep(0.2)"""


async def test_icc_false_keeps_containers_apart_and_their_ports_reachable(
    engine: LocalEngine, other_host: Host
) -> None:
    options = {"com.docker.network.bridge.enable_icc": "false"}
    await engine.create_network(NetworkSpec("apart", options=options))
    await serve(engine, "shy", network_mode="apart", port_bindings={"80/tcp": (PortBinding("", str(FIRST + 2)),)})
    assert (await called(engine, "shy", 80, "apart")).startswith("TimeoutError")
    assert "Error" not in await called(engine, other_host.here, FIRST + 2, "apart")
    assert not other_host.run(lambda: call(other_host.here, FIRST + 2)).endswith("Error")


def echoed(address: str, size: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, FIRST + 3))
        sock.send(b"x" * size)
        return len(sock.recv(9999))


async def test_datagrams_also_after_a_restart(engine: LocalEngine, other_host: Host) -> None:
    """What conntrack remembers of the container before must not swallow those for the next."""
    await serve(engine, "echo", server=ECHO, port_bindings={"53/udp": (PortBinding("", str(FIRST + 3)),)})
    for size in (10, 8000):  # whole, and in fragments
        for address in ("127.0.0.1", "::1", other_host.here):
            assert await asyncio.to_thread(echoed, address, size) == size
        assert other_host.run(lambda size=size: echoed(other_host.here, size)) == size  # type: ignore[misc]
    await engine.restart("echo", timeout=0)

    def until_up() -> int:
        for _ in range(50):
            try:
                return echoed("127.0.0.1", 10)
            except OSError:
                continue
        raise AssertionError("no answer after the restart")

    assert await asyncio.to_thread(until_up) == 10
    assert other_host.run(lambda: echoed(other_host.here, 10)) == 10


# --- names ------------------------------------------------------------------------------------------------

MANY = 120  # addresses: 1.9 kB, which no datagram of 512 bytes holds


@pytest.fixture
def resolver(other_host: Host) -> Iterator[str]:
    """A name server on the host's end of the wire: cut short by UDP, whole by TCP."""
    address = (other_host.here, 53)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(address)
    tcp = socket.create_server(address)

    def answer(query: bytes, *, cut: bool) -> bytes:
        question = query[12 : query.index(b"\0", 12) + 5]
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4)
        records = b"" if cut else b"".join(record + bytes((192, 0, 2, n)) for n in range(MANY))
        flags = 0x8180 | (0x0200 if cut else 0)
        return query[:2] + struct.pack(">HHHHH", flags, 1, 0 if cut else MANY, 0, 0) + question + records

    def by_udp() -> None:
        while True:
            query, client = udp.recvfrom(9999)
            if query == b"end":
                return
            udp.sendto(answer(query, cut=True), client)

    def by_tcp() -> None:
        while True:
            connection, _ = tcp.accept()
            with connection:
                size = connection.recv(2)
                if not size:
                    return
                found = answer(connection.recv(struct.unpack(">H", size)[0]), cut=False)
                connection.sendall(struct.pack(">H", len(found)) + found)

    threads = [threading.Thread(target=work) for work in (by_udp, by_tcp)]
    for thread in threads:
        thread.start()
    yield other_host.here
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"end", address)
    socket.create_connection(address).close()
    for thread in threads:
        thread.join()
    udp.close()
    tcp.close()


ASK = """import socket, struct, sys
query = struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + b"\\4many\\7example\\0" + struct.pack(">HH", 1, 1)
def told(answer): return f"{answer[2] >> 1 & 1} {struct.unpack('>H', answer[6:8])[0]}"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(60); s.connect(("127.0.0.11", 53)); s.send(query); print(told(s.recv(9999)))
with socket.create_connection(("127.0.0.11", 53), 5) as s:
    s.sendall(struct.pack(">H", len(query)) + query)
    size, found = struct.unpack(">H", s.recv(2))[0], b""
    while len(found) < size: found += s.recv(9999)
    print(told(found))
"""


async def test_an_answer_too_large_for_a_datagram_comes_by_tcp(engine: LocalEngine, resolver: str) -> None:
    await engine.create_network(NetworkSpec("named"))
    code, out = await run(engine, *python(ASK), network_mode="named", dns=(resolver,))
    assert (code, out.split("\n")[:2]) == (0, ["1 0", f"0 {MANY}"])


async def test_search_domains_and_options_are_dockers(engine: LocalEngine) -> None:
    await engine.create_network(NetworkSpec("searched"))
    more = {"dns": ("192.0.2.53",), "dns_search": ("a.example", "b.example"), "dns_options": ("ndots:3",)}
    _, out = await run(engine, "cat", "/etc/resolv.conf", **more)
    kept = sorted(line for line in out.splitlines() if line and not line.startswith("#"))
    assert kept == ["nameserver 192.0.2.53", "options ndots:3", "search a.example b.example"]
    _, out = await run(engine, "cat", "/etc/resolv.conf", network_mode="searched", **(more | {"dns_search": (".",)}))
    kept = sorted(line for line in out.splitlines() if line and not line.startswith("#"))
    assert kept == ["nameserver 127.0.0.11", "options ndots:3"]


async def test_ranges_take_what_is_free(engine: LocalEngine) -> None:
    shown = []
    for _ in range(2):
        bindings = {"80/tcp": (PortBinding("127.0.0.1", f"{FIRST + 4}-{FIRST + 6}"),)}
        one = await engine.create(ContainerSpec(BASE, command=("sleep", "100"), port_bindings=bindings))
        await engine.start(one)
        shown += (await engine.container(one)).summary.ports
    assert shown == [f"127.0.0.1:{FIRST + 4}->80/tcp", f"127.0.0.1:{FIRST + 5}->80/tcp"]


async def test_engines_of_two_roots_that_want_the_same_subnet(engine: LocalEngine, tmp_path: Path) -> None:
    """Both choose when the network is made, neither has a bridge yet: who starts second gets another one."""
    other = await open_engine(tmp_path / "root")
    await other.ensure_base()
    try:
        made = []
        for each, name in ((engine, "here"), (other, "there")):
            await each.create_network(NetworkSpec("race"))
            made.append(
                (each, await each.create(ContainerSpec(BASE, name=name, command=("sleep", "100"), network_mode="race")))
            )
        await asyncio.gather(*(each.start(one) for each, one in made))
        addresses = [(await each.container(one)).summary.networks["race"]["IPAddress"] for each, one in made]
        assert len({str(address).rpartition(".")[0] for address in addresses}) == 2, addresses
        await other.remove(made[1][1], force=True)
        await other.remove_network("race")
    finally:
        await other.close()
