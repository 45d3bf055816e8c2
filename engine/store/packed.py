"""What a registry got in another compression than the store has it in: plain blob or manifest → the packed one.

Built layers are plain tars here: a step's files become a layer without a packer in between, and unpacking costs nothing. A registry
far away should not get them plain. So a first push packs each layer once, keeps it and notes it here; later pushes find it, and
give the same digests whatever the packer does by then. A packed blob stays as long as its plain one.
"""

from __future__ import annotations

from collections.abc import Collection

from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.store.blobs import BlobStore
from engine.store.records import Records

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS packed (plain TEXT NOT NULL, kind TEXT NOT NULL, media_type TEXT NOT NULL,"
    " digest TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (plain, kind))"
)


class Packed:
    def __init__(self, records: Records, blobs: BlobStore) -> None:
        self._records, self._blobs = records, blobs
        if not records.read("SELECT 1 FROM sqlite_master WHERE name = 'packed'"):
            with records.write() as db:
                db.execute(_SCHEMA)

    def find(self, plain: Digest, kind: str) -> Descriptor | None:
        """The packed form, if it is still here."""
        row = self._records.one("SELECT * FROM packed WHERE plain = ? AND kind = ?", plain, kind)
        if row is None or not self._blobs.has(Digest(row["digest"])):
            return None
        return Descriptor(row["media_type"], Digest(row["digest"]), row["size"])

    def note(self, plain: Digest, kind: str, packed: Descriptor) -> None:
        with self._records.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO packed VALUES (?, ?, ?, ?, ?)",
                (plain, kind, packed.media_type, packed.digest, packed.size),
            )

    def forms(self, plain: Digest) -> set[Digest]:
        """Every packed form that was noted."""
        rows = self._records.read("SELECT digest FROM packed WHERE plain = ?", plain)
        return {Digest(row["digest"]) for row in rows}

    def live(self, plain: Collection[Digest]) -> set[Digest]:
        """What a sweep must leave when `plain` stays."""
        rows = self._records.read("SELECT plain, digest FROM packed")
        return {Digest(row["digest"]) for row in rows if Digest(row["plain"]) in plain}
