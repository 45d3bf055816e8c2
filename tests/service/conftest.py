"""An engine on the session's data root, and the shortest way to run something on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import BuildRequest, ContainerSpec, ExecSpec, Stream
from engine.local import LocalEngine, open_engine

Sh = Callable[..., Awaitable[str]]
Image = Callable[[str], Awaitable[str]]


@pytest.fixture
async def local(data_root: Path) -> AsyncIterator[LocalEngine]:
    """Every container and volume that a test makes is gone afterwards."""
    opened = await open_engine(data_root)
    await opened.ensure_base()
    yield opened
    for container in await opened.containers(all=True):
        await opened.remove(container.id, force=True)
    for volume in await opened.volumes():
        await opened.remove_volume(volume.name)
    await opened.close()


async def text_of(stream: Stream) -> str:
    """Both streams' text, to the end."""
    await stream.close_stdin()
    out = b""
    while chunk := await stream.read():
        out += chunk[1]
    return out.decode(errors="replace")


@pytest.fixture
def sh(local: LocalEngine) -> Sh:
    """`sh("script", mounts=…)` runs the script in a new container and returns what it printed; it must succeed.
    `sh("script", code=3)` when it must end with that code."""

    async def run(script: str, image: str = "workbench/base", code: int = 0, **more: Any) -> str:
        container = await local.create(ContainerSpec(image, command=("sh", "-c", script), **more))
        text = await text_of(await local.start_attached(container))
        assert await local.wait(container) == code, text
        return text

    return run


@pytest.fixture
def inside(local: LocalEngine) -> Sh:
    """`inside(container, "script")` runs the script in a running container."""

    async def run(container: str, script: str) -> str:
        stream = await local.exec(container, ExecSpec(("sh", "-c", script)))
        text = await text_of(stream)
        assert await stream.wait() == 0, text
        return text

    return run


@pytest.fixture
def image(local: LocalEngine, tmp_path: Path) -> Image:
    """`image("RUN …")` builds on the base image and returns a tag."""

    async def build(instructions: str, tag: str = "made") -> str:
        folder = tmp_path / f"context-{tag}"
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM workbench/base\n{instructions}\n")
        async for _ in local.build(BuildRequest(folder, tags=(tag,))):
            pass
        return tag

    return build
