"""A loop whose disk is full, whose project cannot be written, which is not the only one: one clear message, what ran runs on, and
what is mended goes on by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.api import LoopNotice, Replaced, ServiceBuildFailed, ServiceState
from engine.local import LocalEngine, open_engine, runtime_dir
from tests.conftest import end_supervisor
from tests.patience import PATIENCE
from tests.service.looping import PROGRAM, looping

pytestmark = pytest.mark.root
BUSYBOX = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), "")
DOCKERFILE = 'FROM workbench/base\nCOPY . /app/\nCMD ["python3", "-u", "/app/main.py"]\n'
SMALL = 'FROM scratch\nCOPY sh /bin/\nCOPY sh /bin/sleep\nCOPY src /app/\nCMD ["sh", "/app/run"]\n'
RUN = 'trap "exit 0" TERM\necho one\nwhile :; do sleep 1000 & wait; done\n'


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", place)
    yield place
    end_supervisor(runtime_dir(place / "root"))
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
async def engine(small: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(small / "root")
    yield opened
    await opened.close()


@pytest.mark.skipif(not BUSYBOX, reason="no busybox here (Debian: busybox-static)")
async def test_a_disk_that_is_full(engine: LocalEngine, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    shutil.copy(BUSYBOX, folder / "sh")
    async with looping(engine, folder, {"Dockerfile": SMALL, "src/run": RUN}) as it:
        container = (await it.running()).container
        before = (await engine.container(container)).summary.id
        (folder / "src" / "large").write_bytes(os.urandom(30 << 20))
        failed = await it.until(ServiceBuildFailed)
        assert failed.still_runs
        assert "no space left" in failed.message.lower()
        assert "free some space" in failed.hint
        assert (await engine.container(container)).summary.id == before
        said = [event for event in it.seen if isinstance(event, ServiceBuildFailed)]
        mount("-o", "remount,size=200m", small)
        replaced = await it.until(Replaced)  # nobody saved anything
        assert replaced.generation == 2
        assert len(said) == len([event for event in it.seen if isinstance(event, ServiceBuildFailed)]), "said once"
        assert await engine.check() == []


async def test_a_project_that_cannot_be_written(local: LocalEngine, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "readonly"
    source.mkdir()
    folder.mkdir()
    files = {"Dockerfile": DOCKERFILE, "main.py": PROGRAM.format(word="one")}
    for name, text in files.items():
        (source / name).write_text(text)
    mount("--bind", source, folder)
    mount("-o", "remount,bind,ro", folder)
    try:
        async with looping(local, folder, {}) as it:
            await it.running()
            (source / "main.py").write_text(PROGRAM.format(word="two"))
            await it.until(Replaced)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)  # the context's index holds it


async def test_two_loops_of_which_the_second_looks_on(local: LocalEngine, tmp_path: Path) -> None:
    """Each save makes one generation, and both are told of it."""
    files = {"Dockerfile": DOCKERFILE, "main.py": PROGRAM.format(word="one")}
    async with looping(local, tmp_path / "two", files) as first:
        await first.running()
        async with looping(local, tmp_path / "two", {}) as second:
            notice = await second.until(LoopNotice)
            assert "another workbench looks after two: this one shows it" in notice.text
            await second.running()
            first.save("main.py", PROGRAM.format(word="two"))
            second.loop.changed([first.folder / "main.py"])
            assert (await first.until(Replaced)).generation == 2
            await first.loop.close()
            assert "this one rebuilds from now on" in (await second.until(LoopNotice)).text
            await second.running()
            second.save("main.py", PROGRAM.format(word="three"))
            replaced = await second.until(Replaced)
            assert replaced.generation == 3
            assert ("stdout", "three") in await asyncio.wait_for(_log(second, replaced.container), PATIENCE)


async def _log(it: object, container: str) -> list[tuple[str, str]]:
    while ("stdout", "three") not in (lines := await it.log(container)):  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
    return list(lines)


async def test_one_that_only_shows_builds_nothing_and_tells_what_becomes_of_the_containers(
    local: LocalEngine, tmp_path: Path
) -> None:
    files = {"Dockerfile": 'FROM workbench/base\nCMD ["python3", "-c", "import time; time.sleep(1000)"]\n'}
    folder = tmp_path / "shown"
    async with looping(local, folder, files, show_only=True) as shown:
        assert "read-only" in (await shown.until(LoopNotice)).text
        await shown.loop.rebuild()
        assert (await shown.until(LoopNotice)).text == "not rebuilt: read-only"
        assert not await local.containers(all=True)
        async with looping(local, folder, {}) as it:  # the other one has not taken the project's lock
            name = (await it.running()).container
            await shown.running()
            await local.kill(name)
            await shown.until(ServiceState, lambda e: e.phase == "exited")
