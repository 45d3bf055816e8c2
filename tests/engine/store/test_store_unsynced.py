"""What a build wrote without waiting for the disk, after a power cut that the tests play: another boot ID, and files that came
through empty or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest
from engine.oci.reference import Reference
from engine.store import unsynced
from engine.store.store import Store
from tests.engine.registry.scripted import sample

TAG = Reference.parse("app")
Damage = Callable[[Store, Manifest], object]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(unsynced, "DELAY", 3600.0)  # nothing is flushed but when a test asks for it
    monkeypatch.setattr(unsynced, "LATEST", 3600.0)
    return tmp_path / "root"


@pytest.fixture
def reboot(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Store]]:
    """Opens the store as after a power cut: the one before never got to say goodbye."""
    opened: list[Store] = []

    def boot() -> Store:
        number = len(opened)
        for module in ("unsynced", "layers", "images", "recover"):
            monkeypatch.setattr(f"engine.store.{module}.boot_id", lambda: f"boot-{number}")
        opened.append(Store(root))
        return opened[-1]

    yield boot
    for store in opened:
        store.unsynced._first = 0.0
        store.close()


def build(store: Store, seed: str) -> Manifest:
    """As a build leaves its result."""
    manifest, blobs = sample(2, seed=seed)
    for data in blobs.values():
        store.blobs.put(data, durable=False)
    config = ImageConfig.parse(blobs[manifest.config.digest])
    store.ensure_layers(manifest.layers, config.diff_ids)
    store.images.put(manifest, config, 1, [TAG], durable=False)
    return manifest


def tagged(store: Store) -> Digest | None:
    image = store.images.find("app")
    return image.digest if image else None


def lost(digest: Callable[[Manifest], Digest], how: str) -> Damage:
    def damage(store: Store, manifest: Manifest) -> None:
        path = store.blobs.path(digest(manifest))
        if how == "missing":
            path.unlink()
        elif how == "empty":
            os.truncate(path, 0)
        else:
            size = path.stat().st_size
            os.truncate(path, 0)
            os.truncate(path, size)  # zeros

    return damage


DAMAGES = [
    lost(which, how)
    for which in (lambda m: m.digest, lambda m: m.config.digest, lambda m: m.layers[1].digest)
    for how in ("missing", "empty", "zeros")
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_tag_means_the_old_image_or_the_new_one(reboot: Callable[[], Store], damage: Damage) -> None:
    store = reboot()
    old = build(store, "old")
    store.unsynced.settle()
    new = build(store, "new")
    newer = build(store, "newer")
    assert tagged(store) == newer.digest
    damage(store, newer)
    (store.blobs.root / "index.json").write_bytes(b"")
    after = reboot()
    assert tagged(after) in (old.digest, new.digest)
    assert after.check() == []
    assert old.digest.encode() in (after.blobs.root / "index.json").read_bytes()
    assert after.unsynced.strangers() == []


def test_what_came_through_stays(reboot: Callable[[], Store]) -> None:
    store = reboot()
    manifest = build(store, "whole")
    after = reboot()
    assert tagged(after) == manifest.digest
    assert after.check() == []
    assert after.images.unsynced() == []


def test_a_first_image_that_is_lost_leaves_no_tag(reboot: Callable[[], Store]) -> None:
    store = reboot()
    manifest = build(store, "first")
    os.truncate(store.blobs.path(manifest.layers[0].digest), 0)
    after = reboot()
    assert tagged(after) is None
    assert after.check() == []
    assert build(after, "first").digest == manifest.digest == tagged(after)


def test_the_marks_may_be_lost_with_the_blobs(reboot: Callable[[], Store]) -> None:
    """The database came through, the file system did not."""
    store = reboot()
    old = build(store, "old")
    store.unsynced.settle()
    new = build(store, "new")
    for part in (new, new.config, *new.layers):
        store.blobs.path(part.digest).unlink()
    shutil.rmtree(store.root / "unsynced")
    after = reboot()
    assert tagged(after) == old.digest
    assert after.check() == []


def test_trees_of_another_boot_are_not_trusted(reboot: Callable[[], Store]) -> None:
    store = reboot()
    manifest = build(store, "tree")
    config = ImageConfig.parse(store.blobs.read(manifest.config.digest))
    chain = chain_ids(config.diff_ids)[0]
    (store.layers.root / chain.hex / "layer.json").write_bytes(b"")
    after = reboot()
    assert after.check() == []
    assert after.layers.peek(chain) is None
    after.ensure_layers(manifest.layers, config.diff_ids)
    assert after.layers.peek(chain) is not None


def test_what_is_settled_is_trusted_after_any_boot(reboot: Callable[[], Store]) -> None:
    store = reboot()
    manifest = build(store, "kept")
    chains = chain_ids(ImageConfig.parse(store.blobs.read(manifest.config.digest)).diff_ids)
    store.unsynced.settle()
    assert store.images.unsynced() == []
    assert list((store.root / "unsynced").iterdir()) == []
    after = reboot()
    assert all(after.layers.peek(chain) for chain in chains)
    assert tagged(after) == manifest.digest


def test_what_was_replaced_goes_only_when_what_replaces_it_is_on_the_disk(reboot: Callable[[], Store]) -> None:
    store = reboot()
    old = build(store, "old")
    store.unsynced.settle()
    new = build(store, "new")
    store.images.forget(store.images.get(old.digest))
    assert store.images.unsynced() == []
    store.sweep()
    assert not store.blobs.path(old.digest).exists()
    after = reboot()
    assert tagged(after) == new.digest
    assert after.check() == []
