"""A COPY that is made out of the one before: whatever was done to the folder, the image is the one that a cold build gives, byte for byte,
and a container sees the same files."""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from engine.api import BuildFinished, BuildRequest, ContainerSpec
from engine.local import LocalEngine, open_engine
from engine.store.view import LayerView
from tests.patience import PATIENCE

pytestmark = pytest.mark.root
ROUNDS = int(os.environ.get("WORKBENCH_ROUNDS", "40"))
PLAIN = "FROM scratch\nCOPY src /app/\nCMD x\n"
OVER = "FROM scratch\nCOPY below /app/\nCOPY --chown=7:8 src /app/\nCMD x\n"  # files of the layer below show where others go


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(tmp_path / "cold")
    yield opened
    await opened.close()


async def build(engine: LocalEngine, folder: Path, *, no_cache: bool = False) -> str:
    async with asyncio.timeout(PATIENCE):
        events = [event async for event in engine.build(BuildRequest(folder, no_cache=no_cache))]
    assert isinstance(events[-1], BuildFinished)
    return events[-1].image_id


def trees(engine: LocalEngine, image: str) -> list[Path]:
    return engine._store.lowers(engine._store.images.get(image))


def files(engine: LocalEngine, image: str) -> dict[str, tuple[object, ...]]:
    view = LayerView(trees(engine, image))
    root = view.lookup("")
    assert root is not None
    found: dict[str, tuple[object, ...]] = {}
    for entry in view.walk(root):
        status, content = entry.status, b""
        if stat.S_ISREG(status.st_mode):
            content = Path(entry.real).read_bytes()
        elif entry.is_link:
            content = os.readlink(entry.real).encode()
        if entry.path:  # the root of an image without a base is made when it is built
            found[entry.path] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns // 10**9, content)
    return found


class Folder:
    """A project that somebody works on, at random."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.src, self.chance = root / "src", chance
        for number in range(60):
            place = self.src / f"d{number % 5}" / f"f{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{number}\n" * number)
        self.stamp()
        (root / "below" / "d1").mkdir(parents=True)
        for name in ("d1/f1", "d1/n0", "n1"):  # where files of src are, may come, and are removed
            (root / "below" / name).write_text("of the layer below")

    def stamp(self) -> None:
        """What no cache has seen."""
        (self.src / "d0" / "stamp").write_bytes(os.urandom(8))

    def pick(self, wanted: Callable[[Path], bool]) -> Path:
        return self.chance.choice([path for path in sorted(self.src.rglob("*")) if wanted(path)])

    def file(self) -> Path:
        return self.pick(lambda path: path.is_file() and not path.is_symlink())

    def folder(self) -> Path:
        return self.pick(lambda path: path.is_dir() and not path.is_symlink())

    def new(self) -> Path:
        return self.folder() / f"x{self.chance.randrange(8)}"

    def change(self, deeds: Sequence[str]) -> None:
        getattr(self, f"do_{self.chance.choice(deeds)}")()

    def do_write(self) -> None:
        self.file().write_bytes(self.chance.randbytes(self.chance.choice((0, 1, 700, 5000))))

    def do_large(self) -> None:
        self.file().write_bytes(self.chance.randbytes(3 << 19))

    def do_replace(self) -> None:
        path = self.file()
        path.with_name("4913").write_text("saved by an editor")
        path.with_name("4913").rename(path)

    def do_make(self) -> None:
        (self.folder() / f"n{self.chance.randrange(3)}").write_text("new")

    def do_folder(self) -> None:
        path = self.new()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        (path / "deep" / "er").mkdir(parents=True)
        (path / "deep" / "file").write_text("deep")

    def do_remove(self) -> None:
        self.file().unlink()

    def do_remove_folder(self) -> None:
        folders = [path for path in self.src.rglob("x*") if path.is_dir() and not path.is_symlink()]
        if folders:
            shutil.rmtree(self.chance.choice(sorted(folders)))

    def do_rename(self) -> None:
        target = self.new()
        if not os.path.lexists(target):
            self.file().rename(target)

    def do_link(self) -> None:
        path = self.new()
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            path.symlink_to(self.chance.choice(("f1", "../nowhere", "é" * 60)))

    def do_hard_link(self) -> None:
        path = self.new()
        if not os.path.lexists(path):
            os.link(self.file(), path)

    def do_mode(self) -> None:
        self.file().chmod(self.chance.choice((0o600, 0o755, 0o4711)))

    def do_folder_mode(self) -> None:
        self.folder().chmod(self.chance.choice((0o700, 0o755, 0o2775)))

    def do_time(self) -> None:
        os.utime(self.file(), (self.chance.randrange(10**9),) * 2)

    def do_attribute(self) -> None:
        os.setxattr(self.file(), "user.mark", self.chance.randbytes(4))

    def do_folder_attribute(self) -> None:
        path = self.folder()
        if os.listxattr(path):
            os.removexattr(path, "user.mark")
        else:
            os.setxattr(path, "user.mark", b"x")

    def do_fifo(self) -> None:
        path = self.new()
        if not os.path.lexists(path):
            os.mkfifo(path)


DEEDS = sorted(name.removeprefix("do_") for name in vars(Folder) if name.startswith("do_"))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each attempt: whether the layer was made out of the one before."""
    from engine.build import stage_run

    seen: list[bool] = []
    real = stage_run.change

    def change(*args: object) -> object:
        layer = real(*args)  # type: ignore[arg-type]
        seen.append(layer is not None)
        return layer

    monkeypatch.setattr(stage_run, "change", change)
    return seen


@pytest.mark.parametrize("dockerfile", [PLAIN, OVER], ids=["alone", "over files"])
async def test_the_image_is_that_of_a_cold_build(
    local: LocalEngine, cold: LocalEngine, tmp_path: Path, dockerfile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = counted(monkeypatch)
    project = tmp_path / "project"
    chance = random.Random(3)
    folder = Folder(project, chance)
    (project / "Dockerfile").write_text(dockerfile)
    await build(local, project)
    for number in range(ROUNDS):
        for _ in range(chance.choice((1, 1, 2, 5))):
            # From a hard link on, everything is copied as a whole.
            folder.change(DEEDS if number > ROUNDS * 0.8 else [deed for deed in DEEDS if deed != "hard_link"])
        folder.stamp()  # a time alone is no reason to copy
        made, wanted = await build(local, project), await build(cold, project, no_cache=True)
        assert made == wanted, f"round {number}"
        assert files(local, made) == files(cold, wanted), f"round {number}"
    assert sum(attempts) > ROUNDS / 10, "nothing was made out of what was there"
    assert not await local.check()


@pytest.mark.parametrize("dockerfile", [PLAIN, OVER], ids=["alone", "over files"])
async def test_another_process_goes_on_from_what_is_there(
    cold: LocalEngine, tmp_path: Path, dockerfile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first build finds all in the cache; the next one, with a change, is made out of that."""
    attempts = counted(monkeypatch)
    project = tmp_path / "project"
    chance = random.Random(4)
    folder = Folder(project, chance)
    (project / "Dockerfile").write_text(dockerfile)
    deeds = [deed for deed in DEEDS if "link" not in deed and "attribute" not in deed]
    for number in range(ROUNDS // 4):
        engine = await open_engine(tmp_path / "warm")
        await build(engine, project)
        async with asyncio.timeout(PATIENCE):
            while number and not engine._builds._copies._known:
                await asyncio.sleep(0.01)
        for _ in range(2):
            folder.change(deeds)
            folder.stamp()
            made, wanted = await build(engine, project), await build(cold, project, no_cache=True)
            assert made == wanted, f"round {number}"
            assert files(engine, made) == files(cold, wanted), f"round {number}"
        await engine.close()
    assert sum(attempts) >= 3, attempts


async def seen_inside(engine: LocalEngine, image: str) -> dict[str, tuple[object, ...]]:
    """What a mount of the layers shows."""
    container = await engine.create(ContainerSpec(image))
    out = io.BytesIO()
    await engine.export(container, out)
    await engine.remove(container)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        found: dict[str, tuple[object, ...]] = {}
        for member in tar:
            body = tar.extractfile(member) if member.isreg() else None
            fields = (member.type, member.mode, member.uid, member.gid, int(member.mtime), member.linkname)
            found[member.name] = (*fields, body.read() if body else b"")
        return found


async def test_a_container_sees_the_same(
    local: LocalEngine, cold: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = counted(monkeypatch)
    project = tmp_path / "project"
    folder = Folder(project, random.Random(7))
    (project / "Dockerfile").write_text(PLAIN)
    await build(local, project)
    for name in ("write", "remove", "folder", "mode", "rename", "folder_mode", "link"):
        getattr(folder, f"do_{name}")()
    made = await build(local, project)
    assert attempts == [True]
    assert len(trees(local, made)) == 2  # what changed, on what was there
    assert await seen_inside(local, made) == await seen_inside(cold, await build(cold, project))


async def test_what_it_stands_on_stays(local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer before belongs to no image and no cache entry any more: a sweep leaves its tree; without it, all is unpacked anew."""
    attempts = counted(monkeypatch)
    project = tmp_path / "project"
    Folder(project, random.Random(1))
    (project / "Dockerfile").write_text(PLAIN)
    first = await build(local, project)
    base = trees(local, first)[0]
    (project / "src" / "d1" / "f1").write_text("changed")
    second = await build(local, project)
    assert attempts == [True]
    before = files(local, second)
    await local.remove_image(first)
    await local.prune_build_cache(all=True)
    local._store.sweep()
    assert base.is_dir()
    assert files(local, second) == before
    shutil.rmtree(base.parent)
    assert any("stands on" in finding.problem for finding in await local.check())
    assert all(finding.mended for finding in await local.check(repair=True))
    assert files(local, second) == before
    assert len(trees(local, second)) == 1


async def test_no_cache_reads_everything(local: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = counted(monkeypatch)
    project = tmp_path / "project"
    Folder(project, random.Random(2))
    (project / "Dockerfile").write_text(PLAIN)
    await build(local, project)
    (project / "src" / "d1" / "f1").write_text("changed")
    await build(local, project, no_cache=True)
    assert attempts == []
