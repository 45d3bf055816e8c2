"""`--runtime`, the settings' default, and what is there to choose from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import ContainerSpec, Resources
from engine.errors import InvalidInput, Unsupported
from engine.local import LocalEngine
from engine.service import oci_runtimes

from .conftest import Sh

pytestmark = pytest.mark.root
RUNTIMES = [pytest.param("runc", marks=pytest.mark.peer("runc")), pytest.param("crun", marks=pytest.mark.peer("crun"))]


@pytest.fixture
def settings(local: LocalEngine) -> Iterator[Any]:
    path = local.root / "settings.json"

    def write(**runtime: Any) -> None:
        path.write_text(json.dumps({"runtime": runtime}))

    yield write
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", RUNTIMES)
async def test_a_life_on_an_oci_runtime(local: LocalEngine, inside: Sh, name: str, tmp_path: Path) -> None:
    """What an engine does with a container that runs: usage, files, limits, networks, a restart."""
    spec = ContainerSpec("workbench/base", command=("sleep", "1000"), runtime=name, memory=64 << 20)
    container = await local.create(spec)
    await local.start(container)
    detail = await local.container(container)
    host: Any = detail.config["HostConfig"]
    assert host["Runtime"] == name
    assert "sleep 1000" in " ".join((await local.top(container)).processes[0])
    assert (await local.stats(container)).memory.limit == 64 << 20
    await local.update(container, Resources(memory=80 << 20, memory_swap=160 << 20))
    assert (await local.stats(container)).memory.limit == 80 << 20
    assert "127.0.0.1" in await inside(container, "cat /etc/hosts; echo x > /made")
    assert "/made" in [change.path for change in await local.changes(container)]
    await local.restart(container, timeout=0)
    assert await inside(container, "cat /made") == "x\n"
    await local.pause(container)
    await local.unpause(container)
    await local.stop(container, timeout=0)
    assert await local.wait(container) == 137


@pytest.mark.peer("runc")
async def test_the_default_and_names_of_the_settings(local: LocalEngine, sh: Sh, settings: Any) -> None:
    path = shutil.which("runc")
    settings(**{"default-runtime": "mine", "runtimes": {"mine": {"path": path, "runtimeArgs": ["--debug"]}}})
    info = await local.info()
    assert info.default_runtime == "mine"
    assert next(iter(info.runtimes)) == "native"
    assert info.runtimes["mine"] == path
    container = await local.create(ContainerSpec("workbench/base", command=("true",)))
    host: Any = (await local.container(container)).config["HostConfig"]
    assert host["Runtime"] == "mine"
    await local.start(container)
    assert await local.wait(container) == 0
    assert "time" in await sh("ls /proc/self/ns", runtime="native")
    assert (await sh("id -u", runtime=str(path))).strip() == "0"
    assert (await sh("id -u", runtime="io.containerd.runc.v2")).strip() == "0"


async def test_what_there_is_not(local: LocalEngine, settings: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown or invalid runtime name: nosuch"):
        await local.create(ContainerSpec("workbench/base", command=("true",), runtime="nosuch"))
    with pytest.raises(InvalidInput, match="not a program that can be executed"):
        await local.create(ContainerSpec("workbench/base", command=("true",), runtime=str(tmp_path)))
    settings(runtimes={"bad": {"path": "relative"}})
    with pytest.raises(InvalidInput, match=r"settings\.json: runtime\.runtimes: bad: it takes an absolute path"):
        await local.info()
    settings(**{"default-runtime": 3})
    with pytest.raises(InvalidInput, match=r"runtime\.default-runtime"):
        await local.info()


def test_an_ordinary_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_runtimes.idmap, "inside", lambda: True)
    assert oci_runtimes.settled(tmp_path, "native") == oci_runtimes.settled(tmp_path, "") == ""
    with pytest.raises(Unsupported, match="native launcher alone"):
        oci_runtimes.settled(tmp_path, "runc")


def test_time_namespaces_are_asked_for_where_the_runtime_names_them(tmp_path: Path) -> None:
    for said, knows in (
        ('{"linux": {"namespaces": ["pid", "time"]}}', True),
        ('{"linux": {}}', False),
        ("no JSON", False),
    ):
        program = tmp_path / f"runtime-{knows}-{len(said)}"
        program.write_text(f"#!/bin/sh\n[ $1 = features ] && echo '{said}'\n")
        program.chmod(0o755)
        assert oci_runtimes.section(tmp_path, str(program))["time"] is knows
