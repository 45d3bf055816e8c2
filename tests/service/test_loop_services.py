"""Several services: images of each other, restarts with each other, initial syncs; and the loop from a Python program."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.api import LoopEvent, Replaced, ServiceBuildFailed, ServiceState, Synced
from engine.local import LocalEngine, open_engine
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from tests.service.looping import PROGRAM, looping

pytestmark = pytest.mark.root

COMPOSE = """services:
  base:
    build: base
    image: {name}-base
    command: ["python3", "-u", "/main.py"]
  child:
    build:
      context: child
      additional_contexts: {{parent: "service:base"}}
  friend:
    image: workbench/base
    command: ["python3", "-u", "-c", "import signal, time; signal.signal(15, lambda *a: exit()); print('friend', flush=True); time.sleep(1000)"]
    depends_on: {{base: {{condition: service_started, restart: true}}}}
"""


async def test_what_is_built_on_another_service_s_image_and_what_restarts_with_it(
    local: LocalEngine, tmp_path: Path
) -> None:
    files = {
        "compose.yaml": COMPOSE.format(name="family"),
        "base/Dockerfile": "FROM workbench/base\nCOPY main.py note.txt /\n",
        "base/main.py": PROGRAM.format(word="up"),
        "base/note.txt": "one",
        "child/Dockerfile": 'FROM family-base AS own\nCOPY --from=parent /note.txt /copied.txt\nCMD ["python3", "/main.py"]\n',
    }
    async with looping(local, tmp_path / "family", files) as it:
        for service in ("base", "child", "friend"):
            await it.running(service)
        friend = (await local.container("family-friend-1")).summary
        it.save("base/note.txt", "two")
        await it.until(Replaced, lambda e: e.service == "base")
        seen = it._at
        replaced = await it.until(Replaced, lambda e: e.service == "child")
        assert "image of base is new" in replaced.rule
        assert await it.inside("family-child-1", "cat", "/note.txt", "/copied.txt") == "twotwo"
        it._at = seen
        await it.until(ServiceState, lambda e: e.service == "friend" and e.phase == "running")
        now = (await local.container("family-friend-1")).summary
        assert now.id == friend.id
        assert now.started > friend.started
        rules = [text for stream, text in await it.log("family-friend-1") if stream == "workbench"]
        assert [rule.split()[1] for rule in rules] == ["restarted"], "not at the start: the other one was new before it"
        for service in ("child", "friend", "base"):  # `down` somewhere else: with the next save it is there again
            await local.remove(f"family-{service}-1", force=True)
        await local.remove_network("family_default")
        it.save("base/note.txt", "three")
        await it.running("base")
        assert await it.inside("family-base-1", "cat", "/note.txt") == "three"


async def test_initial_sync_brings_files_that_the_image_has_not(local: LocalEngine, tmp_path: Path) -> None:
    files = {
        "compose.yaml": (
            "services:\n  app:\n    build: .\n    develop:\n      watch:\n"
            "        - {action: sync, path: pages, target: /srv/pages, initial_sync: true, ignore: ['*.bak']}\n"
        ),
        "Dockerfile": 'FROM workbench/base\nCOPY main.py /\nCMD ["python3", "-u", "/main.py"]\n',
        "main.py": PROGRAM.format(word="up"),
        "pages/a/b.html": "b",
        "pages/old.bak": "old",
    }
    async with looping(local, tmp_path / "initial", files) as it:
        container = (await it.running()).container
        assert await it.inside(container, "sh", "-c", "cd /srv/pages && find . -type f") == "./a/b.html\n"
        it.save("pages/a/b.html", "c")
        await it.until(Synced)
        assert await it.inside(container, "cat", "/srv/pages/a/b.html") == "c"


async def test_a_service_that_cannot_be_built_does_not_stop_the_others(local: LocalEngine, tmp_path: Path) -> None:
    compose = "services:\n  bad:\n    build: {context: ., dockerfile: Bad}\n  good:\n    build: .\n"
    files = {
        "compose.yaml": compose,
        "Bad": "FROM workbench/base\nRUN false\n",
        "Dockerfile": 'FROM workbench/base\nCOPY main.py /\nCMD ["python3", "-u", "/main.py"]\n',
        "main.py": PROGRAM.format(word="up"),
    }
    async with looping(local, tmp_path / "mixed", files) as it:
        failed = await it.until(ServiceBuildFailed)
        assert (failed.service, failed.still_runs) == ("bad", False)
        await it.running("good")
        it.save("Bad", files["Dockerfile"])
        await it.running("bad")


async def test_a_python_program_drives_the_loop(data_root: Path, tmp_path: Path) -> None:
    """The example of the README."""
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "Dockerfile").write_text('FROM workbench/base\nCOPY main.py /\nCMD ["python3", "-u", "/main.py"]\n')
    (folder / "main.py").write_text(PROGRAM.format(word="one"))
    engine = await open_engine(data_root)
    await engine.ensure_base()
    loop = InnerLoop(engine, discover(folder), data_root / "projects")
    seen: list[LoopEvent] = []
    async for event in loop.events():
        seen.append(event)
        if isinstance(event, ServiceState) and event.phase == "running" and event.generation == 1:
            (folder / "main.py").write_text(PROGRAM.format(word="two"))
        if isinstance(event, Replaced):
            break
    await loop.close()
    replaced = seen[-1]
    assert isinstance(replaced, Replaced)
    assert replaced.generation == 2
    assert replaced.paths == ("main.py",)
    assert replaced.phases.keys() == {"noticed", "planned", "built", "created", "started", "healthy"}
    await engine.remove(replaced.container, force=True)
    await engine.close()
