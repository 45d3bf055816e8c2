"""What the store shows as a registry: repositories, their tags and manifests, over the same blobs and images.

A repository's name is what a user here would type: `app` is `docker.io/library/app`, `ghcr.io/a/b` is itself. Every tagged
image is served under its name; what is pushed and is no image for this machine (other platforms, artifacts, indexes) stands in
tables of its own. A blob is served in a repository only where something links it there.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import EngineError, InvalidInput, NotFound
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, artifact_type, parse_manifest
from engine.oci.platform import Platform, choose
from engine.oci.reference import Reference
from engine.store.blobs import BlobStore
from engine.store.images import Image, ImageStore
from engine.store.indexes import Indexes
from engine.store.records import Records

SCHEMA = """
CREATE TABLE IF NOT EXISTS served_manifests (
    repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, artifact_type TEXT NOT NULL,
    subject TEXT NOT NULL, PRIMARY KEY (repository, digest));
CREATE TABLE IF NOT EXISTS served_tags (
    repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repository, tag));
CREATE TABLE IF NOT EXISTS served_blobs (repository TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (repository, digest));
"""


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index as it is sent."""

    raw: bytes
    media_type: str
    digest: Digest


def repository(name: str) -> str:
    """The full name that tables and tags have: `docker.io/library/app`. Raises `InvalidInput`."""
    reference = Reference.parse(name)
    if reference.tag or reference.digest:
        raise InvalidInput(f"{name!r} is not a repository")
    return reference.name


class Served:
    def __init__(self, records: Records, blobs: BlobStore, images: ImageStore, indexes: Indexes) -> None:
        self._records, self._blobs, self._images, self._indexes = records, blobs, images, indexes
        if not records.read("SELECT 1 FROM sqlite_master WHERE name = 'served_blobs'"):
            with records.write() as db:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)

    # --- reading ----------------------------------------------------------------------------------------

    def repositories(self) -> list[str]:
        """In the familiar form in which they are asked for."""
        names = {row["repository"] for row in self._records.read("SELECT DISTINCT repository FROM served_manifests")}
        names |= {Reference.parse(tag).name for image in self._images.list() for tag in image.tags}
        return sorted(Reference.parse(name).familiar_name for name in names)

    def tags(self, name: str) -> list[str]:
        rows = self._records.read("SELECT tag FROM served_tags WHERE repository = ?", name)
        found = {row["tag"] for row in rows}
        found |= {Reference.parse(tag).tag for image in self._images_of(name) for tag in image.tags if _in(tag, name)}
        return sorted(found)

    def document(self, name: str, reference: str) -> Document:
        """By tag or digest. Raises `NotFound`, `Corrupt`."""
        digest = self._resolve(name, reference)
        rows = self._records.read(
            "SELECT media_type FROM served_manifests WHERE repository = ? AND digest = ?", name, digest
        )
        if not rows and digest not in self._documents(name):
            raise NotFound(f"{name} has no manifest {reference}")
        raw = self._blobs.read(digest)
        return Document(raw, rows[0]["media_type"] if rows else parse_manifest(raw).media_type, digest)

    def _documents(self, name: str) -> set[Digest]:
        """Manifests and indexes of the images that tags and digests of the repository mean."""
        found = {image.digest for image in self._images_of(name)}
        for index in self._indexes.of(name):
            found |= self._indexes.graph(index).documents.keys()
        return found

    def _resolve(self, name: str, reference: str) -> Digest:
        if ":" in reference:
            return Digest.parse(reference)
        row = self._records.one("SELECT digest FROM served_tags WHERE repository = ? AND tag = ?", name, reference)
        local = self._records.one("SELECT digest FROM tags WHERE name = ?", f"{name}:{reference}")
        pushed = Digest(row["digest"]) if row is not None else None
        if local is None or (pushed is not None and self._means(pushed, local["digest"])):
            if pushed is None:
                raise NotFound(f"{name} has no tag {reference}")
            return pushed
        # Built, pulled or tagged here; after a push of that name, that is what it means now.
        index = self._indexes.find(f"{name}:{reference}")
        return index.digest if index is not None else Digest(local["digest"])

    def _means(self, pushed: Digest, local: str) -> bool:
        """What was pushed is, or has for this machine, the image that the tag means here."""
        if pushed == local:
            return True
        try:
            document = parse_manifest(self._blobs.read(pushed))
        except EngineError:
            return False
        return isinstance(document, Index) and any(child.digest == local for child in document.manifests)

    def has_blob(self, name: str, digest: Digest) -> bool:
        """The blob is here, and something in the repository links it."""
        linked = self._records.one("SELECT 1 FROM served_blobs WHERE repository = ? AND digest = ?", name, digest)
        known = linked or any(digest in self._parts(image) for image in self._images_of(name))
        known = known or any(digest in self._indexes.graph(index).blobs for index in self._indexes.of(name))
        return bool(known) and self._blobs.has(digest)

    def referrers(self, name: str, subject: Digest, wanted: str = "") -> list[dict[str, object]]:
        """Descriptors of what says that it belongs to `subject`."""
        found = []
        for row in self._records.read(
            "SELECT * FROM served_manifests WHERE repository = ? AND subject = ? ORDER BY digest", name, subject
        ):
            if wanted and row["artifact_type"] != wanted:
                continue
            document = parse_manifest(self._blobs.read(Digest(row["digest"])), row["media_type"])
            entry = Descriptor(row["media_type"], document.digest, document.size).to_json()
            if row["artifact_type"]:
                entry["artifactType"] = row["artifact_type"]
            if annotations := document.document.get("annotations"):
                entry["annotations"] = annotations
            found.append(entry)
        return found

    def _images_of(self, name: str) -> list[Image]:
        known = {
            row["digest"]
            for row in self._records.read("SELECT digest FROM tags WHERE name LIKE ?", f"{name}:%")
            + self._records.read("SELECT digest FROM repo_digests WHERE name LIKE ?", f"{name}@%")
        }
        return [image for image in self._images.list() if image.digest in known]

    def _parts(self, image: Image) -> set[Digest]:
        try:
            return {image.config_digest, *(layer.digest for layer in self._images.manifest(image).layers)}
        except EngineError:
            return set()

    # --- writing ----------------------------------------------------------------------------------------

    def link(self, name: str, digest: Digest) -> None:
        """The blob belongs to the repository: recorded before it appears, so that no sweep takes it."""
        with self._records.write() as db:
            db.execute("INSERT OR IGNORE INTO served_blobs VALUES (?, ?)", (name, digest))

    def unlink(self, name: str, digest: Digest) -> bool:
        with self._records.write() as db:
            done = db.execute("DELETE FROM served_blobs WHERE repository = ? AND digest = ?", (name, digest))
        return done.rowcount > 0

    def put(self, name: str, reference: str, raw: bytes, media_type: str) -> tuple[Manifest | Index, Image | None]:
        """Takes a manifest whose parts are here. The image that it is for this machine, where it is one, is recorded too.

        Raises `InvalidInput`, `Corrupt`, and `NotFound` for a part that was not pushed.
        """
        document = parse_manifest(raw, media_type)
        if ":" in reference and Digest.parse(reference) != document.digest:
            raise InvalidInput(f"the manifest is {document.digest}, not {reference}")
        self._check_parts(name, document)
        self._blobs.put(raw)
        subject = document.document.get("subject")
        below = str(subject["digest"]) if isinstance(subject, dict) else ""
        with self._records.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO served_manifests VALUES (?, ?, ?, ?, ?)",
                (name, document.digest, document.media_type, artifact_type(document), below),
            )
            if ":" not in reference:
                db.execute("INSERT OR REPLACE INTO served_tags VALUES (?, ?, ?)", (name, reference, document.digest))
        image = self._record(name, reference, document) if ":" not in reference else None
        return document, image

    def _check_parts(self, name: str, document: Manifest | Index) -> None:
        if isinstance(document, Manifest):
            missing = [part for part in (document.config, *document.layers) if not self.has_blob(name, part.digest)]
        else:
            missing = [part for part in document.manifests if not self._has_document(name, part.digest)]
        if missing:
            raise NotFound(f"{missing[0].digest} was not pushed to {name}")

    def _has_document(self, name: str, digest: Digest) -> bool:
        try:
            return bool(self.document(name, digest))
        except NotFound:
            return self.has_blob(name, digest)

    def _record(self, name: str, tag: str, document: Manifest | Index) -> Image | None:
        """An image in the store under the tag, where the document has one for this machine."""
        index = document if isinstance(document, Index) else None
        if isinstance(document, Index):
            try:
                chosen = choose(document.manifests, Platform.host())
                inner = parse_manifest(self._blobs.read(chosen.digest), chosen.media_type)
            except EngineError:
                return None
            if isinstance(inner, Index):
                return None
            document = inner
        if artifact_type(document):
            return None
        config = ImageConfig.parse(self._blobs.read(document.config.digest))
        size = sum(layer.size for layer in document.layers)  # until it is unpacked
        image = self._images.put(document, config, size, [Reference.parse(f"{name}:{tag}")])
        if index is not None and self._indexes.complete(index):
            self._indexes.put(f"{name}:{tag}", index, image.digest)
        return image

    def delete(self, name: str, reference: str) -> None:
        """A tag, or a manifest with every tag that names it. The bytes go with the next sweep. Raises `NotFound`."""
        digest = self.document(name, reference).digest
        by_tag = ":" not in reference
        with self._records.write() as db:
            if by_tag:
                db.execute("DELETE FROM served_tags WHERE repository = ? AND tag = ?", (name, reference))
            else:
                db.execute("DELETE FROM served_tags WHERE repository = ? AND digest = ?", (name, digest))
                db.execute("DELETE FROM served_manifests WHERE repository = ? AND digest = ?", (name, digest))
                db.execute("DELETE FROM repo_digests WHERE name LIKE ? AND digest = ?", (f"{name}@%", digest))
        for image in self._images.list():
            for tag in image.tags:
                if _in(tag, name) and (tag == f"{name}:{reference}" if by_tag else image.digest == digest):
                    self._images.untag(tag)

    def forget(self, name: str) -> None:
        """Everything of a repository, but not the images that it gave to the store."""
        with self._records.write() as db:
            for table in ("served_tags", "served_manifests", "served_blobs"):
                db.execute(f"DELETE FROM {table} WHERE repository = ?", (name,))

    def live(self) -> set[Digest]:
        """Blobs that a sweep must leave."""
        found = {Digest(row["digest"]) for row in self._records.read("SELECT digest FROM served_blobs")}
        for row in self._records.read("SELECT digest, media_type FROM served_manifests"):
            digest = Digest(row["digest"])
            found.add(digest)
            document = parse_manifest(self._blobs.read(digest), row["media_type"])
            if isinstance(document, Manifest):
                found |= {document.config.digest, *(layer.digest for layer in document.layers)}
        return found


def _in(tag: str, name: str) -> bool:
    return tag.rpartition(":")[0] == name
