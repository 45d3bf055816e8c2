"""Images: a manifest, the config it names, and the tags that point at it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.base.clock import parse_rfc3339
from engine.errors import Conflict, Corrupt, InvalidInput, NotFound, is_full
from engine.oci.config import ImageConfig
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, parse_manifest
from engine.oci.media import OCI_MANIFEST
from engine.oci.reference import Reference
from engine.store.blobs import BlobStore
from engine.store.records import Records
from engine.store.unsynced import Unsynced, boot_id

REMEMBERED = 512  # parsed documents


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
    def __init__(self, records: Records, blobs: BlobStore, unsynced: Unsynced | None = None) -> None:
        self._records, self._blobs, self._unsynced = records, blobs, unsynced
        self._parsed: OrderedDict[tuple[str, Digest], tuple[object, Manifest | ImageConfig]] = OrderedDict()
        self._entries: dict[Digest, tuple[str, int]] = {}  # of index.json: media type and size of manifests
        self._behind = False  # index.json still names what is removed, for want of room

    def manifest(self, image: Image) -> Manifest:
        return self.manifest_of(image.digest)

    def manifest_of(self, digest: Digest) -> Manifest:
        """Raises `NotFound`, `Corrupt`."""
        found = self._remembered("manifest", digest, self._read_manifest)
        assert isinstance(found, Manifest)  # by the kind in the key
        return found

    def _read_manifest(self, digest: Digest) -> Manifest:
        parsed = parse_manifest(self._blobs.read(digest))
        if not isinstance(parsed, Manifest):
            raise Corrupt(f"image {digest.short} is an index in the store", hint="run `workbench check`")
        return parsed

    def config(self, image: Image) -> ImageConfig:
        found = self._remembered("config", image.config_digest, lambda one: ImageConfig.parse(self._blobs.read(one)))
        assert isinstance(found, ImageConfig)  # by the kind in the key
        return found

    def _remembered(
        self, kind: str, digest: Digest, read: Callable[[Digest], Manifest | ImageConfig]
    ) -> Manifest | ImageConfig:
        """What a document says, read again when its file is another than it was: damage is met where it is."""
        key, stamp = (kind, digest), self._blobs.stamp(digest)
        known = self._parsed.get(key)
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        found = read(digest)
        self._parsed[key] = (stamp, found)
        if len(self._parsed) > REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread was quicker
                self._parsed.popitem(last=False)
        return found

    def put(
        self,
        manifest: Manifest,
        config: ImageConfig,
        size: int,
        tags: Sequence[Reference],
        repo_digest: str = "",
        *,
        durable: bool = True,
    ) -> Image:
        """Records the image (its blobs are there already) and moves `tags` to it. Not `durable`: a power cut may undo it."""
        if durable and self._unsynced is not None:
            self._unsynced.settle_now()  # it may share blobs with what was built a moment ago
        digest = self._blobs.put(manifest.raw, durable=durable)
        known = None if repo_digest else self._unchanged(digest, tags)
        if known is not None:
            return known
        try:
            created = parse_rfc3339(config.created) if config.created else 0
        except ValueError:
            created = 0
        if self._is_recorded(digest, tags, repo_digest):
            return self.get(digest)  # nothing new: no flush
        with self._records.write(durable=durable) as db:
            done = db.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                (digest, manifest.config.digest, created, size, time.time_ns()),
            )
            if not durable and done.rowcount > 0:
                db.execute("INSERT OR IGNORE INTO unsynced VALUES ('image', ?, '', ?)", (digest, boot_id()))
            for tag in tags:
                name = str(tag.with_default_tag())
                if not durable:
                    db.execute(
                        "INSERT OR IGNORE INTO unsynced VALUES"
                        " ('tag', ?, coalesce((SELECT digest FROM tags WHERE name = ?), ''), ?)",
                        (name, name, boot_id()),
                    )
                db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (name, digest))
            if repo_digest:
                # By its full name, as `find` asks for it.
                name = str(Reference.parse(repo_digest))
                db.execute("INSERT OR REPLACE INTO repo_digests VALUES (?, ?)", (name, digest))
        if durable or self._unsynced is None:
            self.publish_index()
        else:
            self._unsynced.later(self._publish_soon)
        found = self._at(digest)
        assert found is not None  # recorded a moment ago
        return found

    def _publish_soon(self) -> None:
        self.publish_index(durable=False)

    def unsynced(self) -> list[tuple[str, str, str]]:
        """What was recorded and is perhaps not on the disk: kind, name, and what the name means now."""
        rows = self._records.read(
            "SELECT kind, u.name, coalesce(t.digest, '') AS digest FROM unsynced u LEFT JOIN tags t ON t.name = u.name"
        )
        return [(row["kind"], row["name"], row["digest"]) for row in rows]

    def note_synced(self, recorded: Sequence[tuple[str, str, str]]) -> None:
        """These are on the disk, with their blobs; a tag that was moved again meanwhile is not, but knows where it stood."""
        if not recorded:
            return
        with self._records.write() as db:  # it flushes the database, too
            for kind, name, digest in recorded:
                row = db.execute("SELECT digest FROM tags WHERE name = ?", (name,)).fetchone()
                if kind == "tag" and row is not None and row["digest"] != digest:
                    db.execute("UPDATE unsynced SET previous = ? WHERE kind = 'tag' AND name = ?", (digest, name))
                else:
                    db.execute("DELETE FROM unsynced WHERE kind = ? AND name = ?", (kind, name))

    def _unchanged(self, digest: Digest, tags: Sequence[Reference]) -> Image | None:
        """The image when it is recorded and all of `tags` name it: a build that changed nothing writes nothing."""
        row = self._records.one("SELECT * FROM images WHERE digest = ?", digest)
        if row is None:
            return None
        found = self._image(row)
        return None if any(str(tag.with_default_tag()) not in found.tags for tag in tags) else found

    def publish_index(self, *, durable: bool = True) -> None:
        """`index.json` names every image by its familiar tag, so that `skopeo copy oci:PATH:NAME` finds it."""
        manifests: list[dict[str, object]] = []
        for image in self.list():
            if image.digest not in self._entries and self._blobs.path(image.digest).exists():
                manifest = self.manifest(image)
                self._entries[image.digest] = (manifest.media_type, manifest.size)
            media_type, size = self._entries.get(image.digest, (OCI_MANIFEST, 0))
            base: dict[str, object] = {"mediaType": media_type, "digest": image.digest, "size": size}
            for tag in image.familiar_tags or ("",):
                named = dict(base)
                if tag:
                    named["annotations"] = {"org.opencontainers.image.ref.name": tag}
                manifests.append(named)
        self._blobs.publish_index(manifests, durable=durable)

    def _publish_less(self) -> None:
        """`index.json` after a removal. On a full disk it waits for `catch_up`: removing is what makes room."""
        try:
            self.publish_index()
        except OSError as error:
            if not is_full(error):
                raise
            self._behind = True

    def catch_up(self) -> None:
        """Writes `index.json` where there was no room for it. Call when something has gone from the disk."""
        if self._behind:
            self._behind = False
            self._publish_less()

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
        bare = name.removeprefix("sha256:")
        if len(bare) >= 4 and all(c in "0123456789abcdef" for c in bare):
            hits = [self._image(row) for row in self._by_id(bare)]
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
            return (self._at(row["digest"]) if row else None) or self._at(reference.digest)
        row = self._records.one("SELECT digest FROM tags WHERE name = ?", str(reference.with_default_tag()))
        return self._at(row["digest"]) if row else None

    def _by_id(self, digits: str) -> Sequence[sqlite3.Row]:
        if len(digits) == 64:
            exact = self._records.read("SELECT * FROM images WHERE digest = ?", f"sha256:{digits}")
            if exact:
                return exact  # a manifest's own digest is no prefix of another
        pattern = f"sha256:{digits}*"
        return self._records.read(
            "SELECT * FROM images WHERE digest GLOB ? OR config GLOB ? ORDER BY added DESC", pattern, pattern
        )

    def _at(self, digest: str) -> Image | None:
        row = self._records.one("SELECT * FROM images WHERE digest = ?", digest)
        return self._image(row) if row else None

    def _image(self, row: sqlite3.Row) -> Image:
        names = self._records.read("SELECT name FROM tags WHERE digest = ? ORDER BY name", row["digest"])
        return Image(
            Digest(row["digest"]), Digest(row["config"]), row["created"], row["size"], row["added"],
            tuple(name["name"] for name in names),
        )  # fmt: skip

    def by_config(self, config: Digest) -> Image | None:
        """The image of that id; the tagged one where two manifests share it."""
        rows = self._records.read("SELECT * FROM images WHERE config = ? ORDER BY added DESC", config)
        same = [self._image(row) for row in rows]
        return max(same, key=lambda image: bool(image.tags), default=None)

    def get(self, name: str) -> Image:
        found = self.find(name)
        if found is None:
            raise NotFound(
                f"No such image: {_tagged(name)}",
                hint=f"`workbench images` lists what is here; `workbench pull {name}` fetches it",
            )
        return found

    def _settle(self) -> None:
        """What may still be needed after a power cut is removed only when what took its place is on the disk."""
        if self._unsynced is not None:
            self._unsynced.settle_now()

    def tag(self, image: Image, reference: Reference) -> None:
        self._settle()
        with self._records.write() as db:
            db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (str(reference.with_default_tag()), image.digest))
        self.publish_index()

    def untag(self, reference: str) -> None:
        self._settle()
        with self._records.write() as db:
            db.execute("DELETE FROM tags WHERE name = ?", (reference,))
        self._publish_less()

    def forget(self, image: Image) -> None:
        """Drops the record; the bytes go with the next sweep. Raises `Conflict` when a container uses the image."""
        self._settle()
        with self._records.write() as db:
            if user := db.execute("SELECT name FROM containers WHERE image = ?", (image.digest,)).fetchone():
                raise Conflict(
                    f"conflict: unable to delete {image.config_digest.short} - used by container {user['name']}",
                    hint=f"remove it first: workbench rm -f {user['name']}",
                )
            db.execute("DELETE FROM tags WHERE digest = ?", (image.digest,))
            db.execute("DELETE FROM images WHERE digest = ?", (image.digest,))
            db.execute("DELETE FROM steps WHERE config = ?", (image.config_digest,))
        self._publish_less()

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
        if self.known_as(image, str(Reference.parse(name))):
            return
        with self._records.write(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO repo_digests VALUES (?, ?)", (str(Reference.parse(name)), image.digest))

    def known_as(self, image: Image, name: str) -> bool:
        """`name` (in full, `REPOSITORY@sha256:…`) is what a registry has the image as."""
        return (
            self._records.one("SELECT 1 FROM repo_digests WHERE name = ? AND digest = ?", name, image.digest)
            is not None
        )

    def repo_digests(self, image: Image) -> Sequence[str]:
        """Familiar: `python@sha256:…`, as `docker inspect` shows them."""
        rows = self._records.read("SELECT name FROM repo_digests WHERE digest = ? ORDER BY name", image.digest)
        return [Reference.parse(row["name"]).familiar for row in rows]

    def known_in(self, image: Image, repository: str) -> set[Digest]:
        """The digests that a registry has the image as, in that repository (its name in full)."""
        return {
            reference.digest
            for reference, digest in self.in_registry(f"{repository}@")
            if digest == image.digest and reference.digest is not None
        }

    def in_registry(self, prefix: str) -> Sequence[tuple[Reference, Digest]]:
        """What registries are known to hold whose name in full begins so (`HOST/`, `REPOSITORY@`), and the image that it is."""
        last = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        rows = self._records.read("SELECT name, digest FROM repo_digests WHERE name >= ? AND name < ?", prefix, last)
        return [(Reference.parse(row["name"]), Digest(row["digest"])) for row in rows]

    def all_repo_digests(self) -> Mapping[str, Sequence[str]]:
        """The same of every image, by its digest."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self._records.read("SELECT name, digest FROM repo_digests ORDER BY name"):
            found[row["digest"]] = (*found.get(row["digest"], ()), Reference.parse(row["name"]).familiar)
        return found

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
