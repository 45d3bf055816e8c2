"""Images out of a tar file: what `docker save`, `podman save`, `skopeo copy … docker-archive:` and `oci-archive:` write.

Read once, front to back (it may be a pipe). Every file that is larger than a document becomes a blob named by its own bytes' digest
as it passes; what ties them together is read at the end. Nothing is recorded before all of an image is here and its layers
hash to its diff IDs, and what no image names goes with the next sweep.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from engine.archive.compression import sniff
from engine.archive.reader import RESERVE
from engine.archive.tarstream import Member, TarStream
from engine.archive.wrapping import unwrap
from engine.archive.writer import CHUNK
from engine.base.cancel import CancelToken
from engine.errors import Corrupt, HostileArchive, InvalidInput, StorageFull, Unsupported
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, build_manifest, parse_manifest
from engine.oci.media import INDEXES, MANIFESTS, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, is_foreign
from engine.oci.platform import Platform, choose
from engine.oci.reference import Reference
from engine.store.archive_save import IMAGE_NAME, REF_NAME
from engine.store.blobs import BlobStore
from engine.store.indexes import graph

MAX_DOCUMENT = 4 << 20  # a file up to this may be a document and is held in memory
MAX_DOCUMENTS = 64 << 20  # all of them together
MAX_FILES = 100_000
MAX_LINKS = 32
_LAYER_TYPES = {"none": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}


@dataclass(frozen=True, slots=True)
class Found:
    """One image of an archive. All its blobs are in the store; nothing is recorded yet.

    A Docker archive holds no manifest: the one here was made for it, and is not `original`. `index` is what the tags stand for
    where the archive holds an image for several platforms whole.
    """

    manifest: Manifest
    config: ImageConfig
    tags: tuple[Reference, ...]
    original: bool = True
    index: Index | None = None


@dataclass(slots=True)
class _Files:
    """What the archive held: documents by path, blobs by path, links by path."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


def read_archive(
    raw: BinaryIO,
    blobs: BlobStore,
    *,
    platform: Platform,
    cancel: CancelToken | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Found]:
    """The images in `raw`. `progress` gets a file's name, bytes so far and size.

    Raises `InvalidInput` when it is no archive of images, `Corrupt`, `HostileArchive`, `StorageFull`, `Cancelled`.
    """
    reader = _Reader(blobs, cancel or CancelToken(), progress)
    try:
        files = reader.read(unwrap(raw))
    except Corrupt as error:
        raise type(error)(f"the archive cannot be read: {error.message}", hint=error.hint) from error
    return _Resolver(files, blobs, platform).images()


class _Reader:
    def __init__(self, blobs: BlobStore, cancel: CancelToken, progress: Callable[[str, int, int], None] | None) -> None:
        self._blobs, self._cancel, self._progress = blobs, cancel, progress
        self._files = _Files()
        self._held = 0

    def read(self, raw: BinaryIO) -> _Files:
        tar = TarStream(raw, hashed=False)
        for number, member in enumerate(tar.members()):
            self._cancel.check()
            if number >= MAX_FILES:
                raise HostileArchive(f"it has more than {MAX_FILES:,} files")
            name = _clean(member.name)
            if member.kind in ("symlink", "hardlink"):
                base = posixpath.dirname(name) if member.kind == "symlink" else ""
                self._files.links[name] = _clean(posixpath.join(base, member.link))
            elif member.kind == "file":
                self._file(name, member, tar)
            elif member.kind != "dir":
                raise HostileArchive(f"{name} is a {member.kind}, which archives of images do not have")
        return self._files

    def _file(self, name: str, member: Member, tar: TarStream) -> None:
        if member.sparse is not None:
            raise HostileArchive(f"{name} is a sparse file, which archives of images do not have")
        expected = _digest_of(name)
        if member.size <= MAX_DOCUMENT and self._held + member.size <= MAX_DOCUMENTS:
            data = b"".join(iter(lambda: tar.read(CHUNK), b""))
            if expected is not None and Digest.of(data) != expected:
                raise Corrupt(f"{name} does not hash to its name")
            self._files.documents[name] = data
            self._held += member.size
            return
        if name.endswith(".json") and not name.startswith("blobs/"):
            raise HostileArchive(f"{name} has {member.size:,} bytes; a document has at most {MAX_DOCUMENT:,}")
        if expected is not None and self._blobs.has(expected):
            self._files.blobs[name] = (expected, self._blobs.size(expected))
            return
        self._files.blobs[name] = self._blob(name, member.size, expected, tar)

    def _blob(self, name: str, size: int, expected: Digest | None, tar: TarStream) -> tuple[Digest, int]:
        place = os.statvfs(self._blobs.tmp)
        free = place.f_bavail * place.f_frsize
        if size > free - RESERVE:
            raise StorageFull(f"{name} of the archive has {size:,} bytes and {free:,} are free", hint="free some space")
        writer = self._blobs.ingest()
        try:
            while data := tar.read(CHUNK):
                self._cancel.check()
                writer.write(data)
                if self._progress:
                    self._progress(name, writer.size, size)
            return writer.commit(expected, size), size
        except BaseException:
            writer.abort()
            raise


class _Resolver:
    """From the files of an archive to images."""

    def __init__(self, files: _Files, blobs: BlobStore, platform: Platform) -> None:
        self._files, self._blobs, self._platform = files, blobs, platform

    def images(self) -> list[Found]:
        if "index.json" in self._files.documents and "oci-layout" in self._files.documents:
            return self._layout()
        if "manifest.json" in self._files.documents:
            return [self._docker(entry) for entry in self._docker_entries()]
        if "repositories" in self._files.documents:
            raise Unsupported(
                "the archive is in the form of Docker before 1.10", hint="load and save it again with a current tool"
            )
        raise InvalidInput(
            "this is not an archive of images: it has neither index.json nor manifest.json",
            hint="`workbench import` makes an image of a file system's tar",
        )

    # --- files ----------------------------------------------------------------------------------------

    def _follow(self, name: str) -> str:
        for _ in range(MAX_LINKS):
            if name not in self._files.links:
                return name
            name = self._files.links[name]
        raise HostileArchive(f"{name} is a link without end")

    def _document(self, name: str) -> bytes:
        name = self._follow(name)
        found = self._files.documents.get(name)
        if found is None:
            if name in self._files.blobs:
                raise HostileArchive(f"{name} is larger than {MAX_DOCUMENT:,} bytes: no document")
            raise Corrupt(f"the archive names {name!r} and does not hold it")
        return found

    def _as_blob(self, name: str) -> tuple[Digest, int]:
        name = self._follow(name)
        if name in self._files.blobs:
            return self._files.blobs[name]
        data = self._document(name)
        return self._blobs.put(data), len(data)

    def _json(self, name: str) -> object:
        try:
            return json.loads(self._document(name))
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"{name} of the archive is not JSON: {error}") from error

    # --- OCI image layout -----------------------------------------------------------------------------

    def _layout(self) -> list[Found]:
        version = self._json("oci-layout")
        if not isinstance(version, dict) or version.get("imageLayoutVersion") != "1.0.0":
            raise Unsupported("the archive's oci-layout is not version 1.0.0")
        index = parse_manifest(self._document("index.json"), None)
        if not isinstance(index, Index):
            raise Corrupt("index.json of the archive is not an index")
        tags = self._docker_tags()
        found: dict[Digest, Found] = {}
        for descriptor in index.manifests:
            manifest = self._manifest(descriptor)
            if manifest is None:
                continue
            names = [*_names(descriptor), *tags.get(manifest.config.digest, ())]
            known = found.get(manifest.digest)
            every = dict.fromkeys([*(known.tags if known else ()), *names])
            whole = self._whole(descriptor) or (known.index if known else None)
            found[manifest.digest] = Found(manifest, self._config(manifest), tuple(every), index=whole)
        if not found:
            raise InvalidInput("the archive holds no image")
        return list(found.values())

    def _manifest(self, descriptor: Descriptor, depth: int = 0) -> Manifest | None:
        """The image behind an entry; None for what is no image (an artifact, an attestation)."""
        if descriptor.media_type not in MANIFESTS + INDEXES:
            return None
        raw = self._document(_place(descriptor.digest))
        if len(raw) != descriptor.size or Digest.of(raw) != descriptor.digest:
            raise Corrupt(f"manifest {descriptor.digest} of the archive is damaged")
        document = parse_manifest(raw, descriptor.media_type)
        if isinstance(document, Index):
            if depth > 2:
                raise HostileArchive("the archive's indexes point to indexes, without end")
            return self._manifest(choose(document.manifests, self._platform), depth + 1)
        return document

    def _whole(self, descriptor: Descriptor) -> Index | None:
        """The index of an entry, with all that it names in the store; None where it is none, or parts were left out."""
        if descriptor.media_type not in INDEXES:
            return None
        top = parse_manifest(self._document(_place(descriptor.digest)), descriptor.media_type)
        assert isinstance(top, Index)  # its type says so
        try:
            every = graph(top, lambda digest: self._document(_place(digest)))
            for digest in every.every:
                if not self._blobs.has(digest) and self._as_blob(_place(digest))[0] != digest:
                    raise Corrupt(f"blob {digest} of the archive is damaged")
        except Corrupt as error:
            if "does not hold it" not in error.message:
                raise
            return None  # `docker save --platform` and the like: only what this machine needs is there
        return top

    def _config(self, manifest: Manifest) -> ImageConfig:
        raw = self._document(_place(manifest.config.digest))
        if len(raw) != manifest.config.size:
            raise Corrupt(f"config {manifest.config.digest} of the archive is damaged")
        config = ImageConfig.parse(raw)
        if len(config.diff_ids) != len(manifest.layers):
            raise Corrupt(f"the config names {len(config.diff_ids)} layers, its manifest {len(manifest.layers)}")
        for layer in manifest.layers:
            if is_foreign(layer.media_type):
                raise Unsupported(f"layer {layer.digest.short} is a foreign layer ({layer.media_type})")
            if not self._blobs.has(layer.digest):
                digest, size = self._as_blob(_place(layer.digest))
                if (digest, size) != (layer.digest, layer.size):
                    raise Corrupt(f"layer {layer.digest} of the archive is damaged")
        self._blobs.put(raw)
        return config

    def _docker_tags(self) -> dict[Digest, list[Reference]]:
        """Tags that a `manifest.json` beside the layout gives to configs."""
        if "manifest.json" not in self._files.documents:
            return {}
        found: dict[Digest, list[Reference]] = {}
        for entry in self._docker_entries():
            digest = Digest.of(self._document(_clean(str(entry["Config"]))))
            found.setdefault(digest, []).extend(_tags(entry))
        return found

    # --- Docker archive -------------------------------------------------------------------------------

    def _docker_entries(self) -> list[dict[str, object]]:
        document = self._json("manifest.json")
        if not isinstance(document, list) or len(document) > 10_000:
            raise Corrupt("manifest.json of the archive is not a list of images")
        for entry in document:
            layers = entry.get("Layers") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
                raise Corrupt("manifest.json of the archive has an entry without a Config")
            if not (layers is None or (isinstance(layers, list) and all(isinstance(one, str) for one in layers))):
                raise Corrupt("manifest.json of the archive has Layers that are not paths")
        return document

    def _docker(self, entry: dict[str, object]) -> Found:
        raw = self._document(_clean(str(entry["Config"])))
        config = ImageConfig.parse(raw)
        names = entry.get("Layers") or []
        assert isinstance(names, list)
        if len(names) != len(config.diff_ids):
            raise Corrupt(f"the config names {len(config.diff_ids)} layers, manifest.json {len(names)}")
        layers = []
        for name in names:
            digest, size = self._as_blob(_clean(name))
            with self._blobs.open(digest) as blob:
                kind = sniff(blob.read(4))
            layers.append(Descriptor(_LAYER_TYPES[kind], digest, size))
        manifest = build_manifest(Descriptor(OCI_CONFIG, self._blobs.put(raw), len(raw)), layers)
        return Found(manifest, config, tuple(_tags(entry)), original=False)


def _tags(entry: dict[str, object]) -> list[Reference]:
    tags = entry.get("RepoTags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Corrupt("manifest.json of the archive has RepoTags that are not names")
    found = [Reference.parse(tag) for tag in tags]
    if bad := [one for one in found if one.digest or not one.tag]:
        raise InvalidInput(f"{bad[0].familiar} in the archive is not a name with a tag")
    return found


def _names(descriptor: Descriptor) -> Sequence[Reference]:
    """The tag of an entry in an index.json: containerd's full name, or the layout's own if that is one."""
    for key in (IMAGE_NAME, REF_NAME):
        text = descriptor.annotations.get(key, "")
        # A bare "latest" or "1.2" says which image of the layout it is, not what it is called.
        if text and (key == IMAGE_NAME or ":" in text or "/" in text):
            try:
                reference = Reference.parse(text)
            except InvalidInput:
                continue
            if not reference.digest:
                return [reference.with_default_tag()]
    return []


def _clean(name: str) -> str:
    """A path inside the archive, normalised. Raises `HostileArchive` for one that climbs out."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise HostileArchive(f"the entry {name[:100]!r} would leave the archive")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _digest_of(name: str) -> Digest | None:
    folder, _, hexadecimal = name.rpartition("/")
    if not folder.startswith("blobs/"):
        return None
    try:
        return Digest.parse(f"{folder.removeprefix('blobs/')}:{hexadecimal}")
    except InvalidInput:
        return None
