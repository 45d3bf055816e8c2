"""After a power cut: what was unsynced is looked at before anything trusts it (see `unsynced`)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.atomic import locked
from engine.base.lazy import lazy
from engine.errors import EngineError
from engine.oci.digest import Digest
from engine.store.unsynced import boot_id

if TYPE_CHECKING:
    import shutil

    from engine.store.store import Store
else:
    shutil = lazy("shutil")


def recover(store: Store) -> None:
    """Done by the first process that opens the data root in this boot; others wait. Nothing to do is one look at a folder."""
    if not _needed(store):
        return
    with locked(store.root / "unsynced.lock"):
        folders = store.unsynced.strangers()
        if not _needed(store):
            return
        for name in {name for folder in folders for name in os.listdir(folder)}:
            kind, _, hexes = name.partition("-")
            digest = Digest(f"sha256:{hexes}")
            if kind == "blob":
                _look_at_blob(store, digest)
            elif kind == "layer" and store.layers.peek(digest) is None:
                store.layers.remove(digest)
        _look_at_tags(store)
        store.images.publish_index()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _needed(store: Store) -> bool:
    """The database and the file system may have come through differently: either may say so."""
    rows = store.records.one("SELECT 1 FROM unsynced WHERE boot != ?", boot_id())
    return rows is not None or bool(store.unsynced.strangers())


def _look_at_blob(store: Store, digest: Digest) -> None:
    from engine.store.check import rehash

    path = store.blobs.path(digest)
    with contextlib.suppress(FileNotFoundError):
        if rehash(Path(path)) != digest:
            path.unlink()


def _look_at_tags(store: Store) -> None:
    """Images that did not become whole go; tags that were moved to one go back to what they meant, if that is whole."""
    rows = store.records.read("SELECT kind, name, previous FROM unsynced WHERE boot != ?", boot_id())
    moved = {row["name"]: row["previous"] for row in rows if row["kind"] == "tag"}
    broken = {row["name"] for row in rows if row["kind"] == "image" and not _whole(store, Digest(row["name"]))}
    with store.records.write() as db:
        known = {row["digest"] for row in db.execute("SELECT digest FROM images")}
        for row in db.execute("SELECT name, digest FROM tags").fetchall():
            if row["digest"] not in broken:
                continue
            previous = moved.get(row["name"], "")
            if previous in known and previous not in broken:
                db.execute("UPDATE tags SET digest = ? WHERE name = ?", (previous, row["name"]))
            else:
                db.execute("DELETE FROM tags WHERE name = ?", (row["name"],))
        for digest in broken:
            if not db.execute("SELECT 1 FROM tags WHERE digest = ?", (digest,)).fetchone():
                db.execute("DELETE FROM images WHERE digest = ?", (digest,))
        db.execute("DELETE FROM unsynced WHERE boot != ?", (boot_id(),))


def _whole(store: Store, digest: Digest) -> bool:
    try:
        manifest = store.images.manifest_of(digest)
    except EngineError:
        return False
    return all(store.blobs.path(part.digest).exists() for part in (manifest.config, *manifest.layers))
