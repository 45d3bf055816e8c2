"""Indexes by name: an image built for several platforms. The name's tag is the image for this machine; the index names them all.

A row holds as long as the tag still means the image it was made with: whatever moves or removes the tag ends the index, too.
"""

from __future__ import annotations

from engine.errors import InvalidInput
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.reference import Reference
from engine.store.blobs import BlobStore
from engine.store.records import Records

_SCHEMA = "CREATE TABLE IF NOT EXISTS indexes (name TEXT PRIMARY KEY, digest TEXT NOT NULL, chosen TEXT NOT NULL)"
_HELD = "SELECT i.digest FROM indexes i JOIN tags t ON t.name = i.name AND t.digest = i.chosen"


class Indexes:
    def __init__(self, records: Records, blobs: BlobStore) -> None:
        self._records, self._blobs = records, blobs
        if not records.read("SELECT 1 FROM sqlite_master WHERE name = 'indexes'"):
            with records.write() as db:
                db.execute(_SCHEMA)

    def put(self, name: str, index: Index, chosen: Digest) -> None:
        """`chosen` is the manifest that the tag `name` means; all that the index names is here."""
        digest = self._blobs.put(index.raw)
        row = ("SELECT 1 FROM indexes WHERE name = ? AND digest = ? AND chosen = ?", name, digest, chosen)
        if self._records.one(*row) is None:
            with self._records.write() as db:
                db.execute(f"DELETE FROM indexes WHERE digest NOT IN ({_HELD})")
                db.execute("INSERT OR REPLACE INTO indexes VALUES (?, ?, ?)", (name, digest, chosen))

    def find(self, name: str) -> Index | None:
        """The index that a tag stands for, None when it is one image. Raises `Corrupt`, `NotFound`."""
        try:
            full = str(Reference.parse(name).with_default_tag())
        except InvalidInput:
            return None  # an id
        row = self._records.one(f"{_HELD} WHERE i.name = ?", full)
        if row is None:
            return None
        document = parse_manifest(self._blobs.read(Digest(row["digest"])))
        return document if isinstance(document, Index) else None

    def live(self) -> set[Digest]:
        """Blobs that a sweep must leave. Raises `Corrupt`, `NotFound` when that cannot be told."""
        found: set[Digest] = set()
        for row in self._records.read(_HELD):
            top = Digest(row["digest"])
            document = parse_manifest(self._blobs.read(top))
            found.add(top)
            for child in document.manifests if isinstance(document, Index) else ():
                manifest = parse_manifest(self._blobs.read(child.digest))
                found.add(child.digest)
                if isinstance(manifest, Manifest):
                    found |= {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        return found

    def holders(self) -> dict[str, str]:
        """tag -> digest of its index."""
        rows = self._records.read(
            "SELECT i.name, i.digest FROM indexes i JOIN tags t ON t.name = i.name AND t.digest = i.chosen"
        )
        return {row["name"]: row["digest"] for row in rows}
