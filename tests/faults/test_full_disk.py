"""A disk that fills up during a pull's unpacking, a build and a run: one message, a store that is whole, and room again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.api import BuildFinished, BuildRequest, ContainerSpec
from engine.errors import BuildFailed, StorageFull
from engine.local import LocalEngine, open_engine, runtime_dir
from tests.conftest import end_supervisor

pytestmark = pytest.mark.root
BUSYBOX = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), "")
FILL = "dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null; echo filled"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=True)
    yield place
    end_supervisor(runtime_dir(place / "root"))
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
async def engine(small: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(small / "root")
    yield opened
    for container in await opened.containers(all=True):
        await opened.remove(container.id, force=True)
    await opened.close()


async def build(engine: LocalEngine, folder: Path, dockerfile: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    events = [event async for event in engine.build(BuildRequest(folder, tags=("filler",)))]
    assert isinstance(events[-1], BuildFinished)


def free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


async def test_what_does_not_fit_leaves_nothing(engine: LocalEngine, small: Path) -> None:
    before = free(small)
    with pytest.raises(StorageFull) as caught:
        await engine.ensure_base()  # 80 MB
    assert "workbench rmi" in (caught.value.hint or "")
    assert await engine.check() == []
    assert free(small) > before - (1 << 20)


@pytest.mark.skipif(not BUSYBOX, reason="no busybox here (Debian: busybox-static)")
async def test_a_step_and_a_container_that_fill_the_disk_end(engine: LocalEngine, small: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(BUSYBOX, context / "sh")
    base = "FROM scratch\nCOPY sh /bin/sh\nCOPY sh /bin/dd\n"
    await build(engine, context, base)
    before = free(small)
    with pytest.raises((BuildFailed, StorageFull)):
        await build(engine, context, f"{base}RUN {FILL}; false\n")
    assert free(small) > before - (1 << 20), "the failed step's files are gone"
    name = await engine.create(ContainerSpec("filler", name="filler", command=("sh", "-c", FILL)))
    await engine.start(name)
    assert await engine.wait(name) == 0
    assert free(small) < 1 << 20
    assert [line.text async for line in engine.logs(name)] == ["filled"], "its last words had room"
    await engine.remove(name)
    assert free(small) > before - (1 << 20)
    assert await engine.check() == []
