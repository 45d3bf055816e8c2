"""The context index: what it says is what a fresh look says, whatever happened in between; and it costs what changed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.build import index as index_module
from engine.build.dockerfile.ignore import Matcher
from engine.build.index import RACY_NS, ContextIndex
from engine.build.index_file import read_index
from engine.build.watched import ContextIndexes, Watched
from engine.errors import AccessDenied, Cancelled, InvalidInput
from engine.linux.statx import SEGMENT, StatTable


def age(folder: Path) -> None:
    """Waits until nothing below is young enough to be distrusted."""
    newest = max(max(s.st_mtime_ns, s.st_ctime_ns) for s in map(os.lstat, [folder, *folder.rglob("*")]))
    while time.time_ns() - newest <= RACY_NS:
        threading.Event().wait(0.01)


def content(root: Path, matcher: Matcher | None = None) -> str:
    """What a fresh index says."""
    index = ContextIndex(root, matcher)
    index.refresh()
    try:
        return index.digest(0)
    finally:
        index.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("a/b/one", "a/b/two", "a/three", "top", "z/deep/er/four"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "a/link").symlink_to("b/one")
    return root


def test_stat_data_is_lstats(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))]
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    table = StatTable(fd)
    table.add([name.encode() for name in names])
    for slot, name in enumerate(names):
        real, ours = os.lstat(tree / name), table.status(slot)
        for attribute in "st_mode st_ino st_dev st_nlink st_uid st_gid st_size st_mtime_ns st_ctime_ns st_rdev".split():
            assert getattr(ours, attribute) == getattr(real, attribute), (name, attribute)
    (tree / "top").read_text()
    assert table.refresh() == [], "reading is no change"
    os.unlink(tree / "pipe")
    assert table.refresh() == sorted([names.index("pipe")])
    assert table.mode(names.index("pipe")) == 0
    os.close(fd)


def test_a_table_of_several_segments(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    count = SEGMENT + 10
    for number in (0, SEGMENT - 1, SEGMENT, count - 1):
        (tmp_path / str(number)).write_text("x")
    table = StatTable(fd)
    table.add([str(number).encode() for number in range(count)])
    assert len(table.missing) == count - 4
    (tmp_path / str(SEGMENT)).write_text("longer")
    assert [slot for slot in table.refresh() if slot not in table.missing] == [SEGMENT]
    copy = StatTable(fd)
    copy.reserve([str(number).encode() for number in range(count)])
    copy.load(table.dump(range(count)))
    assert copy.key(SEGMENT) == table.key(SEGMENT)
    os.close(fd)


CHANGES: list[tuple[str, Callable[[Path], object], bool]] = [
    ("content", lambda root: (root / "a/b/one").write_text("ONE"), True),
    ("content of equal size", lambda root: (root / "a/b/one").write_text("a/B/one"), True),
    ("mode", lambda root: os.chmod(root / "a/three", 0o755), True),
    ("mode of a directory", lambda root: os.chmod(root / "a/b", 0o700), True),
    ("new file", lambda root: (root / "z/new").write_text("n"), True),
    ("new directory", lambda root: (root / "z/n/m").mkdir(parents=True), True),
    ("removed", lambda root: os.unlink(root / "top"), True),
    ("removed directory", lambda root: shutil.rmtree(root / "a"), True),
    ("renamed", lambda root: os.rename(root / "a/three", root / "a/four"), True),
    ("link's target", lambda root: (os.unlink(root / "a/link"), os.symlink("b/two", root / "a/link")), True),
    ("file became directory", lambda root: (os.unlink(root / "top"), os.mkdir(root / "top")), True),
    ("directory became file", lambda root: (shutil.rmtree(root / "a"), (root / "a").write_text("a")), True),
    ("extended attribute", lambda root: os.setxattr(root / "top", "user.x", b"1"), True),
    ("times", lambda root: os.utime(root / "a/b/one", (1, 1)), False),
    ("owner", lambda root: os.chown(root / "a/b/one", os.geteuid(), os.getegid()), False),
    ("written again, the same", lambda root: (root / "a/b/one").write_text("a/b/one"), False),
    ("excluded", lambda root: (root / "ignored.log").write_text("x"), False),
]


@pytest.mark.parametrize(("name", "change", "differs"), CHANGES, ids=[name for name, _, _ in CHANGES])
@pytest.mark.parametrize("way", ["refresh", "saved", "events"])
def test_a_change_is_seen_and_nothing_else(
    tree: Path, tmp_path: Path, way: str, name: str, change: Callable[[Path], object], differs: bool
) -> None:
    matcher = Matcher(["*.log"])
    age(tree)
    index = ContextIndex(tree, matcher, file=tmp_path / "saved")
    watched = Watched(index)
    index.refresh()
    before = index.digest(0)
    if way == "events":
        watched.watch()
    elif way == "saved":
        index.close()
        index = ContextIndex(tree, matcher, file=tmp_path / "saved")
        watched = Watched(index)
    change(tree)
    relied = watched.refresh(None)
    assert relied == (way == "events")
    assert (index.digest(0) != before) == differs
    assert index.digest(0) == content(tree, matcher)
    assert watched.verify() == frozenset()
    watched.close()


def test_what_did_not_change_is_not_read_again(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tree)
    index = ContextIndex(tree, file=tmp_path / "saved")
    index.refresh()
    index.digest(0)
    index.close()
    read: list[str] = []
    original = ContextIndex._read
    monkeypatch.setattr(
        ContextIndex, "_read", lambda self, slot: read.append(self._paths[slot] or "") or original(self, slot)
    )
    again = ContextIndex(tree, file=tmp_path / "saved")
    assert again.refresh() == set()
    again.digest(0)
    assert read == []
    (tree / "a/three").write_text("changed")
    assert again.refresh() == {"a/three"}
    again.digest(0)
    assert read == ["a/three"]
    again.close()


def test_a_file_written_while_its_clock_stands_still_is_read_again(tree: Path) -> None:
    index = ContextIndex(tree)
    (tree / "top").write_text("aaa")
    stamp = os.stat(tree / "top").st_mtime_ns
    index.refresh()
    before = index.digest(0)
    with open(
        tree / "top", "r+"
    ) as file:  # same inode, size and mtime; only ctime could tell, and it may be the same tick
        file.write("bbb")
    os.utime(tree / "top", ns=(stamp, stamp))
    index.refresh()
    assert index.digest(0) != before
    index.close()


def run_changes(random_: random.Random, root: Path) -> None:
    """Some random operations below `root`."""
    for _ in range(random_.randint(1, 6)):
        everything = [root, *root.rglob("*")]
        folders = [path for path in everything if path.is_dir() and not path.is_symlink()]
        target = random_.choice(folders) / random_.choice("abcdef")
        victim = random_.choice(everything)
        kind = random_.randint(0, 6)
        if kind <= 1 and not os.path.lexists(target):
            target.write_text(str(random_.random()))
        elif kind == 2 and not os.path.lexists(target):
            target.mkdir()
        elif kind == 3 and victim != root:
            shutil.rmtree(victim) if victim.is_dir() and not victim.is_symlink() else victim.unlink()
        elif kind == 4 and victim != root and not os.path.lexists(target) and not str(target).startswith(f"{victim}/"):
            victim.rename(target)
        elif kind == 5 and victim.is_file() and not victim.is_symlink():
            victim.write_text(random_.choice(["same", str(random_.random())]))
        elif kind == 6 and not os.path.lexists(target):
            target.symlink_to(random_.choice(["a", "../b", "nowhere"]))


@pytest.mark.parametrize("seed", range(12))
def test_after_any_changes_the_index_equals_a_fresh_one(tree: Path, tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    matcher = Matcher(["**/c", "!d/c"]) if seed % 2 else None
    watched = Watched(ContextIndex(tree, matcher, file=tmp_path / "saved"))
    for turn in range(25):
        run_changes(random_, tree)
        watched.refresh(None)
        assert watched.index.digest(0) == content(tree, matcher), f"turn {turn}"
        if turn % 5 == seed % 5:
            watched.watch()
        if turn % 9 == 8:
            watched.close()
            watched = Watched(ContextIndex(tree, matcher, file=tmp_path / "saved"))
    watched.close()


def test_a_write_that_no_event_tells_of_ends_the_trust(tree: Path, tmp_path: Path) -> None:
    age(tree)
    watched = Watched(ContextIndex(tree))
    watched.refresh(None)
    watched.watch()
    before = watched.index.digest(0)
    os.link(tree / "top", tmp_path / "other")  # made after the watch stood: the file has no event under its name here
    (tmp_path / "other").write_text("changed behind its back")
    assert watched.refresh(None)
    assert watched.index.digest(0) == before
    reported: list[frozenset[str]] = []
    assert watched.verify(reported.append) == {"top"}
    assert reported == [frozenset({"top"})]
    assert watched.distrusted
    assert watched.index.digest(0) == content(tree)
    (tmp_path / "other").write_text("and once more")
    assert not watched.refresh(None), "from now on everything is looked at"
    assert watched.index.digest(0) == content(tree)
    watched.close()


def test_a_file_with_several_names_is_always_looked_at(tree: Path, tmp_path: Path) -> None:
    os.link(tree / "top", tmp_path / "other")
    watched = Watched(ContextIndex(tree))
    watched.refresh(None)
    watched.watch()
    (tmp_path / "other").write_text("through the other name")
    assert watched.refresh(None)
    assert watched.index.digest(0) == content(tree)
    watched.close()


def test_more_events_than_the_queue_holds_cost_a_look(tree: Path) -> None:
    watched = Watched(ContextIndex(tree))
    watched.refresh(None)
    watched.watch()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit // 2 + 10):  # two kinds of event in turn: equal ones in a row are merged
        os.chmod(tree / "top", 0o600 + number % 8)
        os.chmod(tree / "a", 0o700 + number % 8)
    assert not watched.refresh(None)
    assert watched.index.digest(0) == content(tree)
    watched.close()


def test_named_paths_are_enough(tree: Path) -> None:
    watched = Watched(ContextIndex(tree))
    watched.refresh(None)
    watched.index.digest(0)
    (tree / "a/b/one").write_text("new")
    (tree / "q/r").mkdir(parents=True)
    (tree / "q/r/s").write_text("s")
    os.unlink(tree / "a/three")
    watched.index.refresh_paths(frozenset({"a/b/one", "q/r/s", "a/three"}))
    assert watched.index.digest(0) == content(tree)
    watched.close()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 1}\n', b'{"version": 99, "patterns": []}\n'])
def test_a_damaged_file_counts_as_none(tree: Path, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "saved").write_bytes(damage)
    assert read_index(tmp_path / "saved", ()) is None
    index = ContextIndex(tree, file=tmp_path / "saved")
    index.refresh()
    assert index.digest(0) == content(tree)
    index.close()
    data = (tmp_path / "saved").read_bytes()
    (tmp_path / "saved").write_bytes(data[: len(data) // 2])
    assert read_index(tmp_path / "saved", ()) is None
    (tmp_path / "saved").write_bytes(data)
    assert read_index(tmp_path / "saved", ("other",)) is None
    assert read_index(tmp_path / "saved", ()) is not None


def test_an_engine_keeps_indexes_and_a_replaced_folder_is_another(tree: Path, tmp_path: Path) -> None:
    indexes = ContextIndexes(tmp_path / "stat")
    first = indexes.get(tree, None)
    first.refresh(None)
    assert indexes.get(tree, None) is first
    assert indexes.get(tree, Matcher(["a"])) is not first
    os.rename(tree, tmp_path / "away")
    shutil.copytree(tmp_path / "away", tree, symlinks=True)
    (tree / "top").write_text("another")
    again = indexes.get(tree, None)
    assert again is not first
    again.refresh(None)
    assert again.index.digest(0) == content(tree)
    indexes.close()
    with pytest.raises(InvalidInput, match="missing"):
        indexes.get(tmp_path / "missing", None)


def test_a_cancelled_look_ends(tree: Path) -> None:
    index = ContextIndex(tree)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        index.refresh(cancel)
    index.refresh()
    assert index.digest(0) == content(tree)
    index.close()


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    yield
    assert len(os.listdir("/proc/self/fd")) < 200


def test_too_many_files_name_the_folder_to_leave_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_ENTRIES", 5)
    index = ContextIndex(tree)
    with pytest.raises(InvalidInput, match="more than 5 files") as caught:
        index.refresh()
    assert ".dockerignore" in (caught.value.hint or "")
    index.close()


@pytest.mark.parametrize("name", ["a/three", "z/deep"])
def test_what_cannot_be_read_is_named(tree: Path, name: str) -> None:
    """Root reads everything, so the look is taken by somebody else."""
    index = ContextIndex(tree)

    def look() -> None:
        index.refresh()
        index.digest(0)

    (tree / name).chmod(0)
    ordinary = os.geteuid()
    if ordinary == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(AccessDenied, match=f"{name} cannot be read") as caught:
            look()
    finally:
        os.seteuid(ordinary)
        (tree / name).chmod(0o755)
    assert ".dockerignore" in (caught.value.hint or "")
    index.close()


class Nth(CancelToken):
    """Cancelled at the n-th question."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    @property
    def cancelled(self) -> bool:
        self.left -= 1
        return self.left < 0

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled("cancelled")


def change(tree: Path, round_: int) -> None:
    (tree / "top").write_text(f"top {round_ % 10}")
    (tree / "a/three").write_text(f"three {round_ % 10}")
    (tree / "a/b/one").write_text(f"one {round_ % 10}")
    (tree / f"new{round_}/in/it").mkdir(parents=True)
    (tree / f"new{round_}/in/it/file").write_text(str(round_))
    (tree / f"new{round_}/beside").write_text(str(round_))
    if round_ > 1:
        shutil.rmtree(tree / f"new{round_ - 1}")


@pytest.mark.parametrize("watching", [False, True])
def test_a_look_that_is_given_up_loses_nothing(tree: Path, watching: bool) -> None:
    """A build is cancelled by the next change, wherever it is just then: the next build sees what both changed."""
    watched = Watched(ContextIndex(tree))
    for number in range(40):
        with contextlib.suppress(Cancelled):  # when it asks so often
            watched.refresh(Nth(number))
        watched.refresh(None)
        if watching:
            watched.watch()
        assert watched.index.digest(0) == content(tree)
        age(tree) if number < 5 else None  # nothing is distrusted for its age
        change(tree, number)
        if not watching and number % 3 == 2:  # begins anew, as a process does
            watched.close()
            watched = Watched(ContextIndex(tree))
    watched.close()


def test_a_look_in_many_segments_that_is_given_up_loses_nothing(tree: Path) -> None:
    (tree / "many").mkdir()
    for number in range(SEGMENT + 10):
        (tree / f"many/{number}").touch()
    watched = Watched(ContextIndex(tree))
    watched.refresh(None)
    assert watched.index.digest(0) == content(tree)
    age(tree)
    (tree / "a/three").write_text("3hree")
    for number in (1, 2):
        with pytest.raises(Cancelled):
            watched.refresh(Nth(number))
    watched.refresh(None)
    assert watched.index.digest(0) == content(tree)
    watched.close()
