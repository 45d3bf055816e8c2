"""Indexes by name: an image for several platforms, built, loaded or pushed here. The name's tag is the image for this machine; the
index names them all.

A row holds as long as the tag still means the image it was made with: whatever moves or removes the tag ends the index, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import Corrupt, EngineError, InvalidInput
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.media import INDEXES, MANIFESTS
from engine.oci.reference import Reference
from engine.store.blobs import BlobStore
from engine.store.records import Records

_SCHEMA = "CREATE TABLE IF NOT EXISTS indexes (name TEXT PRIMARY KEY, digest TEXT NOT NULL, chosen TEXT NOT NULL)"
_HELD = "SELECT i.digest FROM indexes i JOIN tags t ON t.name = i.name AND t.digest = i.chosen"
_DEPTH = 3


@dataclass(slots=True)
class Graph:
    """All that an index names: documents children first (the index itself last), and blobs."""

    documents: dict[Digest, Manifest | Index] = field(default_factory=dict)
    blobs: set[Digest] = field(default_factory=set)

    @property
    def every(self) -> set[Digest]:
        return self.blobs | self.documents.keys()


def graph(top: Index, read: Callable[[Digest], bytes]) -> Graph:
    """Raises `NotFound` when a document is missing, `Corrupt` when one is damaged or indexes point to indexes without end."""
    found = Graph()

    def visit(document: Manifest | Index, depth: int) -> None:
        if document.digest in found.documents:
            return
        if depth > _DEPTH:
            raise Corrupt(f"index {top.digest.short} points to indexes, without end")
        if isinstance(document, Manifest):
            found.blobs |= {document.config.digest, *(layer.digest for layer in document.layers)}
        else:
            for child in document.manifests:
                if child.media_type in MANIFESTS + INDEXES:
                    visit(parse_manifest(read(child.digest), child.media_type), depth + 1)
                else:
                    found.blobs.add(child.digest)
        found.documents[document.digest] = document

    visit(top, 0)
    return found


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

    def complete(self, index: Index) -> bool:
        """All that it names is here."""
        try:
            return all(self._blobs.has(digest) for digest in graph(index, self._blobs.read).every - {index.digest})
        except EngineError:
            return False

    def find(self, name: str) -> Index | None:
        """The index that a tag stands for, None when it is one image. Raises `Corrupt`, `NotFound`."""
        try:
            full = str(Reference.parse(name).with_default_tag())
        except InvalidInput:
            return None  # an id
        row = self._records.one(f"{_HELD} WHERE i.name = ?", full)
        return None if row is None else self._read(row["digest"])

    def of(self, repository: str) -> list[Index]:
        """Those that tags of a repository (its full name) stand for."""
        rows = self._records.read(f"{_HELD} WHERE i.name LIKE ?", f"{repository}:%")
        return [index for row in rows if (index := self._read(row["digest"])) is not None]

    def _read(self, digest: str) -> Index | None:
        document = parse_manifest(self._blobs.read(Digest(digest)))
        return document if isinstance(document, Index) else None

    def graph(self, index: Index) -> Graph:
        return graph(index, self._blobs.read)

    def live(self) -> set[Digest]:
        """Blobs that a sweep must leave. Raises `Corrupt`, `NotFound` when that cannot be told."""
        found: set[Digest] = set()
        for row in self._records.read(_HELD):
            index = self._read(row["digest"])
            found |= self.graph(index).every if index is not None else {Digest(row["digest"])}
        return found

    def holders(self) -> dict[str, str]:
        """tag -> digest of its index."""
        rows = self._records.read(
            "SELECT i.name, i.digest FROM indexes i JOIN tags t ON t.name = i.name AND t.digest = i.chosen"
        )
        return {row["name"]: row["digest"] for row in rows}
