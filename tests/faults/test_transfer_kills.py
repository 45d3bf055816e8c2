"""`kill -9` and full disks at random points of pull, push, load and prune: acknowledged is whole, the rest is absent, the next run goes on."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.errors import StorageFull
from engine.oci.config import ImageConfig
from engine.oci.media import OCI_LAYER
from engine.oci.reference import Reference
from engine.registry.server import RegistryServer, Serving
from engine.service.archives import ArchiveService
from engine.service.images import ImageService
from engine.service.transfers import TransferService
from engine.store.images import Image
from engine.store.store import Store
from tests.engine.registry.scripted import Scripted, sample

pytestmark = pytest.mark.root
MIB = 1 << 20
KILLS = int(os.environ.get("WORKBENCH_KILLS", "4"))  # 100 and more before a release
FULL = int(os.environ.get("WORKBENCH_FULL_DISKS", "4"))  # likewise


@pytest.fixture
def registry() -> Iterator[Scripted]:
    registry = Scripted()
    registry.add("a", "1", *sample(4, 3 * MIB))
    yield registry
    registry.close()


def command(root: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "engine.cli.main", "--root", str(root), *args]


def whole(root: Path, name: str) -> bool:
    """The store is consistent; whether the image is in it."""
    store = Store(root)
    try:
        assert store.check() == []
        image = store.images.find(name)
        if image is not None:
            assert all(tree.is_dir() for tree in store.lowers(image))
        return image is not None
    finally:
        store.close()


def kill_at_random(argv: list[str], rng: random.Random, usual: float, stdin: Path | None = None) -> int:
    with open(stdin or os.devnull, "rb") as source:
        process = subprocess.Popen(argv, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(rng.uniform(0.05, usual))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def test_pulls_that_are_killed(registry: Scripted, tmp_path: Path) -> None:
    rng = random.Random(7)
    name = f"{registry.address}/a:1"
    start = time.monotonic()
    subprocess.run(command(tmp_path / "first", "pull", "-q", name), check=True, stdout=subprocess.DEVNULL)
    usual = time.monotonic() - start
    root = tmp_path / "root"
    for _ in range(KILLS):
        done = kill_at_random(command(root, "pull", "-q", name), rng, usual)
        here = whole(root, name)
        assert here or done != 0
        if here:
            subprocess.run(command(root, "rmi", name), check=True, stdout=subprocess.DEVNULL)
    fetched = len(registry.requests("GET", "/blobs/"))
    subprocess.run(command(root, "pull", "-q", name), check=True, stdout=subprocess.DEVNULL)
    assert whole(root, name)
    assert len(registry.requests("GET", "/blobs/")) - fetched <= 5  # four layers and the config, each at most once


def test_loads_and_prunes_that_are_killed(tmp_path: Path) -> None:
    rng = random.Random(8)
    source = Store(tmp_path / "source")
    manifest, blobs = sample(3, 3 * MIB)
    for data in blobs.values():
        source.blobs.put(data)
    source.images.put(manifest, ImageConfig.parse(blobs[manifest.config.digest]), 0, [Reference.parse("a:1")])
    archive = tmp_path / "a.tar"
    with open(archive, "wb") as out:
        ArchiveService(source).save(["a:1"], out, lambda one: None, CancelToken())
    source.close()
    root = tmp_path / "root"
    start = time.monotonic()
    subprocess.run(command(tmp_path / "first", "load", "-i", str(archive)), check=True, stdout=subprocess.DEVNULL)
    usual = time.monotonic() - start
    for _ in range(KILLS):
        done = kill_at_random(command(root, "load"), rng, usual, archive)
        assert whole(root, "a:1") or done != 0
        kill_at_random(command(root, "system", "prune", "-a", "-f"), rng, usual)
        whole(root, "a:1")
    subprocess.run(command(root, "load", "-i", str(archive)), check=True, stdout=subprocess.DEVNULL)
    assert whole(root, "a:1")


@contextlib.contextmanager
def serving(root: Path) -> Iterator[tuple[str, Store]]:
    """A registry over a store of its own."""
    store = Store(root)
    server = RegistryServer(store, Serving(port=0))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.address, store
    finally:
        server.close()
        thread.join()
        store.close()


def filled(root: Path, name: str, layers: int = 4, size: int = 3 * MIB, media_type: str = OCI_LAYER) -> Image:
    """An image as a build leaves it: plain layers, which a push packs."""
    store = Store(root)
    manifest, blobs = sample(layers, size, media_type=media_type)
    for data in blobs.values():
        store.blobs.put(data)
    image = store.images.put(manifest, ImageConfig.parse(blobs[manifest.config.digest]), 0, [Reference.parse(name)])
    store.close()
    return image


def test_pushes_that_are_killed(tmp_path: Path) -> None:
    rng = random.Random(9)
    with serving(tmp_path / "there") as (address, there):
        name = f"{address}/a:1"
        filled(tmp_path / "first", f"{address}/warm:1")
        start = time.monotonic()
        subprocess.run(command(tmp_path / "first", "push", f"{address}/warm:1"), check=True, stdout=subprocess.DEVNULL)
        usual = time.monotonic() - start
        root = tmp_path / "root"
        for number in range(KILLS):
            filled(root, f"{name}{number}", size=3 * MIB + number)  # other blobs each time: the registry has none
            done = kill_at_random(command(root, "push", "-q", f"{name}{number}"), rng, usual)
            taken = there.images.find(f"a:1{number}")
            assert taken is not None or done != 0
            assert there.check() == [], "what the registry took is whole"
            assert whole(root, f"{name}{number}")
            if done != 0:  # the kill may have come after the registry took the manifest and before it was noted here
                subprocess.run(command(root, "push", f"{name}{number}"), check=True, stdout=subprocess.DEVNULL)
                again = there.images.find(f"a:1{number}")
                assert again is not None
                assert taken is None or taken.digest == again.digest, "what was taken stays as it is"
                taken = again
            assert taken is not None
            store = Store(root)
            pushed = {
                text.rpartition("@")[2] for text in store.images.repo_digests(store.images.get(f"{name}{number}"))
            }
            store.close()
            assert taken.digest in pushed


def test_a_registry_whose_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    with serving(small_disk / "there") as (address, there):
        name = f"{address}/a:1"
        filled(tmp_path / "here", name, layers=3, size=30 * MIB)
        done = subprocess.run(
            command(tmp_path / "here", "push", "-q", name), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "507" in done.stderr or "space" in done.stderr, done.stderr
        assert there.images.list() == []
        assert there.check() == []
        subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
        subprocess.run(command(tmp_path / "here", "push", "-q", name), check=True, stdout=subprocess.DEVNULL)
        assert there.images.find("a:1") is not None
        assert there.check() == []


def test_a_push_that_has_no_room_to_pack(small_disk: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "there") as (address, there):
        name = f"{address}/a:1"
        filled(small_disk / "here", name, layers=1, size=40 * MIB)
        done = subprocess.run(command(small_disk / "here", "push", name), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "No space left" in done.stderr or "full" in done.stderr, done.stderr
        assert there.images.list() == []
        store = Store(small_disk / "here")
        assert store.check() == []
        store.close()
        subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
        subprocess.run(command(small_disk / "here", "push", name), check=True, stdout=subprocess.DEVNULL)
        assert there.images.find("a:1") is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MiB: 64 are the reserve that is kept for the database and the logs."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills(registry: Scripted, small_disk: Path) -> None:
    name = f"{registry.address}/a:1"
    store = Store(small_disk / "root")
    with pytest.raises(StorageFull) as caught:
        ImageService(store).pull(name, lambda one: None, CancelToken())
    assert caught.value.hint
    assert store.images.list() == []
    assert store.check() == []
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    image = ImageService(store).pull(name, lambda one: None, CancelToken())
    assert image.size == 12 * MIB
    assert store.check() == []
    store.close()


@pytest.fixture
def no_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes meet the end of the disk itself, not the room that is kept free before it."""
    monkeypatch.setattr("engine.archive.reader.RESERVE", 0)
    monkeypatch.setattr("engine.store.archive_load.RESERVE", 0)


def refused(root: Path, act: Callable[[Store], object], filler: Path, left: int | None) -> bool:
    """Whether `act` is refused for want of room, with `left` bytes free (None: all). Any other failure is raised."""
    store = Store(root)
    try:
        if left is not None:
            found = os.statvfs(filler.parent)
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - left))
        act(store)
    except StorageFull:
        return True
    else:
        return False
    finally:
        filler.unlink(missing_ok=True)
        store.close()


def test_disks_that_are_full_at_random_points(
    registry: Scripted, small_disk: Path, tmp_path: Path, no_reserve: None
) -> None:
    """Pull, load, push and removal, each with some bytes left: whole and acknowledged, or refused, absent, and done once there is room."""
    rng, stop, root, filler = random.Random(10), CancelToken(), small_disk / "root", small_disk / "filler"
    filled(tmp_path / "source", "b:1", layers=3)
    archive = io.BytesIO()
    source = Store(tmp_path / "source")
    ArchiveService(source).save(["b:1"], archive, lambda one: None, stop)
    source.close()
    pulled = f"{registry.address}/a:1"
    with serving(tmp_path / "there") as (address, there):

        def pull(store: Store) -> None:
            ImageService(store).pull(pulled, lambda one: None, stop)

        def load(store: Store) -> None:
            ArchiveService(store).load(io.BytesIO(archive.getvalue()), lambda one: None, stop)

        def push(store: Store) -> None:
            TransferService(store).push("b:1", lambda one: None, stop, target=f"{address}/b:1")

        def remove(store: Store) -> None:
            for name in (pulled, "b:1"):
                if store.images.find(name) is not None:
                    ImageService(store).remove(name, [], force=True)

        for _ in range(FULL):
            for act, name, there_after in (
                (pull, pulled, True),
                (load, "b:1", True),
                (push, "b:1", True),
                (remove, "b:1", False),
            ):
                left = rng.choice((rng.randrange(256 << 10), rng.randrange(30 * MIB)))
                full = refused(root, act, filler, left)
                here = whole(root, name)  # consistent, however it went
                assert full or here is there_after, (act, left)
                assert not refused(root, act, filler, None), "there is room again"
                assert whole(root, name) is there_after, (act, left)
                assert there.check() == []
            assert there.images.find("b:1") is not None


def test_an_archive_for_a_full_disk(registry: Scripted, small_disk: Path) -> None:
    filler = small_disk / "filler"
    store = Store(small_disk / "root")
    filler.write_bytes(bytes(70 * MIB))
    manifest, blobs = sample(1, 6 * MIB)
    other = Store(Path(str(small_disk) + "-other"))
    for data in blobs.values():
        other.blobs.put(data)
    other.images.put(manifest, ImageConfig.parse(blobs[manifest.config.digest]), 0, [Reference.parse("a:1")])
    packed = io.BytesIO()
    ArchiveService(other).save(["a:1"], packed, lambda one: None, CancelToken())
    other.close()
    with pytest.raises(StorageFull, match="are free"):
        ArchiveService(store).load(io.BytesIO(packed.getvalue()), lambda one: None, CancelToken())
    assert store.images.list() == []
    assert store.check() == []
    store.close()
