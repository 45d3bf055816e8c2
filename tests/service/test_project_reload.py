"""A project's own files change while it runs, and what is wrong with a project: one message each, the rest goes on, and what is
mended comes up by itself. The changes are seen by the real watcher."""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import LoopNotice, NetworkSpec, ServiceBuildFailed, ServiceState
from engine.local import LocalEngine
from engine.project.demo import free_port
from engine.project.discovery import discover
from engine.project.service_loop import ServiceLoop
from tests.patience import PATIENCE
from tests.service.looping import PROGRAM, Looping, looping

pytestmark = pytest.mark.root

DOCKERFILE = 'FROM workbench/base\nCOPY main.py /main.py\nCMD ["python3", "-u", "/main.py"]\n'
TRAP = "trap 'exit 0' TERM; while :; do sleep 100 & wait $!; done"
LIVES = f'{{image: workbench/base, command: ["sh", "-c", "{TRAP}"]'


def files(compose: str, program: str = PROGRAM.format(word="one")) -> dict[str, str]:
    return {"compose.yaml": compose, "Dockerfile": DOCKERFILE, "main.py": program}


def up(engine: LocalEngine, folder: Path, content: dict[str, str]):  # type: ignore[no-untyped-def]
    return looping(engine, folder, content, reload=functools.partial(discover, folder))


async def told(seen: Looping, words: str) -> LoopNotice:
    return await seen.until(LoopNotice, lambda event: words in event.text)


async def environment(engine: LocalEngine, name: str) -> tuple[str, ...]:
    return (await engine.container(name)).spec.env


async def names(engine: LocalEngine, prefix: str) -> set[str]:
    return {c.name for c in await engine.containers() if c.name.startswith(prefix)}


# --- the project's own files ----------------------------------------------------------------------------


async def test_services_are_added_changed_and_removed(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "reload"
    async with up(local, folder, files(f"services:\n  a: {LIVES}}}\n  b: {LIVES}}}\n")) as seen:
        await seen.running("b")
        untouched = (await local.container("reload-a-1")).summary.id
        compose = folder / "compose.yaml"
        compose.write_text(f"services:\n  a: {LIVES}}}\n  b: {LIVES}, environment: {{X: '1'}}}}\n  c: {LIVES}}}\n")
        assert "c added; b changed" in (await told(seen, "compose.yaml:")).text
        async with asyncio.timeout(PATIENCE):
            while "X=1" not in await environment(local, "reload-b-1") or len(await names(local, "reload")) < 3:
                await asyncio.sleep(0.05)
        compose.write_text(f"services:\n  a: {LIVES}}}\n  c: {LIVES}, scale: 2}}\n")
        assert "b removed; c changed" in (await told(seen, "compose.yaml:")).text
        async with asyncio.timeout(PATIENCE):
            while await names(local, "reload") != {"reload-a-1", "reload-c-1", "reload-c-2"}:
                await asyncio.sleep(0.05)
        assert (await local.container("reload-a-1")).summary.id == untouched


async def test_an_env_file_and_a_secret(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "envs"
    content = files(
        f"services:\n  a: {LIVES}, env_file: a.env, secrets: [key]}}\nsecrets: {{key: {{file: key.txt}}}}\n"
    )
    async with up(local, folder, {**content, "a.env": "X=1\n", "key.txt": "old"}) as seen:
        await seen.running("a")
        (folder / "a.env").write_text("X=2\n")
        await told(seen, "a changed")
        await seen.running("a")
        assert "X=2" in await environment(local, "envs-a-1")
        (folder / "key.txt").write_text("new")
        await told(seen, "a changed")
        await seen.running("a")
        assert await seen.inside("envs-a-1", "cat", "/run/secrets/key") == "new"


async def test_a_file_that_does_not_parse(local: LocalEngine, tmp_path: Path) -> None:
    """One message; what runs goes on; the next save that parses counts."""
    folder = tmp_path / "broken"
    async with up(local, folder, files(f"services:\n  a: {LIVES}}}\n")) as seen:
        state = await seen.running("a")
        (folder / "compose.yaml").write_text("services:\n  a: {image: [\n")
        text = (await told(seen, "not taken over")).text
        assert "compose.yaml:3" in text
        assert (await local.container(state.container)).summary.running
        (folder / "compose.yaml").write_text(
            f"services:\n  a: {LIVES}, depends_on: [b]}}\n  b: {LIVES}, depends_on: [a]}}\n"
        )
        assert "depend on each other" in (await told(seen, "not taken over")).text
        (folder / "compose.yaml").write_text(f"services:\n  a: {LIVES}, environment: {{X: y}}}}\n")
        await told(seen, "is read again")
        await seen.running("a")
        assert "X=y" in await environment(local, "broken-a-1")


async def test_the_dockerfile_itself(local: LocalEngine, tmp_path: Path) -> None:
    """Of a bare project its ports too."""
    folder = tmp_path / "bare"
    port = free_port()
    async with up(local, folder, {"Dockerfile": DOCKERFILE, "main.py": PROGRAM.format(word="one")}) as seen:
        await seen.running()
        (folder / "Dockerfile").write_text(DOCKERFILE + f"EXPOSE {port}\n")
        async with asyncio.timeout(PATIENCE):
            while f"0.0.0.0:{port}->{port}/tcp" not in (await local.container("bare-app-1")).summary.ports:
                await asyncio.sleep(0.05)


# --- what is wrong ---------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


async def test_a_port_in_use_is_said_by_whom_and_tried_again(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "ports"
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        compose = f"services:\n  a: {LIVES}, ports: ['{port}:80']}}\n  b: {LIVES}}}\n"
        async with up(local, folder, files(compose)) as seen:
            failed = await seen.until(ServiceBuildFailed)
            assert failed.service == "a"
            assert str(port) in failed.message
            import os

            assert f"pid {os.getpid()}" in failed.message, failed.message
            await seen.running("b")
            server.close()
            await seen.running("a")


async def test_a_build_that_fails_and_a_container_that_ends(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "fails"
    content = files(
        f"services:\n  bad: {{build: .}}\n  ends: {{image: workbench/base, command: [sh, -c, exit 3]}}\n  c: {LIVES}}}\n"
    )
    async with up(local, folder, {**content, "Dockerfile": "FROM workbench/base\nRUN exit 7\n"}) as seen:
        failed = await seen.until(ServiceBuildFailed)
        assert (failed.service, "exit code: 7" in failed.message or "7" in failed.message) == ("bad", True)
        await seen.running("c")
        ended = [e for e in seen.seen if isinstance(e, ServiceState) and e.service == "ends"]
        while not any("exit code 3" in e.text for e in ended):
            await asyncio.sleep(0.05)
            ended = [e for e in seen.seen if isinstance(e, ServiceState) and e.service == "ends"]
        (folder / "Dockerfile").write_text(DOCKERFILE)
        await seen.running("bad")


async def test_an_end_while_its_service_is_at_work_is_told(
    local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was passed over: a container that ends at once may do so before the work that started it has."""
    replicate = ServiceLoop._replicate

    async def later(self: ServiceLoop, *given: Any, **more: Any) -> None:
        await local.wait("brief-ends-1")
        for _ in range(10):
            await asyncio.sleep(0.02)  # whoever waits for its end has heard by now
        await replicate(self, *given, **more)

    monkeypatch.setattr(ServiceLoop, "_replicate", later)
    content = files("services:\n  ends: {image: workbench/base, command: [sh, -c, exit 3]}\n")
    async with up(local, tmp_path / "brief", content) as seen:
        await seen.until(ServiceState, lambda event: "exit code 3" in event.text)


async def test_a_health_check_that_never_passes(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "sick"
    check = "{test: [CMD, test, -f, /ok], interval: 100ms, retries: 2, start_interval: 100ms}"
    compose = f"services:\n  a: {LIVES}, healthcheck: {check}}}\n  b: {LIVES}, depends_on: {{a: {{condition: service_healthy}}}}}}\n  c: {LIVES}}}\n"
    async with up(local, folder, files(compose)) as seen:
        failed = await seen.until(ServiceBuildFailed)
        assert (failed.service, failed.message) == ("b", "b waits for a, which is unhealthy")
        await seen.running("c")
        (folder / "compose.yaml").write_text(compose.replace("[CMD, test, -f, /ok]", "[CMD, 'true']"))
        await seen.running("b")


async def test_a_deleted_folder_and_its_return(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    async with up(local, folder, files("services: {app: {build: .}}\n")) as seen:
        state = await seen.running()
        shutil.rmtree(folder)
        await told(seen, "is gone")
        assert (await local.container(state.container)).summary.running
        folder.mkdir()
        for name, text in files("services: {app: {build: .}}\n", PROGRAM.format(word="back")).items():
            (folder / name).write_text(text)
        async with asyncio.timeout(PATIENCE):
            while ("stdout", "back") not in await seen.log("gone-app-1"):
                await asyncio.sleep(0.1)


async def test_a_missing_external_network(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "nets"
    compose = f"services:\n  a: {LIVES}, networks: [far]}}\n  b: {LIVES}}}\nnetworks: {{far: {{external: true, name: nets-far}}}}\n"
    async with up(local, folder, files(compose)) as seen:
        await told(seen, "nets-far declared as external")
        await seen.running("b")
        await local.create_network(NetworkSpec("nets-far"))
        await seen.running("a")  # without a save
        assert (await local.container("nets-a-1")).summary.running


async def test_a_missing_external_volume(local: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "vols"
    compose = (
        f"services:\n  a: {LIVES}, volumes: ['data:/data']}}\nvolumes: {{data: {{external: true, name: vols-data}}}}\n"
    )
    async with up(local, folder, files(compose)) as seen:
        await told(seen, "vols-data declared as external")
        failed = await seen.until(ServiceBuildFailed)
        assert "vols-data" in failed.message
        await local.create_volume("vols-data")
        await seen.running("a")
