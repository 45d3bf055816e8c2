"""Bridge networks beside a real Docker daemon in the same run: a container's whole life, and a published port's throughput.

    PEER_DOCKER_HOST=unix:///… sudo -E python tests/bench/network.py IMAGE

IMAGE is one that both have and that holds `python3` and `true` (python:3.11-slim). The client of the throughput test is in a
network namespace of its own, as another machine would be.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from engine.api import ContainerSpec, PortBinding
from engine.linux import namespace
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.local import LocalEngine, open_engine

ROUNDS = 20
SECONDS = 3.0
HERE, THERE = "10.253.253.1", "10.253.253.2"
SERVER = (
    "import socket\ns=socket.create_server(('',5201))\nprint('up',flush=True)\n"
    "while True:\n c,_=s.accept()\n while c.recv_into(bytearray(1<<20)): pass\n c.close()\n"
)


def docker(*words: str) -> str:
    env = {**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"]}
    return subprocess.run(["docker", *words], env=env, capture_output=True, text=True, check=True).stdout.strip()


async def ours_life(engine: LocalEngine, image: str) -> list[float]:
    times = []
    for _ in range(ROUNDS + 1):
        started = time.monotonic()
        name = await engine.create(ContainerSpec(image, command=("true",)))
        await engine.start(name)
        await engine.wait(name)
        await engine.remove(name)
        times.append(time.monotonic() - started)
    return times[1:]


def docker_life(image: str) -> list[float]:
    times = []
    for _ in range(ROUNDS // 2 + 1):
        started = time.monotonic()
        docker("run", "--rm", image, "true")
        times.append(time.monotonic() - started)
    return times[1:]


def other_machine() -> tuple[int, int]:
    """(pid in the namespace, descriptor that ends it when closed)."""
    ready, tell = os.pipe()
    stop, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        namespace.unshare(namespace.NEWNET)
        os.write(tell, b"x")
        os.read(stop, 1)
        os._exit(0)
    os.read(ready, 1)
    with Netlink() as sock:
        sock.send([rt.new_veth("wbbench", "wire", pid, 1500, "02:00:00:00:00:0a")])
        link = rt.get_link(sock, "wbbench")
        assert link is not None
        sock.send([rt.add_address(link.index, ipaddress.ip_interface(f"{HERE}/24")), rt.set_link("wbbench", up=True)])
    return pid, hold


def send(pid: int, port: int) -> float:
    """Gbit/s from the other machine to the published port."""
    result: list[float] = []

    def work() -> None:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        namespace.setns(fd, namespace.NEWNET)
        os.close(fd)
        with Netlink() as sock:
            wire = rt.get_link(sock, "wire")
            assert wire is not None
            sock.send([rt.add_address(wire.index, ipaddress.ip_interface(f"{THERE}/24")), rt.set_link("wire", up=True)])
        data = bytes(1 << 20)
        with socket.create_connection((HERE, port), 5) as connection:
            started, sent = time.monotonic(), 0
            while time.monotonic() - started < SECONDS:
                sent += connection.send(data)
            result.append(sent * 8 / (time.monotonic() - started) / 1e9)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return result[0]


async def main(image: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        engine = await open_engine(Path(temporary) / "root")
        async for _ in engine.pull(image):
            pass
        docker("pull", "-q", image)
        ours, peer = statistics.median(await ours_life(engine, image)), statistics.median(docker_life(image))
        print(
            f"create start wait remove   ours {ours * 1e3:6.0f} ms   docker {peer * 1e3:6.0f} ms   1/{peer / ours:.1f}"
        )
        bindings = {"5201/tcp": (PortBinding("", "15201"),)}
        command = ("python3", "-c", SERVER)
        name = await engine.create(ContainerSpec(image, command=command, port_bindings=bindings))
        await engine.start(name)
        other = docker("run", "-d", "-p", "15202:5201", image, *command)
        await asyncio.sleep(1)
        pid, hold = other_machine()
        pairs = [(send(pid, 15201), send(pid, 15202)) for _ in range(4)]
        mine, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"published port             ours {mine:6.1f} Gb/s   docker {theirs:6.1f} Gb/s   {mine / theirs:.0%}")
        os.close(hold)
        docker("rm", "-f", other)
        await engine.remove(name, force=True)
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
