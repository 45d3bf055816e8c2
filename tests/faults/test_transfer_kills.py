"""`kill -9` and full disks at random points of pull, load and prune: acknowledged is whole, the rest is absent, the next run goes on."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.errors import StorageFull
from engine.oci.config import ImageConfig
from engine.oci.reference import Reference
from engine.service.archives import ArchiveService
from engine.service.images import ImageService
from engine.store.store import Store
from tests.engine.registry.scripted import Scripted, sample

pytestmark = pytest.mark.root
MIB = 1 << 20
KILLS = int(os.environ.get("WORKBENCH_KILLS", "4"))  # 100 and more before a release


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
