"""Generations of a service: numbered, kept, run again, compared, bisected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.api import Replaced, ServiceState
from engine.base.settings import ProjectSettings
from engine.cli.main import main
from engine.errors import Conflict, NotFound
from engine.local import LocalEngine
from engine.project.rollback import Bisection, Keeper
from tests.service.looping import PROGRAM, Looping, looping

pytestmark = pytest.mark.root

FILES = {
    "Dockerfile": 'FROM workbench/base\nCOPY main.py *.txt /\nCMD ["python3", "-u", "/main.py"]\n',
    "main.py": PROGRAM.format(word="word 1"),
    "note.txt": "1",
}


async def save(it: Looping, number: int, large: bytes = b"") -> None:
    """Each file at once, and all of them told of: the loop may be building still, for what the watching told it of the save before,
    and half a file would be a generation of its own."""
    files = {"note.txt": str(number).encode(), "main.py": PROGRAM.format(word=f"word {number}").encode()}
    if large:
        files["large.txt"] = large
    for name, content in files.items():
        beside = it.folder.with_name(f"{it.folder.name}-{name}")
        beside.write_bytes(content)
        beside.rename(it.folder / name)
    it.loop.changed([it.folder / name for name in files])
    await it.until(Replaced)


async def test_back_to_any_generation_and_on_from_there(local: LocalEngine, tmp_path: Path) -> None:
    async with looping(local, tmp_path / "back", {**FILES, "own.txt": "in no cache before"}) as it:
        container = (await it.running()).container
        for number in (2, 3, 4):
            await save(it, number)
        keeper = Keeper(local, it.loop._project, local.root / "projects")
        listed = keeper.generations("app")
        assert [each.number for each in listed.generations] == [1, 2, 3, 4]
        assert listed.current == 4
        assert listed.get(3).paths == ("main.py", "note.txt")
        assert listed.get(3).step.startswith("step 2/3 COPY main.py")
        assert {"noticed", "planned", "built", "started", "healthy"} <= listed.get(3).phases.keys()
        await local.prune_images({})
        assert (await keeper.rollback("app", 2)).number == 2
        assert await it.inside(container, "cat", "/note.txt") == "2"
        assert keeper.generations("app").current == 2
        # The loop tells of what another one did.
        await it.until(ServiceState, lambda e: e.phase == "running" and e.generation == 2)
        assert (await keeper.rollback("app")).number == 1
        await save(it, 5)
        assert keeper.generations("app").current == 5
        with pytest.raises(NotFound, match="no generation 9"):
            await keeper.rollback("app", 9)
        found = await keeper.compare("app", 1, 5)
        assert {(item.path, item.kind) for item in found.files} == {("/main.py", "changed"), ("/note.txt", "changed")}


async def test_bisect_names_the_first_bad_one(
    local: LocalEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with looping(local, tmp_path / "search", FILES) as it:
        container = (await it.running()).container
        for number in range(2, 8):
            await save(it, number)
        keeper = Keeper(local, it.loop._project, local.root / "projects")
        now = await keeper.bisect_start("app")
        while now.trying:
            number = int(await it.inside(container, "cat", "/note.txt"))
            assert number == now.trying
            now = await keeper.bisect("app", "bad" if number >= 5 else "good")
        assert now.found == 5
        assert (await keeper.bisect_reset("app")).number == 7
        with pytest.raises(Conflict):
            await keeper.bisect("app", "good")


def test_bisection_tries_the_middle_and_passes_over_what_cannot_be_judged() -> None:
    now = Bisection(good=1, bad=8).next((1, 2, 4, 5, 7, 8))
    assert now.trying == 4
    now = now.judged("skip").next((1, 2, 4, 5, 7, 8))
    assert now.trying == 5
    now = now.judged("bad").next((1, 2, 4, 5, 7, 8))
    assert now.trying == 2
    now = now.judged("good").next((1, 2, 4, 5, 7, 8))
    assert (now.trying, now.found, now.skipped) == (0, 5, (4,))


async def test_the_oldest_generations_go_and_their_images_with_them(local: LocalEngine, tmp_path: Path) -> None:
    async with looping(local, tmp_path / "budget", FILES, keep=ProjectSettings(generations=2)) as it:
        await it.running()
        first = (await local.image("budget-app")).summary.id
        for number in (2, 3):
            await save(it, number)
        keeper = Keeper(local, it.loop._project, local.root / "projects")
        assert [each.number for each in keeper.generations("app").generations] == [2, 3]
        async for event in local.events(since=0):
            if event.action == "delete" and event.id == first:
                break


async def test_large_generations_give_way(local: LocalEngine, tmp_path: Path) -> None:
    """Each has a file of 2 MB of its own, and all of them the base's layer: 5 MB are room for two beside the one that serves."""
    async with looping(local, tmp_path / "large", FILES, keep=ProjectSettings(generations_size=5 << 20)) as it:
        await it.running()
        keeper = Keeper(local, it.loop._project, local.root / "projects")
        for number in range(2, 7):
            await save(it, number, os.urandom(2 << 20))
        await it.becomes(lambda: len(keeper.generations("app").generations) <= 3)
        assert [each.number for each in keeper.generations("app").generations] == [4, 5, 6]


def test_the_commands_on_a_project(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "typed"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    base = ["--root", str(data_root)]
    where = ["--project-directory", str(folder)]
    try:
        assert main([*base, "up", "--once", str(folder)]) == 0
        (folder / "note.txt").write_text("2")
        assert main([*base, "up", "--once", str(folder)]) == 0
        capsys.readouterr()
        assert main([*base, "generations", *where]) == 0
        rows = capsys.readouterr().out.splitlines()
        assert [row.split()[0] for row in rows] == ["GENERATION", "2", "1"]
        assert main([*base, "generations", *where, "app", "1", "2"]) == 0
        assert "C /note.txt  content" in capsys.readouterr().out
        assert main([*base, "rollback", *where]) == 0
        assert capsys.readouterr().out.startswith("app: generation 1 (")
        assert main([*base, "exec", "typed-app-1", "sh", "-c", "cat /note.txt; echo x > /own"]) == 0
        assert capsys.readouterr().out == "1"
        assert main([*base, "drift", *where, "app"]) == 0
        assert "A /own  lost with this container" in capsys.readouterr().out
        assert main([*base, "bisect", *where, "app", "nonsense"]) == 1
    finally:
        main([*base, "rm", "-f", "typed-app-1"])
