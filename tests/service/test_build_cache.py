"""What the builder keeps, and pruning it: by age, kind, id and a budget; and contexts from a URL."""

from __future__ import annotations

import functools
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.api import BuildOutput, BuildRequest
from engine.errors import InvalidInput
from engine.local import LocalEngine, open_engine
from engine.service.build_cache import MOUNT, STEP, Entry, plan_prune

HOUR = 3600 * 10**9
ENTRIES = [
    Entry(STEP, "a1", 100, 1 * HOUR, False),
    Entry(STEP, "b2", 200, 2 * HOUR, True),
    Entry(MOUNT, "c3", 300, 3 * HOUR, False),
    Entry(MOUNT, "d4", 400, 4 * HOUR, True),
    Entry(STEP, "e5", 500, 5 * HOUR, False),
]


@pytest.mark.parametrize(
    ("filters", "everything", "keep", "expected"),
    [
        ({}, False, None, "a1 c3 e5"),
        ({}, True, None, "a1 b2 c3 e5"),
        ({"until": ["7h"]}, True, None, "a1 b2"),
        ({"type": [MOUNT]}, False, None, "c3"),
        ({"id": ["e"]}, False, None, "e5"),
        ({"inuse": ["true"]}, True, None, "b2"),
        ({"unused-for": ["7h"]}, True, None, "a1 b2"),
        ({"shared": ["1"]}, True, None, "b2"),
        ({"private": ["true"]}, True, None, "a1 c3 e5"),
        ({}, False, 1200, "a1"),
        ({}, False, 1300, ""),
        ({}, True, 0, "a1 c3 e5"),
    ],
)
def test_what_is_pruned(filters: dict[str, list[str]], everything: bool, keep: int | None, expected: str) -> None:
    found = plan_prune(ENTRIES, filters, everything=everything, keep_bytes=keep, now=10 * HOUR)
    assert " ".join(entry.key for entry in found) == expected


def test_unknown_filters_are_named() -> None:
    for bad in ({"color": ["red"]}, {"until": ["soon"]}, {"inuse": ["maybe"]}):
        with pytest.raises(InvalidInput):
            plan_prune(ENTRIES, bad, everything=False, keep_bytes=None)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(tmp_path / "root")
    yield opened
    await opened.close()


async def ran(engine: LocalEngine, folder: Path, **more: object) -> int:
    events = [event async for event in engine.build(BuildRequest(folder, **more))]  # type: ignore[arg-type]
    return sum(not getattr(event, "cached", True) for event in events)


@pytest.mark.root
async def test_pruned_steps_run_again_and_what_an_image_has_stays(engine: LocalEngine, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "f").write_text("x" * 5000)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY f /f\nCOPY f /g\n")
    assert await ran(engine, folder, tags=("kept",)) == 2
    assert [entry.in_use for entry in await engine.build_cache()] == [True, True]
    assert (await engine.prune_build_cache()).cache == ()
    assert await ran(engine, folder) == 0
    await engine.remove_image("kept", force=True)
    assert await ran(engine, folder, outputs=(BuildOutput("cacheonly"),)) == 2
    assert await engine.images(all=True) == []
    dry = await engine.prune_build_cache(dry_run=True)
    assert (len(dry.cache), dry.reclaimed) == (2, 10_000)
    assert (await engine.prune_build_cache(keep_bytes=6000)).reclaimed == 5000
    assert len(await engine.build_cache()) == 1
    assert (await engine.prune_build_cache(all=True)).reclaimed == 5000
    assert await ran(engine, folder) == 2
    assert await engine.check() == []


@pytest.mark.root
async def test_the_cache_keeps_to_its_budget(tmp_path: Path) -> None:
    """What images have does not count and does not go; of the rest, what was used least recently goes after a build."""
    root, folder = tmp_path / "root", tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY f /f\n")
    only = (BuildOutput("cacheonly"),)

    async def build(text: str, **more: object) -> None:
        engine = await open_engine(root)
        (folder / "f").write_text(text * 5000)
        assert await ran(engine, folder, **more) == 1
        await engine.close()  # what follows a build is done by now

    await build("a", tags=("kept",))
    for text in "bcd":
        await build(text, outputs=only)
    (root / "settings.json").write_text('{"build": {"cache-size": 11000}}')
    await build("e", outputs=only)
    engine = await open_engine(root)
    assert sorted((entry.size, entry.in_use) for entry in await engine.build_cache()) == [(5000, False)] * 2 + [
        (5000, True)
    ]
    for text, expected in (("a", 0), ("e", 0), ("d", 0), ("b", 1)):
        (folder / "f").write_text(text * 5000)
        assert await ran(engine, folder, outputs=only) == expected, text
    assert await engine.check() == []
    await engine.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A web server with a context as a tar, and a Dockerfile."""
    folder = tmp_path / "www"
    folder.mkdir()
    with tarfile.open(folder / "context.tar.gz", "w:gz") as tar:
        for name, text in {"Dockerfile": "FROM scratch\nCOPY data /\n", "data": "from afar"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    (folder / "plain").write_text("FROM scratch\nCOPY <<EOF /note\nhello\nEOF\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "name", "text"), [("context.tar.gz", "data", "from afar"), ("plain", "note", "hello\n")]
)
def test_a_context_from_a_url(served: str, tmp_path: Path, path: str, name: str, text: str) -> None:
    env = {**os.environ, "WORKBENCH_ROOT": str(tmp_path / "root"), "PYTHONPATH": str(Path(__file__).parents[2])}
    words = ["build", "-o", str(tmp_path / "out"), f"{served}/{path}"]
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / name).read_text() == text
    assert [entry.name for entry in (tmp_path / "root/tmp").iterdir() if entry.name.startswith("context-")] == []


async def test_a_context_that_holds_the_data_root_is_refused_unless_it_is_ignored(tmp_path: Path) -> None:
    """Reading the records' files would end SQLite's locks on them."""
    engine = await open_engine(tmp_path / "data" / "root")
    try:
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        with pytest.raises(InvalidInput, match="own data root is in it, at data/root"):
            async for _ in engine.build(BuildRequest(tmp_path)):
                pass
        (tmp_path / ".dockerignore").write_text("data\n")
        async for _ in engine.build(BuildRequest(tmp_path)):
            pass
        assert await engine.check() == []
    finally:
        await engine.close()
