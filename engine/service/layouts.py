"""Images out of an OCI image layout on this host: a folder with `index.json` (image-spec, image-layout.md)."""

from __future__ import annotations

import os
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.errors import Corrupt, InvalidInput, NotFound, from_os_error
from engine.linux.openat2 import open_in_root
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.platform import Platform, choose
from engine.store.images import Image
from engine.store.store import Store

MAX_DOCUMENT = 4 << 20  # bytes of an index, a manifest or a config
MAX_NESTING = 8
_CHUNK = 1 << 20
_NAME = "org.opencontainers.image.ref.name"


def import_layout(store: Store, path: Path, reference: str, platform: Platform, cancel: CancelToken) -> Image:
    """Takes an image into the store, under no name. `reference` is a tag or a digest; "" the layout's only image.

    Raises `InvalidInput`, `NotFound`, `Corrupt`, `Cancelled`.
    """
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(error, f"opening the OCI layout {path}") from error
    try:
        return LayoutReader(store, root, str(path), cancel).image(reference, platform)
    except OSError as error:
        raise from_os_error(error, f"reading the OCI layout {path}") from error
    finally:
        os.close(root)


class LayoutReader:
    """`root` is the folder's descriptor; nothing is followed out of it."""

    def __init__(self, store: Store, root: int, shown: str, cancel: CancelToken) -> None:
        self._store, self._root, self._shown, self._cancel = store, root, shown, cancel

    def image(self, reference: str, platform: Platform) -> Image:
        chosen = self.find(self.index(), reference, platform)
        manifest = self.manifest(chosen, platform)
        self.take(manifest.config)
        config = ImageConfig.parse(self._store.blobs.read(manifest.config.digest))
        for layer in manifest.layers:
            self.take(layer)
        records = self._store.ensure_layers(manifest.layers, config.diff_ids, cancel=self._cancel)
        return self._store.images.put(manifest, config, sum(record.size for record in records), [])

    def find(self, index: Index, reference: str, platform: Platform) -> Descriptor:
        entries = list(index.manifests)
        if reference:
            entries = [e for e in entries if reference in (str(e.digest), e.annotations.get(_NAME, ""))]
            if not entries:
                raise NotFound(f"{self._shown} holds no image {reference!r}")
            return entries[0]
        if not entries:
            raise NotFound(f"{self._shown} holds no image")
        if len(entries) > 1 and not all(entry.platform for entry in entries):
            raise InvalidInput(f"{self._shown} holds {len(entries)} images", hint="name one: oci-layout://PATH:TAG")
        return entries[0] if len(entries) == 1 else choose(entries, platform)

    def manifest(self, descriptor: Descriptor, platform: Platform) -> Manifest:
        for _ in range(MAX_NESTING):
            raw = self.read(self.path(descriptor.digest))
            if Digest.of(raw) != descriptor.digest:
                raise Corrupt(f"{self._shown}: the manifest {descriptor.digest.short} is damaged")
            parsed = parse_manifest(raw)
            if isinstance(parsed, Manifest):
                return parsed
            descriptor = choose(parsed.manifests, platform)
        raise Corrupt(f"{self._shown}: its indexes are nested too deep")

    def path(self, digest: Digest) -> str:
        return f"blobs/{digest.algorithm}/{digest.hex}"

    def index(self) -> Index:
        index = parse_manifest(self.read("index.json"))
        if not isinstance(index, Index):
            raise Corrupt(f"{self._shown}/index.json is no index")
        return index

    def document(self, descriptor: Descriptor, limit: int = MAX_DOCUMENT) -> bytes:
        """A blob's bytes, verified."""
        raw = self.read(self.path(descriptor.digest), limit)
        if len(raw) != descriptor.size or not descriptor.digest.matches(raw):
            raise Corrupt(f"{self._shown}: the blob {descriptor.digest.short} is damaged")
        return raw

    def read(self, path: str, limit: int = MAX_DOCUMENT) -> bytes:
        with open(open_in_root(self._root, path, os.O_RDONLY), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Corrupt(f"{self._shown}/{path} is larger than {limit} bytes")
        return data

    def take(self, descriptor: Descriptor) -> None:
        """A blob into the store, if it is not there."""
        if self._store.blobs.has(descriptor.digest):
            return
        blob = self._store.blobs.ingest()
        try:
            with open(open_in_root(self._root, self.path(descriptor.digest), os.O_RDONLY), "rb") as file:
                while data := file.read(_CHUNK):
                    self._cancel.check()
                    blob.write(data)
        except BaseException:
            blob.abort()
            raise
        blob.commit(descriptor.digest, descriptor.size)
