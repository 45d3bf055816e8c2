"""`check --repair`: each kind of damage is named, and only that is fetched or made again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.cli.main import main
from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.media import OCI_LAYER
from engine.oci.reference import Reference
from engine.service.images import ImageService
from engine.service.repair import RepairService
from engine.store.images import Image
from engine.store.store import Store
from tests.engine.registry.scripted import Scripted, sample

pytestmark = pytest.mark.root


@pytest.fixture
def registry() -> Iterator[Scripted]:
    registry = Scripted()
    registry.add("a", "1", *sample(3))
    yield registry
    registry.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "root")
    yield store
    store.close()


def pulled(store: Store, registry: Scripted) -> Image:
    return ImageService(store).pull(f"{registry.address}/a:1", lambda one: None, CancelToken())


def scribble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGE: dict[str, Callable[[Store, Image], Path]] = {
    "a layer's bytes": lambda store, image: store.blobs.path(store.images.manifest(image).layers[1].digest),
    "the config": lambda store, image: store.blobs.path(image.config_digest),
    "the manifest": lambda store, image: store.blobs.path(image.digest),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("how", [scribble, Path.unlink])
def test_a_blob_is_fetched_again_and_nothing_else(
    store: Store, registry: Scripted, what: str, how: Callable[[Path], None]
) -> None:
    image = pulled(store, registry)
    path = DAMAGE[what](store, image)
    how(path)
    before = len(registry.seen)
    (finding,) = RepairService(store).repair(CancelToken())
    assert (finding.kind, finding.path, finding.mended) == ("blob", str(path), True)
    assert store.check() == []
    fetched = [one.path for one in registry.seen[before:] if "/blobs/" in one.path]
    assert all(path.name in one for one in fetched)


def test_a_tree_is_unpacked_again(store: Store, registry: Scripted) -> None:
    image = pulled(store, registry)
    chain = chain_ids(store.images.config(image).diff_ids)[1]
    (store.layers.root / chain.hex / "layer.json").write_bytes(b"{")
    (finding,) = RepairService(store).repair(CancelToken())
    assert (finding.kind, finding.mended) == ("layer", True)
    assert (store.layers.tree(chain) / "file1").stat().st_size == 7000
    assert store.check() == []


def test_files_of_unpacked_layers(store: Store, registry: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    image = pulled(store, registry)
    chains = chain_ids(store.images.config(image).diff_ids)
    content, mode, gone = (store.layers.tree(chain) / f"file{number}" for number, chain in enumerate(chains))
    assert main(["--root", str(store.root), "check", "--files"]) == 0
    was = content.stat()
    scribble(content)
    os.utime(content, ns=(was.st_atime_ns, was.st_mtime_ns))  # neither its size nor its time tells
    mode.chmod(0o4755)
    gone.unlink()
    (gone.parent / "strange").mkdir()
    (gone.parent / "strange/file").write_text("?")
    gone.symlink_to("/etc/passwd")
    assert main(["--root", str(store.root), "check"]) == 0, "its files are not looked at without --files"
    capsys.readouterr()
    assert main(["--root", str(store.root), "check", "--files"]) == 1
    said = capsys.readouterr().out
    for path, what in (
        (content, "content"),
        (mode, "mode"),
        (gone, "another kind"),
        (gone.parent / "strange", "not of"),
    ):
        assert any(f"{path}: " in line and what in line for line in said.splitlines()), said
    assert "4 problems; `workbench check --files --repair` mends them" in said
    before = len(registry.seen)
    assert main(["--root", str(store.root), "check", "--files", "--repair"]) == 0
    assert len(registry.seen) == before, "out of the blobs that are here"
    assert (content.stat().st_mode, content.stat().st_mtime_ns) == (was.st_mode, was.st_mtime_ns)
    assert (gone.stat().st_size, mode.stat().st_mode & 0o7777) == (7000, 0o644)
    assert not (gone.parent / "strange").exists()
    assert store.check(files=True) == []


def test_what_no_registry_has(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, blobs = sample(1, media_type=OCI_LAYER)
    for data in blobs.values():
        store.blobs.put(data)
    config = ImageConfig.parse(blobs[manifest.config.digest])
    store.ensure_layers(manifest.layers, config.diff_ids)
    store.images.put(manifest, config, 0, [Reference.parse("127.0.0.1:1/built:1")])
    layer = store.blobs.path(manifest.layers[0].digest)
    layer.unlink()
    (finding,) = RepairService(store).repair(CancelToken())
    assert finding.mended  # out of its tree, byte for byte
    layer.unlink()
    (store.layers.tree(chain_ids(config.diff_ids)[0]) / "file0").write_bytes(b"changed")
    (store.blobs.root / "stranger").write_bytes(b"?")
    assert main(["--root", str(store.root), "check", "--repair"]) == 1
    said = capsys.readouterr().out
    assert "refused" in said
    assert "stranger: not a part of the store" in said
    assert "2 problems" in said
    assert (store.blobs.root / "stranger").exists()
