"""Watching a folder: nothing is lost, nothing is told twice, and what is left out costs nothing. With real files and events."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.linux.inotify import Inotify
from engine.project import watch as watch_module
from engine.project import watch_events
from engine.project.watch import Changed, Watched, Watcher, watch
from tests.patience import PATIENCE


class Watching:
    """A watched folder; `changes()` collects what is told until nothing comes for a moment."""

    def __init__(self, watched: Watched) -> None:
        self.notices: list[str] = []
        self.stop = asyncio.Event()
        self.watcher = Watcher(watched, self.stop, self.notices.append)
        self._queue: asyncio.Queue[Changed] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        assert await self.watcher.next() is None  # the first look
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self.stop.is_set():
            found = await self.watcher.next()
            if found:
                self._queue.put_nowait(found)

    async def change(self, seconds: float = PATIENCE) -> Changed:
        """The next batch."""
        return await asyncio.wait_for(self._queue.get(), seconds)

    async def until(self, wanted: set[str], seconds: float = PATIENCE) -> list[Changed]:
        """Batches until all of `wanted` were told of."""
        found: list[Changed] = []
        while wanted - {path for batch in found for path in batch}:
            found.append(await self.change(seconds))
        return found

    async def nothing(self, folder: Path) -> None:
        """A mark is written and told of: nothing else was before it."""
        mark = folder / f"mark{time.monotonic_ns()}"
        mark.write_text("")
        assert await self.change() == {mark.name}

    async def close(self) -> None:
        self.stop.set()
        if self._task is not None:
            await self._task
        self.watcher.close()


Watch = Callable[..., "contextlib.AbstractAsyncContextManager[Watching]"]


@contextlib.asynccontextmanager
async def watching(root: Path, **more: object) -> AsyncIterator[Watching]:
    found = Watching(Watched(root, root / "Dockerfile", **more))  # type: ignore[arg-type]
    await found.start()
    try:
        yield found
    finally:
        await found.close()


def many(folder: Path, files: int, per: int = 50) -> None:
    for number in range(files):
        place = folder / f"d{number // per:03d}"
        place.mkdir(exist_ok=True)
        (place / f"f{number:05d}").write_text(str(number))


# --- one change is one batch ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["written", "renamed", "sed", "beside a temporary file"])
async def test_a_save_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A file that is whole is not waited for as one that is being written is."""
    monkeypatch.setattr(watch_module, "BUSY", 3600.0)
    file, other = tmp_path / "app.py", tmp_path / "sedXYZ"
    file.write_text("1")
    async with watching(tmp_path) as seen:
        if way == "written":
            file.write_text("2")
        elif way == "renamed":
            other.write_text("2")
            os.rename(other, file)
        elif way == "sed":
            subprocess.run(["sed", "-i", "s/1/2/", str(file)], check=True)
        else:
            other.write_text("")
            file.write_text("2")
            other.unlink()
        assert await seen.change() == {"app.py"}


async def test_the_iterator(tmp_path: Path) -> None:
    stop = asyncio.Event()
    batches = watch(Watched(tmp_path), stop, lambda text: None)
    first = asyncio.ensure_future(anext(batches))
    while not first.done():
        (tmp_path / "a").write_text(str(time.monotonic()))
        await asyncio.sleep(0.02)
    assert first.result() == {"a"}
    stop.set()
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


@pytest.mark.parametrize("way", ["rename", "vim", "emacs", "truncate", "hardlink-backup"])
async def test_editors_save_in_their_own_ways(tmp_path: Path, way: str) -> None:
    """One save, one batch, and nothing of the editor's own files in it."""
    file = tmp_path / "app.py"
    file.write_text("old")
    async with watching(tmp_path) as seen:
        if way == "rename":  # VS Code, JetBrains: written beside it, renamed over it
            (tmp_path / ".app.py.swp").write_text("new")
            os.rename(tmp_path / ".app.py.swp", file)
        elif way == "vim":  # a probe, the old file moved away, the new one written, the backup removed
            (tmp_path / "4913").touch()
            os.unlink(tmp_path / "4913")
            os.rename(file, tmp_path / "app.py~")
            fd = os.open(file, os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"new")
            os.fsync(fd)
            os.close(fd)
            os.unlink(tmp_path / "app.py~")
        elif way == "emacs":  # a lock that is a dangling link, an auto-save file, a backup
            os.symlink("user@host.1:2", tmp_path / ".#app.py")
            (tmp_path / "#app.py#").write_text("new")
            os.rename(file, tmp_path / "app.py~")
            file.write_text("new")
            os.unlink(tmp_path / "#app.py#")
            os.unlink(tmp_path / ".#app.py")
        elif way == "truncate":
            with file.open("w") as out:
                out.write("n")
                out.flush()
                await asyncio.sleep(0.01)
                out.write("ew")
        else:
            os.link(file, tmp_path / "app.py~")
            (tmp_path / "app.py.swp").write_text("new")
            os.rename(tmp_path / "app.py.swp", file)
        assert await seen.change() == {"app.py"}
        assert file.read_text() == "new"
        await seen.nothing(tmp_path)


@pytest.mark.peer("vim")
async def test_the_real_vim(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text("old\n")
    async with watching(tmp_path) as seen:
        words = ["vim", "-Nu", "NONE", "-es", "-c", "%s/old/new/", "-c", "wq", str(file)]
        process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0
        assert await seen.change() == {"app.py"}
        assert file.read_text() == "new\n"
        await seen.nothing(tmp_path)


async def test_renames_deletes_and_new_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x").write_text("x")
    async with watching(tmp_path) as seen:
        os.rename(tmp_path / "a", tmp_path / "b")
        assert await seen.change() == {"a", "b"}
        os.rename(tmp_path / "sub", tmp_path / "sub2")
        assert await seen.change() == {"sub/", "sub/x", "sub2/", "sub2/x"}
        (tmp_path / "sub2/x").write_text("again")
        assert await seen.change() == {"sub2/x"}, "the folder is watched under its new name"
        shutil.rmtree(tmp_path / "sub2")
        assert await seen.change() == {"sub2/", "sub2/x"}
        os.chmod(tmp_path / "b", 0o700)
        assert await seen.change() == {"b"}


async def test_folders_that_change_places(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    async with watching(tmp_path) as seen:
        os.rename(tmp_path / "a", tmp_path / "tmp")
        os.rename(tmp_path / "b", tmp_path / "a")
        os.rename(tmp_path / "tmp", tmp_path / "b")
        await seen.until({"a/f", "b/f"})
        (tmp_path / "a/f").write_text("new in a")
        assert await seen.change() == {"a/f"}
        (tmp_path / "b/f").write_text("new in b")
        assert await seen.change() == {"b/f"}


async def test_a_folder_with_contents_is_moved_in(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "deep/er").mkdir(parents=True)
    (outside / "deep/er/f").write_text("f")
    async with watching(root) as seen:
        os.rename(outside, root / "in")
        assert "in/deep/er/f" in await seen.change()
        (root / "in/deep/er/g").write_text("g")
        assert await seen.change() == {"in/deep/er/g"}
        os.rename(root / "in", outside)
        assert "in/deep/er/g" in await seen.change()
        (outside / "deep/er/g").write_text("outside now")
        await seen.nothing(root)


async def test_links_are_seen_as_links_and_a_linked_root_is_followed(tmp_path: Path) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    for folder in (real, other):
        folder.mkdir()
        (folder / "f").write_text(folder.name)
    os.symlink("real", tmp_path / "project")
    async with watching(tmp_path / "project") as seen:
        (real / "f").write_text("through the link")
        assert await seen.change() == {"f"}
        os.symlink("f", real / "link")
        assert await seen.change() == {"link"}
        os.symlink("other", tmp_path / "next")
        os.rename(tmp_path / "next", tmp_path / "project")
        assert {"f", "link"} <= await seen.change()
        (other / "f").write_text("in the folder that it names now")
        assert await seen.change() == {"f"}


async def test_a_hard_link_written_from_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_text("1")
    os.link(tmp_path / "outside", root / "f")
    async with watching(root) as seen:
        (tmp_path / "outside").write_text("22")
        assert await seen.change() == {"f"}


async def test_a_touch_or_the_same_content_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("0")
    async with watching(tmp_path) as seen:
        file.write_text("1")
        assert await seen.change() == {"f"}
        file.write_text("1")
        os.utime(file, (1, 1))
        await seen.nothing(tmp_path)
        file.write_text("2")
        assert await seen.change() == {"f"}


async def test_a_change_within_the_clock_tick_is_seen(tmp_path: Path) -> None:
    """The second write leaves size and maybe times as they were."""
    file = tmp_path / "f"
    async with watching(tmp_path) as seen:
        for number in range(10, 40):
            file.write_text(str(number))
            assert await seen.change() == {"f"}


# --- many changes ---------------------------------------------------------------------------------------


async def test_a_file_that_is_always_written_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "CAP", 0.4)
    async with watching(tmp_path) as seen:
        file = (tmp_path / "log").open("w")

        async def write() -> None:
            while True:
                file.write("line\n")
                file.flush()
                await asyncio.sleep(0.005)

        writer = asyncio.create_task(write())
        (tmp_path / "app.py").write_text("1")
        await seen.until({"app.py"})
        writer.cancel()
        file.close()


@pytest.mark.peer("git")
async def test_a_log_that_grows_line_by_line_is_no_save_each_time(tmp_path: Path) -> None:
    log = tmp_path / "debug.txt"
    log.touch()
    async with watching(tmp_path) as seen:
        for number in range(60):
            with log.open("a") as out:
                out.write(f"{number}\n")
            await asyncio.sleep(0.02)
        (tmp_path / "end").touch()
        assert len(await seen.until({"end"})) < 20


async def test_a_checkout_is_one_change(tmp_path: Path) -> None:
    """Thousands of files, told of once, when git has let its index go."""

    def git(*words: str) -> None:
        config = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "gc.auto=0"]
        subprocess.run(["git", *config, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q", "-b", "one")
    many(tmp_path, 3000)
    git("add", "-A")
    git("commit", "-qm", "one")
    git("checkout", "-qb", "two")
    for file in tmp_path.glob("d*/f*"):
        file.write_text(file.read_text() + " on two")
    git("commit", "-qam", "two")
    async with watching(tmp_path) as seen:
        process = await asyncio.create_subprocess_exec("git", "checkout", "-q", "one", cwd=tmp_path)
        assert await process.wait() == 0
        batch = await seen.change()
        assert len([path for path in batch if not path.endswith("/")]) == 3000
        await seen.nothing(tmp_path)


async def test_while_git_holds_its_index_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    async with watching(tmp_path) as seen:
        lock = tmp_path / ".git/index.lock"
        lock.touch()
        (tmp_path / "a").write_text("a")
        with pytest.raises(TimeoutError):
            await seen.change(0.3)
        (tmp_path / "b").write_text("b")
        lock.unlink()
        assert await seen.change() == {"a", "b"}


async def test_a_queue_that_overflows_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than the kernel keeps, while nobody reads them: they are made while the loop is held."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    many(tmp_path, 200)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/f").write_text("f")
    async with watching(tmp_path) as seen:
        flood = tmp_path / "d000/f00000"
        for number in range(limit // 2 + 200):  # two events each; the loop cannot read meanwhile
            os.utime(flood, (number, number))
            os.utime(tmp_path / "d001/f00050", (number, number))
        (tmp_path / "d002/f00100").write_text("after the queue was full")
        shutil.rmtree(tmp_path / "gone")
        (tmp_path / "gone").mkdir()
        (tmp_path / "new/er").mkdir(parents=True)
        (tmp_path / "new/er/f").write_text("f")
        found = await seen.until({"d002/f00100", "new/er/f", "gone/f"})
        assert found
        (tmp_path / "gone/g").write_text("in a folder that was made anew")
        (tmp_path / "new/er/g").write_text("g")
        await seen.until({"gone/g", "new/er/g"})


# --- what is left out -----------------------------------------------------------------------------------


def watches(fd: int) -> int:
    return Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd:")


async def test_ignored_trees_cost_no_watches(tmp_path: Path) -> None:
    for folder in ("node_modules/a/b", ".git/objects", "src/deep", "build/out"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".dockerignore").write_text("node_modules\nbuild/\n")
    async with watching(tmp_path) as seen:
        assert watches(seen.watcher._events.fd) == 3, "the root, src and src/deep"
        (tmp_path / "node_modules/a/b/x").write_text("x")
        (tmp_path / ".git/HEAD").write_text("x")
        await seen.nothing(tmp_path)


async def test_an_allow_list_and_its_change(tmp_path: Path) -> None:
    for folder in ("src/deep", "other/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".dockerignore").write_text("*\n!src/deep\n")
    async with watching(tmp_path) as seen:
        assert watches(seen.watcher._events.fd) == 3
        (tmp_path / "other/deep/x").write_text("x")
        (tmp_path / "src/deep/y").write_text("y")
        assert await seen.change() == {"src/deep/y"}
        (tmp_path / ".dockerignore").write_text("*\n!src/deep\n!other\n")
        assert "other/deep/x" in await seen.change()
        (tmp_path / "other/deep/z").write_text("z")
        assert await seen.change() == {"other/deep/z"}


async def test_files_beside_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "real.env").write_text("A=1")
    os.symlink("real.env", tmp_path / "a.env")
    async with watching(root, extra=(tmp_path / "a.env", tmp_path / "later.env")) as seen:
        (tmp_path / "unrelated").write_text("")
        (tmp_path / "real.env").write_text("A=2")
        assert await seen.change() == {"../a.env"}
        (tmp_path / "later.env").write_text("B=1")
        assert await seen.change() == {"../later.env"}


async def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("flask")
    seen = Watching(Watched(tmp_path / "requirements.txt"))
    await seen.start()
    try:
        (tmp_path / "other").write_text("")
        (tmp_path / "requirements.txt").write_text("flask==3")
        assert await seen.change() == {"."}
    finally:
        await seen.close()


# --- where there are no events --------------------------------------------------------------------------


async def test_too_few_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders beyond the limit are looked through, which is said once; watched again when there are watches."""
    monkeypatch.setattr(watch_module, "LOOK_LEAST", 0.05)
    many(tmp_path, 500, per=50)
    limit, real = [4], Inotify.add

    def add(self: Inotify, path: str, mask: int = 0) -> int:
        if mask & watch_events.inotify.IN_ONLYDIR and limit[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        limit[0] -= 1
        return real(self, path, mask)

    monkeypatch.setattr(Inotify, "add", add)
    async with watching(tmp_path) as seen:
        assert len(seen.watcher._events.unwatched) >= 6
        for number in (0, 200, 499):
            file = tmp_path / f"d{number // 50:03d}/f{number:05d}"
            file.write_text("new")
            await seen.until({str(file.relative_to(tmp_path))})
        assert [text for text in seen.notices if "max_user_watches" in text] == seen.notices
        assert len(seen.notices) == 1
        limit[0] = 1000
        while seen.watcher._events.unwatched:
            await asyncio.sleep(0.02)
        (tmp_path / "d009/f00499").write_text("by an event now")
        assert await seen.change() == {"d009/f00499"}


@pytest.mark.root
def test_the_kernels_own_limit(tmp_path: Path) -> None:
    """The limit of a user namespace of its own, reached for real."""
    many(tmp_path / "", 500, per=50)
    code = f"""
import asyncio, pathlib
from engine.project import watch as w
w.LOOK_LEAST = 0.05
root = pathlib.Path({str(tmp_path)!r})
async def main():
    said = []
    stop = asyncio.Event()
    seen = w.Watcher(w.Watched(root), stop, said.append)
    await seen.next()
    assert seen._events.unwatched, "no limit was met"
    (root / "d009/f00499").write_text("new")
    found = None
    while not found:
        found = await seen.next()
    print(sorted(found), said[0])
asyncio.run(main())
"""
    words = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    script = 'echo 5 > /proc/sys/user/max_inotify_watches && exec python3 -c "$CODE"'
    import sys

    script = script.replace("python3", sys.executable)
    env = {**os.environ, "CODE": code, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([*words, script], capture_output=True, text=True, check=False, env=env, timeout=PATIENCE)
    assert "d009/f00499" in done.stdout, done.stderr
    assert "max_user_watches" in done.stdout


async def test_no_instances_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LOOK_LEAST", 0.05)

    def refuse(self: Inotify) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Inotify, "__init__", refuse)
    (tmp_path / "sub").mkdir()
    async with watching(tmp_path) as seen:
        (tmp_path / "sub/f").write_text("1")
        assert await seen.change() == {"sub/f"}
        (tmp_path / "Dockerfile").write_text("FROM x")
        assert await seen.change() == {"Dockerfile"}
        assert "not available" in seen.notices[0]


async def test_a_file_system_without_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS or a drive of WSL: what others write is found by looking."""
    monkeypatch.setattr(watch_module, "LOOK_LEAST", 0.05)
    monkeypatch.setattr(watch_events, "remote_kind", lambda path: "NFS")
    monkeypatch.setattr(Inotify, "read", lambda self: self.drain() and [])
    many(tmp_path, 100)
    async with watching(tmp_path) as seen:
        (tmp_path / "d001/f00099").write_text("from elsewhere")
        assert await seen.change() == {"d001/f00099"}
        (tmp_path / "d001/new").mkdir()
        (tmp_path / "d001/new/f").write_text("f")
        await seen.until({"d001/new/f"})
        assert len(seen.notices) == 1
        assert "NFS" in seen.notices[0]


def test_what_the_kernel_says_of_a_file_system() -> None:
    assert watch_events.remote_kind("/proc") == "a file system of type 0x9fa0"
    assert watch_events.remote_kind("/dev/shm") == ""


# --- a folder that goes away ----------------------------------------------------------------------------


async def test_a_project_that_is_deleted_and_made_again(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/f").write_text("1")
    (root / "g").write_text("same")
    async with watching(root) as seen:
        shutil.rmtree(root)
        while not seen.notices:
            await asyncio.sleep(0.01)
        (root / "sub").mkdir(parents=True)
        (root / "sub/f").write_text("2")
        assert "sub/f" in (await seen.until({"sub/f"}))[-1]
        assert len(seen.notices) == 2, seen.notices
        (root / "sub/h").write_text("h")
        await seen.until({"sub/h"})
