"""Collecting garbage: blobs and layers that nothing names and no running work has claimed."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.errors import EngineError
from engine.oci.chain import chain_ids
from engine.oci.digest import Digest

if TYPE_CHECKING:
    import secrets
    import shutil

    from engine.store.store import Store
else:
    secrets = lazy("secrets")
    shutil = lazy("shutil")

STALE_AFTER = 24 * 3600  # seconds after which a leftover in tmp/ belongs to nobody alive


@dataclass(slots=True)
class Live:
    """What is named: by images, by the build cache, by what the registry serves. `sure` False: something cannot be read."""

    blobs: set[Digest] = field(default_factory=set)
    chains: set[Digest] = field(default_factory=set)
    sure: bool = True


def live(store: Store) -> Live:
    found = Live()
    for image in store.images.list():
        found.blobs |= {image.digest, image.config_digest}
        try:
            found.blobs |= {layer.digest for layer in store.images.manifest(image).layers}
            found.chains |= set(chain_ids(store.images.config(image).diff_ids))
        except EngineError:
            # A damaged manifest does not say what it needs: until it is mended, nothing may go.
            found.sure = False
    try:
        found.blobs |= store.served.live() | store.indexes.live()
    except EngineError:
        found.sure = False
    for row in store.records.read("SELECT document FROM cache"):
        entry = json.loads(row["document"])
        found.blobs.add(Digest(entry["layer"]["digest"]))
        found.chains.add(Digest(entry["chain"]))
    found.blobs |= store.packed.live(found.blobs)
    return found


def _bases(store: Store, chains: Iterable[Digest]) -> set[Digest]:
    """The layers that others stand on."""
    records = (store.layers.peek(chain) for chain in chains)
    return {record.base for record in records if record is not None and record.base is not None}


def sweep(store: Store, *, dry_run: bool = False) -> int:
    """Removes what nothing names, beside any running work. Returns the bytes of blobs and layers freed.

    With `dry_run` nothing goes, and the figure is what would.
    """
    graves: list[Path] = []
    freed = 0
    with store.leases.collecting() as claimed:
        named = live(store)
        if named.sure:
            for digest in store.blobs.digests():
                if digest not in named.blobs and f"blob-{digest.hex}" not in claimed:
                    freed += store.blobs.size(digest)
                    graves += [] if dry_run else _bury(store.blobs.path(digest), store.tmp)
            present = store.layers.chains()
            kept = {chain for chain in present if chain in named.chains or f"layer-{chain.hex}" in claimed}
            named.chains |= _bases(store, kept)
            for chain in present:
                if chain not in named.chains and f"layer-{chain.hex}" not in claimed:
                    record = store.layers.peek(chain)
                    freed += record.size if record else 0
                    graves += [] if dry_run else _bury(store.layers.root / chain.hex, store.tmp)
    if not dry_run:
        for grave in [*graves, *_leftovers(store.tmp)]:
            _remove(grave)
    return freed


def _bury(path: Path, tmp: Path) -> list[Path]:
    """Takes a name away at once; the bytes go later, outside the lock."""
    grave = tmp / f"stale-{secrets.token_hex(8)}"
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return []
    return [grave]


def _leftovers(tmp: Path) -> list[Path]:
    """Files of processes that died long ago. Lock files stay: two holders must never lock two different files."""
    horizon = time.time() - STALE_AFTER
    found = []
    for name in os.listdir(tmp):
        path = tmp / name
        try:
            if not name.endswith(".lock") and path.lstat().st_mtime < horizon:
                found.append(path)
        except FileNotFoundError:
            continue
    return found


def _remove(path: Path) -> None:
    try:
        folder = stat.S_ISDIR(path.lstat().st_mode)
        shutil.rmtree(path, ignore_errors=True) if folder else path.unlink()
    except FileNotFoundError:
        pass
