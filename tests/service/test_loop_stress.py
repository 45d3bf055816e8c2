"""Saves at random moments, ten files each, while builds and new containers are under way: the last state runs, and nothing is left.

Thirty of them here; WORKBENCH_SAVES=500 for the long run."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from engine.api import LoopNotice, Replaced, ServiceBuildFailed, Synced
from engine.errors import EngineError
from engine.local import LocalEngine
from tests.patience import PATIENCE
from tests.service.looping import PROGRAM, Looping, looping

pytestmark = pytest.mark.root

SAVES = int(os.environ.get("WORKBENCH_SAVES", "30"))
DOCKERFILE = (
    "FROM workbench/base\nWORKDIR /app\nCOPY *.txt ./\nRUN cat *.txt | sort | uniq > sum\nCOPY main.py .\n"
    'CMD ["python3", "-u", "/app/main.py"]\n'
)


WHOLE = (  # the folder's layer is made out of the one before
    "FROM workbench/base\nWORKDIR /app\nCOPY . .\nRUN cat *.txt | sort | uniq > sum\n"
    'CMD ["python3", "-u", "/app/main.py"]\n'
)


RULES = """services:
  app:
    build: .
    develop:
      watch:
        - {action: sync, path: ., include: ["*.txt"], target: /app}
        - {action: rebuild, path: main.py}
"""


def mounts(below: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(below) in line]


async def quiet(it: Looping) -> None:
    """Until the loop has nothing left to do."""
    worker = it.loop._services["app"]
    async with asyncio.timeout(PATIENCE):
        while not worker.idle:
            await asyncio.sleep(0.02)


async def printed(it: Looping, container: str) -> None:
    """Until the last program has begun."""
    try:
        async with asyncio.timeout(PATIENCE):
            while ("stdout", str(SAVES)) not in await it.log(container):
                await asyncio.sleep(0.05)
    except TimeoutError:
        program = await it.inside(container, "cat", "/app/main.py")
        raise AssertionError(f"not run: {program!r}; last events: {it.seen[-12:]}") from None


async def said(it: Looping, container: str) -> str:
    try:
        return (await it.inside(container, "cat", "/app/sum")).strip()
    except EngineError:  # it was just replaced
        return ""


@pytest.mark.parametrize(
    ("dockerfile", "rules"), [(DOCKERFILE, ""), (WHOLE, ""), (DOCKERFILE, RULES)], ids=["steps", "folder", "rules"]
)
async def test_the_last_of_many_saves_runs_and_nothing_is_left(
    local: LocalEngine, tmp_path: Path, dockerfile: str, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `rules` most saves are synced, and some rebuild; a Dockerfile that changed rebuilds in any case."""
    if dockerfile == DOCKERFILE:  # each save is acted on, however soon the next one comes
        monkeypatch.setattr("engine.project.watch.RESTLESS", 0.0)
    files = {"Dockerfile": dockerfile, "main.py": PROGRAM.format(word="0")}
    files |= {"compose.yaml": rules} if rules else {}
    files |= {f"f{number}.txt": "0" for number in range(10)}
    chance = random.Random(5)
    before_mounts = mounts(local.root)
    async with looping(local, tmp_path / "stress", files) as it:
        container = (await it.running()).container
        for number in range(1, SAVES + 1):
            # Real files, noticed by the watching; now and then a Dockerfile that cannot be built.
            text = dockerfile + ("RUN false\n" if chance.random() < 0.1 and number < SAVES else "")
            if text != (it.folder / "Dockerfile").read_text():
                (it.folder / "Dockerfile").write_text(text)
            for each in range(10):
                (it.folder / f"f{each}.txt").write_text(f"{number}\n")
            if not rules or number == SAVES or chance.random() < 0.15:
                (it.folder / "main.py").write_text(PROGRAM.format(word=str(number)))
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.05, 0.15, 0.4)))
        async with asyncio.timeout(PATIENCE):
            while await said(it, container) != str(SAVES):
                await asyncio.sleep(0.05)
        await quiet(it)
        await printed(it, container)
        assert await it.inside(container, "sh", "-c", "cat /app/f*.txt") == f"{SAVES}\n" * 10
        synced = sum(isinstance(event, Synced) for event in it.seen)
        replaced = [event for event in it.seen if isinstance(event, Replaced)]
        overtaken = [e for e in it.seen if isinstance(e, LoopNotice) and "overtaken" in e.text]
        failed = [event for event in it.seen if isinstance(event, ServiceBuildFailed)]
        print(
            f"{SAVES} saves: {len(replaced)} generations, {len(overtaken)} overtaken, {len(failed)} failed builds, {synced} synced"
        )
        assert all("new container" not in event.message for event in failed), failed
        async with asyncio.timeout(PATIENCE):
            while [c.name for c in await local.containers(all=True) if c.name.startswith("stress")] != [container]:
                await asyncio.sleep(0.05)
        bundles = {path.name for path in (local.root / "containers").iterdir()}
        assert bundles == {each.id for each in await local.containers(all=True)}
    assert mounts(local.root) == before_mounts
    async with asyncio.timeout(PATIENCE):  # what was removed is taken away beside everything else
        while [path for path in (local.root / "tmp").iterdir() if path.name.startswith(("making-", "stale-"))]:
            await asyncio.sleep(0.05)
