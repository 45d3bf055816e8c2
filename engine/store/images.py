"""Images: a manifest, the config it names, and the tags that point at it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.clock import parse_rfc3339
from engine.errors import Conflict, Corrupt, InvalidInput, NotFound
from engine.oci.config import ImageConfig
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, parse_manifest
from engine.oci.reference import Reference
from engine.store.blobs import BlobStore
from engine.store.records import Records


@dataclass(frozen=True, slots=True)
class Image:
    """`digest` is the manifest's; `size` the unpacked bytes; `added` when it came into this store (ns)."""

    digest: Digest
    config_digest: Digest
    created: int
    size: int
    added: int
    tags: tuple[str, ...]  # canonical: "docker.io/library/python:3.11-slim"

    @property
    def familiar_tags(self) -> tuple[str, ...]:
        return tuple(Reference.parse(tag).familiar for tag in self.tags)


class ImageStore:
    def __init__(self, records: Records, blobs: BlobStore) -> None:
        self._records, self._blobs = records, blobs

    def manifest(self, image: Image) -> Manifest:
        parsed = parse_manifest(self._blobs.read(image.digest))
        if not isinstance(parsed, Manifest):
            raise Corrupt(f"image {image.digest.short} is an index in the store", hint="run `workbench check`")
        return parsed

    def config(self, image: Image) -> ImageConfig:
        return ImageConfig.parse(self._blobs.read(image.config_digest))

    def put(
        self, manifest: Manifest, config: ImageConfig, size: int, tags: Sequence[Reference], repo_digest: str = ""
    ) -> Image:
        """Records the image (its blobs are there already) and moves `tags` to it."""
        digest = self._blobs.put(manifest.raw)
        known = None if repo_digest else self._unchanged(digest, tags)
        if known is not None:
            return known
        try:
            created = parse_rfc3339(config.created) if config.created else 0
        except ValueError:
            created = 0
        if self._is_recorded(digest, tags, repo_digest):
            return self.get(digest)  # nothing new: no flush
        with self._records.write() as db:
            db.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                (digest, manifest.config.digest, created, size, time.time_ns()),
            )
            for tag in tags:
                db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (str(tag.with_default_tag()), digest))
            if repo_digest:
                # By its full name, as `find` asks for it.
                name = str(Reference.parse(repo_digest))
                db.execute("INSERT OR REPLACE INTO repo_digests VALUES (?, ?)", (name, digest))
        self.publish_index()
        return self.get(digest)

    def _unchanged(self, digest: Digest, tags: Sequence[Reference]) -> Image | None:
        """The image when it is recorded and all of `tags` name it: a build that changed nothing writes nothing."""
        row = self._records.one("SELECT * FROM images WHERE digest = ?", digest)
        if row is None:
            return None
        names = tuple(
            r["name"] for r in self._records.read("SELECT name FROM tags WHERE digest = ? ORDER BY name", digest)
        )
        if any(str(tag.with_default_tag()) not in names for tag in tags):
            return None
        return Image(digest, Digest(row["config"]), row["created"], row["size"], row["added"], names)

    def publish_index(self) -> None:
        """`index.json` names every image by its familiar tag, so that `skopeo copy oci:PATH:NAME` finds it."""
        manifests: list[dict[str, object]] = []
        for image in self.list():
            base: dict[str, object] = {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.digest,
                "size": self._blobs.size(image.digest) if self._blobs.has(image.digest) else 0,
            }
            if self._blobs.has(image.digest):
                base["mediaType"] = self.manifest(image).media_type
            for tag in image.familiar_tags or ("",):
                named = dict(base)
                if tag:
                    named["annotations"] = {"org.opencontainers.image.ref.name": tag}
                manifests.append(named)
        self._blobs.publish_index(manifests)

    def list(self) -> list[Image]:
        tags: dict[str, list[str]] = {}
        for row in self._records.read("SELECT name, digest FROM tags ORDER BY name"):
            tags.setdefault(row["digest"], []).append(row["name"])
        return [
            Image(
                Digest(row["digest"]),
                Digest(row["config"]),
                row["created"],
                row["size"],
                row["added"],
                tuple(tags.get(row["digest"], ())),
            )
            for row in self._records.read("SELECT * FROM images ORDER BY added DESC")
        ]

    def find(self, name: str) -> Image | None:
        """By tag, repo digest, manifest or config digest, or a unique prefix of at least 4 digits of either id."""
        images = {image.digest: image for image in self.list()}
        bare = name.removeprefix("sha256:")
        if len(bare) >= 4 and all(c in "0123456789abcdef" for c in bare):
            hits = [i for i in images.values() if i.config_digest.hex.startswith(bare) or i.digest.hex.startswith(bare)]
            # One image in two compressions has two manifests and one id: the tagged one is meant.
            if len({hit.config_digest for hit in hits}) == 1:
                return max(hits, key=lambda hit: (hit.digest == name, bool(hit.tags)))
            if len(hits) > 1:
                raise Conflict(
                    f"image id {name!r} is ambiguous: {len(hits)} images start with it", hint="give more digits"
                )
        if name.startswith("sha256:"):
            return None
        reference = Reference.parse(name)
        if reference.digest is not None:
            row = self._records.one(
                "SELECT digest FROM repo_digests WHERE name = ?", f"{reference.name}@{reference.digest}"
            )
            found = images.get(Digest(row["digest"])) if row else None
            return found or (images.get(reference.digest) if reference.digest in images else None)
        row = self._records.one("SELECT digest FROM tags WHERE name = ?", str(reference.with_default_tag()))
        return images.get(Digest(row["digest"])) if row else None

    def by_config(self, config: Digest) -> Image | None:
        """The image of that id; the tagged one where two manifests share it."""
        same = [image for image in self.list() if image.config_digest == config]
        return max(same, key=lambda image: bool(image.tags), default=None)

    def get(self, name: str) -> Image:
        found = self.find(name)
        if found is None:
            raise NotFound(
                f"No such image: {_tagged(name)}",
                hint=f"`workbench images` lists what is here; `workbench pull {name}` fetches it",
            )
        return found

    def tag(self, image: Image, reference: Reference) -> None:
        with self._records.write() as db:
            db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (str(reference.with_default_tag()), image.digest))
        self.publish_index()

    def untag(self, reference: str) -> None:
        with self._records.write() as db:
            db.execute("DELETE FROM tags WHERE name = ?", (reference,))
        self.publish_index()

    def forget(self, image: Image) -> None:
        """Drops the record; the bytes go with the next sweep. Raises `Conflict` when a container uses the image."""
        with self._records.write() as db:
            if user := db.execute("SELECT name FROM containers WHERE image = ?", (image.digest,)).fetchone():
                raise Conflict(
                    f"image {image.config_digest.short} is used by container {user['name']}",
                    hint=f"remove it first: workbench rm -f {user['name']}",
                )
            db.execute("DELETE FROM tags WHERE digest = ?", (image.digest,))
            db.execute("DELETE FROM images WHERE digest = ?", (image.digest,))
            db.execute("DELETE FROM steps WHERE config = ?", (image.config_digest,))
        self.publish_index()

    def _is_recorded(self, digest: Digest, tags: Sequence[Reference], repo_digest: str) -> bool:
        """The image is here, and every name means it already."""
        names = [str(tag.with_default_tag()) for tag in tags]
        read = self._records.one
        return (
            read("SELECT 1 FROM images WHERE digest = ?", digest) is not None
            and all(read("SELECT 1 FROM tags WHERE name = ? AND digest = ?", name, digest) for name in names)
            and not (
                repo_digest
                and read(
                    "SELECT 1 FROM repo_digests WHERE name = ? AND digest = ?",
                    str(Reference.parse(repo_digest)),
                    digest,
                )
                is None
            )
        )

    def set_size(self, image: Image, size: int) -> None:
        """What the layers came to when they were unpacked."""
        with self._records.write() as db:
            db.execute("UPDATE images SET size = ? WHERE digest = ?", (size, image.digest))

    def put_repo_digest(self, image: Image, name: str) -> None:
        """A registry is known to hold the image as `name` (`REPOSITORY@sha256:…`)."""
        with self._records.write() as db:
            db.execute("INSERT OR REPLACE INTO repo_digests VALUES (?, ?)", (str(Reference.parse(name)), image.digest))

    def repo_digests(self, image: Image) -> Sequence[str]:
        """Familiar: `python@sha256:…`, as `docker inspect` shows them."""
        rows = self._records.read("SELECT name FROM repo_digests WHERE digest = ? ORDER BY name", image.digest)
        return [Reference.parse(row["name"]).familiar for row in rows]

    def steps(self, image: Image) -> Sequence[dict[str, object]]:
        """What the last build here said of each history entry; empty for a pulled image."""
        found = self._records.document("steps", "config", image.config_digest)
        return list(found) if found else []

    def put_steps(self, config: Digest, steps: Sequence[dict[str, object]]) -> None:
        document = json.dumps(list(steps))
        known = self._records.one("SELECT document FROM steps WHERE config = ?", config)
        if known is None or known["document"] != document:
            with self._records.write(durable=False) as db:
                db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?)", (config, document))


def _tagged(name: str) -> str:
    """`name` with `:latest` where a reference has neither tag nor digest, as Docker names what it did not find."""
    try:
        return Reference.parse(name).with_default_tag().familiar
    except InvalidInput:
        return name
