"""Pulls: resumed after a cut and in another process, fetched once for many, unpacked while others arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.errors import Corrupt, Unavailable
from engine.model import PullProgress
from engine.oci.digest import Digest
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.blob import BlobProgress
from engine.registry.config import RegistryConfig, Retry
from engine.registry.pull import pull
from engine.service.images import ImageService
from engine.service.meter import Meter
from engine.store.blobs import BlobStore
from engine.store.store import Store
from tests.engine.registry.scripted import Reply, Request, Scripted, sample
from tests.patience import PATIENCE

ONCE = RegistryConfig(retry=Retry(tries=1, base=0.001, cap=0.01))
FAST = RegistryConfig(retry=Retry(tries=3, base=0.001, cap=0.01))
MIB = 1 << 20


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    (tmp_path / "tmp").mkdir()
    return BlobStore(tmp_path / "oci", tmp_path / "tmp")


def fetch(registry: Scripted, store: BlobStore, config: RegistryConfig = FAST) -> list[BlobProgress]:
    told: list[BlobProgress] = []
    reference = Reference.parse(f"{registry.address}/a:1")
    pull(reference, store, config, platform=Platform.host(), progress=told.append)
    return told


def is_layer(request: Request, content: dict[str, bytes]) -> bool:
    return "/blobs/" in request.path and len(content[request.path.rpartition("/")[2]]) > MIB


def test_a_download_goes_on_in_another_attempt(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    manifest, content = sample(1, 4 * MIB)
    cut = [True]

    def script(request: Request) -> Reply | None:
        if cut[0] and is_layer(request, content):
            data = content[request.path.rpartition("/")[2]]
            return Reply(200, data, {"Content-Length": str(len(data))}, cut=3 * MIB)
        return None

    registry = scripted(script)
    registry.add("a", "1", manifest, content)
    with pytest.raises(Unavailable, match="cut off after"):
        fetch(registry, blobs, ONCE)
    assert not blobs.has(manifest.layers[0].digest)
    (partial,) = blobs.tmp.glob("partial-*")
    kept = partial.stat().st_size
    assert kept > MIB
    cut[0] = False
    fetch(registry, BlobStore(blobs.root, blobs.tmp))
    assert registry.requests("GET", "/blobs/")[-1].headers["range"] == f"bytes={kept}-{manifest.layers[0].size - 1}"
    assert blobs.read(manifest.config.digest)
    assert list(blobs.tmp.iterdir()) == []


def test_a_kept_part_that_is_wrong_costs_a_new_download_and_no_more(
    blobs: BlobStore, scripted: Callable[..., Scripted]
) -> None:
    manifest, content = sample(1, 2 * MIB)
    registry = scripted()
    registry.add("a", "1", manifest, content)
    layer = manifest.layers[0]
    (blobs.tmp / f"partial-{layer.digest.hex}").write_bytes(bytes(MIB))
    fetch(registry, blobs)
    assert blobs.path(layer.digest).read_bytes() == content[layer.digest]


def test_a_blob_that_is_wrong_leaves_nothing(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    """RG-06."""
    manifest, content = sample(1, 2 * MIB)
    registry = scripted()
    layer = manifest.layers[0].digest
    registry.add("a", "1", manifest, {**content, layer: content[layer][:-1] + b"!"})
    with pytest.raises(Corrupt):
        fetch(registry, blobs)
    assert list(blobs.tmp.iterdir()) == []
    assert not blobs.has(layer)


def test_many_who_ask_for_the_same_cost_one_download(tmp_path: Path, scripted: Callable[..., Scripted]) -> None:
    """L8: every blob is fetched once, whoever asks; each asker has its own store object, as processes have."""
    manifest, content = sample(2, 2 * MIB)
    registry = scripted()
    registry.add("a", "1", manifest, content)
    (tmp_path / "tmp").mkdir()
    failures: list[BaseException] = []

    def one() -> None:
        try:
            fetch(registry, BlobStore(tmp_path / "oci", tmp_path / "tmp"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for layer in manifest.layers:
        assert len(registry.requests("GET", layer.digest)) == 1


@pytest.mark.root
def test_layers_are_unpacked_while_others_arrive(tmp_path: Path, scripted: Callable[..., Scripted]) -> None:
    manifest, content = sample(2, 2 * MIB)
    unpacked = threading.Event()
    last = manifest.layers[1].digest

    def script(request: Request) -> Reply | None:
        # The second layer is held back until the first is seen unpacked.
        if last in request.path and not unpacked.wait(PATIENCE):
            return Reply(500)
        return None

    registry = scripted(script)
    registry.add("a", "1", manifest, content)
    store = Store(tmp_path / "root")
    first = manifest.layers[0].digest.short

    def told(event: PullProgress) -> None:
        if event.layer == first and event.phase == "extracting":
            unpacked.set()

    image = ImageService(store).pull(f"{registry.address}/a:1", told, CancelToken())
    assert unpacked.is_set()
    assert image.size == 4 * MIB
    assert store.check() == []
    store.close()


def test_rate_and_time_left() -> None:
    now = [0.0]
    told: list[PullProgress] = []
    meter = Meter("a:1", told.append, lambda: now[0])
    digest = Digest.of(b"x")
    for second in range(10):
        now[0] = float(second)
        meter.blob(BlobProgress(digest, "downloading", second * 100, 1000))
    assert (told[0].rate, told[0].left) == (0.0, None)
    assert (told[-1].rate, told[-1].left) == (100.0, 1.0)
    meter.blob(BlobProgress(digest, "done", 1000, 1000))
    assert (told[-1].phase, told[-1].left) == ("done", None)
