"""What stands beside the scripted hostile registry: races on the store's own folders, odd images, and names of every kind."""

from __future__ import annotations

import ctypes
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.archive.reader import apply_layer
from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken
from engine.errors import EngineError, InvalidInput
from engine.oci.reference import Reference
from engine.service.images import ImageService
from engine.store.store import Store
from tests.engine.registry.scripted import Scripted, sample

AT_FDCWD, RENAME_EXCHANGE = -100, 2


def layer(files: int) -> bytes:
    out = io.BytesIO()
    writer = LayerWriter(out)
    for number in range(files):
        if number % 20 == 0:
            writer.add(TarEntry(f"d{number // 20}", "dir", 0o755))
        writer.add(TarEntry(f"d{number // 20}/f{number}", "file", 0o644, size=4), io.BytesIO(b"evil"))
    writer.finish()
    return out.getvalue()


@pytest.mark.root
def test_rg11_the_folder_exchanged_while_a_layer_is_unpacked(tmp_path: Path) -> None:
    """The destination and a folder above it become links to the host, and back again, thousands of times meanwhile."""
    canary = tmp_path / "canary"
    (canary / "diff").mkdir(parents=True)
    (tmp_path / "work/diff").mkdir(parents=True)
    os.symlink(canary, tmp_path / "work-link")
    os.symlink(canary, tmp_path / "work/diff-link")
    libc, over, swaps = ctypes.CDLL(None, use_errno=True), threading.Event(), 0

    def exchange(one: str, other: str) -> None:
        libc.renameat2(AT_FDCWD, os.fsencode(tmp_path / one), AT_FDCWD, os.fsencode(tmp_path / other), RENAME_EXCHANGE)

    def race() -> None:
        nonlocal swaps
        while not over.is_set():
            for pair in (("work/diff", "work/diff-link"), ("work", "work-link")):
                exchange(*pair)
                exchange(*pair)
                swaps += 1

    racer = threading.Thread(target=race)
    racer.start()
    try:
        tar = layer(300)
        rounds = 0
        while rounds < 25 or swaps <= 1000:  # on a busy machine the other thread has few turns
            rounds += 1
            try:
                apply_layer(io.BytesIO(tar), tmp_path / "work/diff")
            except (OSError, EngineError):
                continue  # it met the link, and refused it
    finally:
        over.set()
        racer.join()
    # When the destination was opened while it was a link, the layer lies there as it would; no entry of it may do more than that.
    assert sorted(path.name for path in canary.iterdir() if path.name != "diff" and not path.name.startswith("d")) == []
    assert all(path.name.startswith(("d", "f")) for path in canary.rglob("*"))


@pytest.mark.root
@pytest.mark.parametrize("layers", [0, 1, 200])
def test_rg12_odd_numbers_of_layers(tmp_path: Path, layers: int) -> None:
    registry = Scripted()
    try:
        registry.add("a", "1", *sample(layers, 10))
        store = Store(tmp_path)
        image = ImageService(store).pull(f"{registry.address}/a:1", lambda event: None, CancelToken())
        assert len(store.images.manifest(image).layers) == layers
        assert store.check() == []
        store.close()
    finally:
        registry.close()


PARTS = st.text(st.sampled_from("abz09._-/:@AÄ~ \t\n\0%?#[]"), max_size=40)
NAMED = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["", "host/", "host:5000/", "[::1]:5000/", "-x/", "../", "ghcr.io/"]),
    PARTS,
    st.sampled_from(["", ":1", ":-x", ":" + "a" * 129, "@sha256:" + "0" * 64, ":t@sha256:" + "f" * 64, "@sha256:xyz"]),
)


@given(st.one_of(PARTS, NAMED, st.text(max_size=300)))
def test_rg13_any_text_is_a_name_that_reads_back_or_an_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidInput:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert not str(reference).startswith("-"), "no program takes it for an option"
    assert not set(str(reference)) & set(" \t\n\0%?#~")
    assert ".." not in reference.path.split("/")
    assert len(str(reference)) < 1000
