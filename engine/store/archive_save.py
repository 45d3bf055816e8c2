"""Images as one tar file that other tools load.

The default form is an OCI image layout (image-spec, image-layout.md) with Docker's `manifest.json` beside it, as `docker save`
writes it since version 25: one file that `docker load`, `podman load` and `skopeo copy oci-archive:` all read. Layers and
manifests go in byte for byte, so what is loaded elsewhere has the digests that it has here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.archive.writer import LayerWriter, Sink, TarEntry
from engine.base.cancel import CancelToken
from engine.errors import Corrupt, InvalidInput, NotFound
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest
from engine.oci.media import OCI_INDEX
from engine.oci.reference import Reference
from engine.store.blobs import LAYOUT
from engine.store.images import Image
from engine.store.store import Store

Format = Literal["docker-archive", "oci-archive"]
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


@dataclass(slots=True)
class Chosen:
    """One image to save, and the tags it is saved under (none when it was named by its id)."""

    image: Image
    tags: list[Reference]
    index: Index | None = None  # what the tags stand for, where they stand for several platforms


def choose(store: Store, names: Sequence[str]) -> list[Chosen]:
    """Which images `names` mean, each once. A repository without a tag means all its tags. Raises `NotFound`."""
    found: dict[Digest, Chosen] = {}

    def add(image: Image, tags: Sequence[Reference]) -> None:
        index = store.indexes.find(tags[0].familiar) if tags else None
        chosen = found.setdefault(index.digest if index else image.digest, Chosen(image, [], index))
        chosen.tags += [tag for tag in tags if tag not in chosen.tags]

    for name in names:
        exact = store.images.find(name)
        tags = _named(store, name, exact)
        if exact is not None and not tags:
            add(exact, [])
        for tag in tags:
            add(store.images.get(tag.familiar), [tag])
        if exact is None and not tags:
            raise NotFound(f"no such image: {name}", hint="`workbench images` lists what is here")
    return list(found.values())


def _named(store: Store, name: str, exact: Image | None) -> list[Reference]:
    """The tags that `name` itself spells; none when it is an id or a digest."""
    try:
        wanted = Reference.parse(name)
    except InvalidInput:
        return []
    every = [Reference.parse(tag) for image in store.images.list() for tag in image.tags]
    if wanted.digest:
        return []
    if wanted.tag:
        return [tag for tag in every if tag == wanted]
    return sorted((tag for tag in every if tag.name == wanted.name), key=str)


def save(
    store: Store,
    chosen: Sequence[Chosen],
    out: Sink,
    *,
    format: Format = "docker-archive",
    cancel: CancelToken | None = None,
    progress: Callable[[Digest, int], None] | None = None,
    left_out: Collection[Digest] = (),
) -> None:
    """Writes `chosen` into `out`, every blob once, but those of `left_out` (for a reader that has them).

    Raises `NotFound` or `Corrupt` when a blob is missing or damaged.
    """
    _Saver(store, out, cancel or CancelToken(), progress, left_out).run(chosen, format)


class _Saver:
    def __init__(
        self,
        store: Store,
        out: Sink,
        cancel: CancelToken,
        progress: Callable[[Digest, int], None] | None,
        left_out: Collection[Digest] = (),
    ) -> None:
        self._store, self._cancel, self._progress = store, cancel, progress
        self._tar = LayerWriter(out, hashed=False)
        self._written: set[Digest] = set(left_out)

    def run(self, chosen: Sequence[Chosen], format: Format) -> None:
        for folder in ("blobs", "blobs/sha256"):
            self._tar.add(TarEntry(folder, "dir", 0o755))
        entries: list[dict[str, object]] = []
        documents: list[dict[str, object]] = []
        for one in chosen:
            manifest = self._store.images.manifest(one.image)
            for blob in (*manifest.layers, manifest.config):
                self._blob(blob.digest)
            self._blob(manifest.digest)
            if one.index is not None:
                every = self._store.indexes.graph(one.index)
                for digest in (*sorted(every.blobs), *every.documents):
                    self._blob(digest)
            entries += self._entries(one.index or manifest, one.tags)
            documents.append(self._document(manifest, one.tags))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self._small("index.json", json.dumps(index, separators=(",", ":")).encode())
        if format == "docker-archive":
            self._small("manifest.json", json.dumps(documents, separators=(",", ":")).encode())
        self._small("oci-layout", LAYOUT)
        self._tar.finish()

    @staticmethod
    def _entries(document: Manifest | Index, tags: Sequence[Reference]) -> list[dict[str, object]]:
        base = document.descriptor
        named = [
            Descriptor(base.media_type, base.digest, base.size, annotations={IMAGE_NAME: str(tag), REF_NAME: tag.tag})
            for tag in tags
        ]
        return [descriptor.to_json() for descriptor in named or [base]]

    @staticmethod
    def _document(manifest: Manifest, tags: Sequence[Reference]) -> dict[str, object]:
        def place(digest: Digest) -> str:
            return f"blobs/{digest.algorithm}/{digest.hex}"

        return {
            "Config": place(manifest.config.digest),
            "RepoTags": [tag.familiar for tag in tags] or None,
            "Layers": [place(layer.digest) for layer in manifest.layers],
        }

    def _blob(self, digest: Digest) -> None:
        if digest in self._written:
            return
        self._cancel.check()
        self._written.add(digest)
        size = self._store.blobs.size(digest)
        with self._store.blobs.open(digest) as blob:
            try:
                self._tar.add(TarEntry(f"blobs/{digest.algorithm}/{digest.hex}", "file", 0o644, size=size), blob)
            except Corrupt as error:
                raise Corrupt(
                    f"blob {digest} in the store is cut off", hint="run `workbench check --repair`"
                ) from error
        if self._progress:
            self._progress(digest, size)

    def _small(self, name: str, data: bytes) -> None:
        self._tar.add(TarEntry(name, "file", 0o644, size=len(data)), io.BytesIO(data))
