"""The next container beside the old one: it takes over ports and names when it is ready, or goes unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.api import ChangeSeen, LoopNotice, Replaced, ServiceBuildFailed, ServiceState
from engine.local import LocalEngine
from engine.project.demo import free_port
from tests.patience import PATIENCE
from tests.service.looping import PROGRAM, SERVER, looping

pytestmark = pytest.mark.root

DOCKERFILE = 'FROM workbench/base\nCOPY main.py /main.py\nCMD ["python3", "-u", "/main.py"]\n'


def files(port: int, program: str, more: str = "") -> dict[str, str]:
    compose = f"services:\n  app:\n    build: .\n    ports: ['{port}:8000']\n{more}"
    return {"compose.yaml": compose, "Dockerfile": DOCKERFILE, "main.py": program}


def ask(port: int, host: str = "127.0.0.1") -> str:
    with socket.create_connection((host, port), timeout=PATIENCE) as sock:
        text = b""
        while block := sock.recv(100):
            text += block
        return text.decode()


class Asking:
    """Connects over and over on a thread; every answer and every refusal is kept."""

    def __init__(self, port: int, host: str) -> None:
        self.answers: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port, host))

    def _run(self, port: int, host: str) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(ask(port, host))
            except OSError as error:
                self.answers.append(f"{type(error).__name__}: {error}")

    @contextlib.contextmanager
    def going(self) -> Iterator[Asking]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def host_address() -> str:
    """An address of this host that is not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])


async def test_a_published_port_answers_all_the_time_by_either_way(local: LocalEngine, tmp_path: Path) -> None:
    port = free_port(8600)
    async with looping(local, tmp_path / "port", files(port, SERVER.format(word="one"))) as it:
        container = (await it.running()).container
        await asyncio.to_thread(_until_open, port, "127.0.0.1")
        first = (await local.container(container)).summary
        with Asking(port, "127.0.0.1").going() as near, Asking(port, host_address()).going() as far:
            for word in ("two", "three", "four"):
                it.save("main.py", SERVER.format(word=word))
                replaced = await it.until(Replaced)
        for each in (near, far):
            assert set(each.answers) <= {"one", "two", "three", "four"}, each.answers
            order = list(dict.fromkeys(each.answers))
            assert order == [word for word in ("one", "two", "three", "four") if word in order]
        assert await asyncio.to_thread(ask, port) == "four"
        now = (await local.container(container)).summary
        assert now.id != first.id
        assert f"0.0.0.0:{port}->8000/tcp" in now.ports
        rules = [text for stream, text in await it.log(container) if stream == "workbench"]
        assert [rule.split()[1] for rule in rules] == ["rebuilt"] * 3
        assert re.search(r" main\.py → step 2/3 COPY main\.py /m.* · \d+ ms ──$", rules[0])
        assert list(replaced.phases) == ["noticed", "planned", "built", "created", "started", "healthy"]
    async with asyncio.timeout(PATIENCE):
        while [c for c in await local.containers(all=True) if c.name.startswith("port")]:
            await asyncio.sleep(0.05)


async def test_a_connection_stays_with_the_old_container_until_it_ends(local: LocalEngine, tmp_path: Path) -> None:
    port = free_port(8610)
    slow = (
        "import signal, socket, threading, time\n"
        "done = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *a: done.set())\n"
        'sock = socket.create_server(("", 8000))\n'
        "def serve(client):\n"
        "    client.sendall({word!r}.encode())\n"
        "    client.sendall(client.recv(100))\n"
        "    client.close()\n"
        "threading.Thread(target=lambda: [threading.Thread(target=serve, args=(sock.accept()[0],)).start() for _ in iter(int, 1)], daemon=True).start()\n"
        "done.wait()\n"
        "time.sleep(3)\n"
    )
    for host in ("127.0.0.1", host_address()):
        name = f"stay{host.replace('.', '')}"
        async with looping(local, tmp_path / name, files(port, slow.format(word="one"))) as it:
            await it.running()
            await asyncio.to_thread(_until_open, port, host)
            with socket.create_connection((host, port), timeout=PATIENCE) as sock:
                assert sock.recv(3) == b"one"
                it.save("main.py", slow.format(word="two"))
                await it.until(Replaced)
                with socket.create_connection((host, port), timeout=PATIENCE) as new:
                    assert new.recv(3) == b"two"
                sock.sendall(b"still there")
                assert sock.recv(100) == b"still there"


def _until_open(port: int, host: str) -> None:
    while True:
        try:
            with socket.create_connection((host, port), timeout=PATIENCE) as sock:
                if sock.recv(1):
                    return
        except OSError:
            continue


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('about to fail', flush=True)\nraise SystemExit(3)\n", "ended with exit code 3"),
        (PROGRAM.format(word="about to fail"), "did not open port 8000"),
    ],
    ids=["dies", "deaf"],
)
async def test_a_new_container_that_fails_goes_unnoticed(
    local: LocalEngine, tmp_path: Path, program: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.project.ready.PORTS", 1.0)
    port = free_port(8620)
    name = "fails-deaf" if "sleep" in program else "fails-dies"
    async with looping(local, tmp_path / name, files(port, SERVER.format(word="one"))) as it:
        container = (await it.running()).container
        await asyncio.to_thread(_until_open, port, "127.0.0.1")
        before = (await local.container(container)).summary
        it.save("main.py", program)
        failed = await it.until(ServiceBuildFailed)
        assert reason in failed.message
        assert "about to fail" in failed.message
        assert failed.still_runs
        assert (await local.container(container)).summary.started == before.started
        assert await asyncio.to_thread(ask, port) == "one"
        assert [c.name for c in await local.containers(all=True) if c.name.startswith(name)] == [container]
        rules = [text for stream, text in await it.log(container) if stream == "workbench"]
        assert "generation 2 given up" in rules[-1]
        assert "generation 1 goes on" in rules[-1]
        it.save("main.py", SERVER.format(word="three"))
        assert (await it.until(Replaced)).generation == 2
        assert await asyncio.to_thread(ask, port) == "three"


async def test_a_health_check_decides_and_newer_changes_overtake_the_waiting(
    local: LocalEngine, tmp_path: Path
) -> None:
    health = "    healthcheck: {test: [CMD, test, -e, /healthy], interval: 1h, start_period: 1h}\n"
    program = "import pathlib\n" + "{make}\n" + PROGRAM
    healthy, ill = "pathlib.Path('/healthy').touch()", ""
    port = free_port(8630)
    given = files(port, program.format(make=healthy, word="one"), health)
    async with looping(local, tmp_path / "health", given) as it:
        container = (await it.running()).container
        first = (await local.container(container)).summary.id
        it.save("main.py", program.format(make=ill, word="never healthy"))
        await it.until(ServiceState, lambda e: e.phase == "starting" and "until it is healthy" in e.text)
        assert (await local.container(container)).summary.id == first
        async for line in local.logs("health-app-1-next", follow=True):
            if line.text == "never healthy":
                break
        it.save("main.py", program.format(make=healthy, word="three"))
        await it.until(LoopNotice, lambda e: "overtaken" in e.text)
        await it.until(Replaced)
        words = [text for stream, text in await it.log(container) if stream == "stdout"]
        assert words == ["one", "never healthy", "three"]
        async with asyncio.timeout(PATIENCE):
            while len([c for c in await local.containers(all=True) if c.name.startswith("health")]) > 1:
                await asyncio.sleep(0.05)


async def test_after_many_overtakings_one_comes_to_its_end(
    local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written all the time must not keep the new container from ever taking over."""
    monkeypatch.setattr("engine.project.service_loop.PATIENCE", 0)
    health = "    healthcheck: {test: [CMD, test, -e, /healthy], interval: 1h, start_period: 1h}\n"
    given = files(free_port(8635), PROGRAM.format(word="one"), health)
    async with looping(local, tmp_path / "patient", given) as it:
        container = (await it.running()).container
        it.save("main.py", PROGRAM.format(word="two"))
        await it.until(ServiceState, lambda e: "until it is healthy" in e.text)
        it.save("main.py", PROGRAM.format(word="three"))
        await it.until(ChangeSeen)
        await it.inside("patient-app-1-next", "touch", "/healthy")
        assert (await it.until(Replaced)).generation == 2
        await it.until(ServiceState, lambda e: "until it is healthy" in e.text)
        await it.inside("patient-app-1-next", "touch", "/healthy")
        assert (await it.until(Replaced)).generation == 3
        async with asyncio.timeout(PATIENCE):
            while [text for stream, text in await it.log(container) if stream == "stdout"] != ["one", "two", "three"]:
                await asyncio.sleep(0.02)


async def test_what_cannot_overlap_stops_first_and_comes_back_when_the_new_one_fails(
    local: LocalEngine, tmp_path: Path
) -> None:
    port = free_port(8640)
    more = "    volumes: ['data:/data']\nvolumes: {data: {}}\n"
    async with looping(local, tmp_path / "alone", files(port, SERVER.format(word="one"), more)) as it:
        container = (await it.running()).container
        first = (await local.container(container)).summary
        it.save("main.py", "raise SystemExit(4)\n")
        assert "the volume alone_data" in (await it.until(LoopNotice)).text
        failed = await it.until(ServiceBuildFailed)
        assert "exit code 4" in failed.message
        again = (await local.container(container)).summary
        assert again.id == first.id
        assert again.started > first.started
        it.save("main.py", SERVER.format(word="two"))
        await it.until(Replaced)
        await asyncio.to_thread(_until_open, port, "127.0.0.1")
        assert await asyncio.to_thread(ask, port) == "two"


async def test_names_lead_to_the_new_container_only_when_it_is_ready(local: LocalEngine, tmp_path: Path) -> None:
    port = free_port(8650)
    other = "  other:\n    image: workbench/base\n    command: [sleep, infinity]\n    init: true\n"
    health = "    healthcheck: {test: [CMD, test, -e, /healthy], interval: 1h, start_period: 1h}\n"
    program = "import pathlib\n{make}\n" + PROGRAM
    given = files(port, program.format(make="pathlib.Path('/healthy').touch()", word="one"), health + other)
    async with looping(local, tmp_path / "names", given) as it:
        await it.running("app")
        await it.running("other")
        look = ("python3", "-c", "import socket; print(sorted({a[4][0] for a in socket.getaddrinfo('app', 80)}))")
        before = await it.inside("names-other-1", *look)
        it.save("main.py", program.format(make="", word="two"))
        await it.until(ServiceState, lambda e: "until it is healthy" in e.text)
        assert await it.inside("names-other-1", *look) == before
        await it.inside("names-app-1-next", "touch", "/healthy")
        await it.until(Replaced)
        after = await it.inside("names-other-1", *look)
        assert after != before
        assert after.count("'") == 2


async def test_a_loop_that_closes_in_the_middle_of_a_swap_ends_it(local: LocalEngine, tmp_path: Path) -> None:
    """The one before takes its time to stop: it is gone all the same when `close` has returned."""
    slow = "import time\n" + SERVER.replace("lambda *a: sys.exit(0)", "lambda *a: (time.sleep(1), sys.exit(0))")
    port = free_port(8690)
    async with looping(local, tmp_path / "closing", files(port, slow.format(word="one"))) as made:
        await made.running()
        made.save("main.py", slow.format(word="two"))
        await made.until(Replaced)
        await made.loop.close()
        names = [one.name for one in await local.containers(all=True) if one.name.startswith("closing")]
        assert names == ["closing-app-1"]


async def test_what_a_check_says_and_why_a_stop_took_its_whole_grace(local: LocalEngine, tmp_path: Path) -> None:
    check = "[CMD-SHELL, 'test -e /healthy || { echo not yet; echo no good; exit 1; }']"
    health = f"    stop_grace_period: 1s\n    healthcheck: {{test: {check}, interval: 50ms, retries: 1, start_interval: 50ms}}\n"
    stubborn = "import pathlib\n{make}\n" + PROGRAM.replace("sys.exit(0)", "print('no')")
    healthy = "pathlib.Path('/healthy').touch()"
    given = files(free_port(8690), stubborn.format(make=healthy, word="one"), health)
    async with looping(local, tmp_path / "stubborn", given) as it:
        await it.running()
        it.save("main.py", stubborn.format(make="", word="two"))
        assert "the new container is unhealthy: no good" in (await it.until(ServiceBuildFailed)).message
        it.save("main.py", stubborn.format(make=healthy, word="three"))
        await it.until(Replaced)
        text = (await it.until(LoopNotice, lambda e: "did not end" in e.text)).text
        assert "after SIGTERM and was killed" in text
        assert "(`python3 -u /main.py`) has a handler for it and goes on" in text
