"""Garbage is collected beside running work, and takes nothing that the work needs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.digest import Digest
from engine.oci.reference import Reference
from engine.store.store import Store
from tests.engine.registry.scripted import sample

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "root")
    yield store
    store.close()


def add(store: Store, seed: str) -> tuple[list[Digest], list[Digest]]:
    """Blobs and unpacked layers of an image that no record names."""
    manifest, blobs = sample(2, seed=seed)
    for data in blobs.values():
        store.blobs.put(data)
    config = ImageConfig.parse(blobs[manifest.config.digest])
    store.ensure_layers(manifest.layers, config.diff_ids)
    return [Digest(one) for one in blobs], list(chain_ids(config.diff_ids))


def there(store: Store, blobs: list[Digest], chains: list[Digest]) -> bool:
    whole = all(store.blobs.path(blob).exists() for blob in blobs)
    return whole and all(store.layers.peek(chain) for chain in chains)


def test_what_nobody_names_goes_and_what_work_claims_stays(store: Store) -> None:
    garbage = add(store, "garbage")
    with store.using():
        mine = add(store, "mine")
        before = sum(store.blobs.size(blob) for blob in garbage[0])
        would = store.sweep(dry_run=True)
        assert there(store, *garbage)
        assert store.sweep() == would >= before
        assert there(store, *mine)
        assert not any(store.blobs.path(blob).exists() for blob in garbage[0])
        assert [store.layers.peek(chain) for chain in garbage[1]] == [None, None]
    store.sweep()
    assert store.blobs.digests() == store.layers.chains() == []


def test_looking_is_enough_to_claim(store: Store) -> None:
    """A pull that finds a blob there relies on it, though it did not put it there."""
    blobs, chains = add(store, "old")
    with store.using():
        assert all(store.blobs.has(blob) for blob in blobs)
        assert all(store.layers.get(chain) for chain in chains)
        store.sweep()
        assert there(store, blobs, chains)
    with store.using():
        store.sweep()
        assert not store.blobs.has(blobs[0])


HOLDER = """
import sys
from pathlib import Path
from engine.oci.digest import Digest
from engine.store.store import Store
store = Store(Path(sys.argv[1]))
with store.using():
    assert store.blobs.has(Digest(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lease_of_another_process_ends_with_it(store: Store) -> None:
    blob = store.blobs.put(b"precious")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root), blob], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert store.sweep() == 0
    assert store.blobs.has(blob)
    process.kill()
    process.wait()
    assert store.sweep() == len(b"precious")
    assert list((store.root / "leases").iterdir()) == []


def test_a_manifest_that_cannot_be_read_stops_the_sweep(store: Store) -> None:
    manifest, blobs = sample(1)
    for data in blobs.values():
        store.blobs.put(data)
    image = store.images.put(manifest, ImageConfig.parse(blobs[manifest.config.digest]), 0, [Reference.parse("a")])
    store.blobs.path(image.digest).write_bytes(b"{}")
    assert store.sweep() == 0
    assert store.blobs.has(manifest.layers[0].digest)


def test_sweeps_beside_work_on_the_same_blobs(store: Store) -> None:
    """Whoever looks and finds a blob still has it until its work ends."""
    stop = threading.Event()

    def sweeper() -> None:
        other = Store(store.root)
        while not stop.is_set():
            other.sweep()
        other.close()

    thread = threading.Thread(target=sweeper)
    thread.start()
    try:
        for number in range(300):
            data = f"blob {number % 7}".encode()
            with store.using():
                digest = store.blobs.put(data)
                assert store.blobs.read(digest) == data
                assert store.blobs.has(digest)
    finally:
        stop.set()
        thread.join()
