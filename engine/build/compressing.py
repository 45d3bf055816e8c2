"""Images in another compression, as blobs of the store: for registries and caches far away. Equal input gives equal bytes.

A layer is packed once: what was made is noted in the store and found again (see `engine.store.packed`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from engine.archive.compression import compressor
from engine.base.cancel import CancelToken
from engine.errors import Corrupt
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import Index, Manifest, build_index, build_manifest, parse_manifest
from engine.oci.media import DOCKER_CONFIG, MANIFESTS, OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, compression
from engine.store.store import Store

LAYER_TYPES = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
KINDS = ("uncompressed", *LAYER_TYPES)
_CHUNK = 1 << 20


def compressed_layer(store: Store, layer: Descriptor, kind: str, cancel: CancelToken) -> Descriptor:
    """`layer` in `kind`; as it is where it is so already, or where nothing is asked for. The caller holds the store's lease."""
    if kind == "uncompressed" or compression(layer.media_type) == kind:
        return layer
    known = store.packed.find(layer.digest, kind)
    if known is not None:
        return known
    blob = store.blobs.ingest()
    try:
        packer = compressor(cast(BinaryIO, blob), kind)
        with store.open_layer(layer) as plain:
            while data := plain.read(_CHUNK):
                cancel.check()
                packer.write(data)
        packer.close()
    except BaseException:
        blob.abort()
        raise
    size = blob.size
    packed = Descriptor(LAYER_TYPES[kind], blob.commit(), size)
    store.packed.note(layer.digest, kind, packed)
    return packed


def compressed_image(
    store: Store,
    manifest: Manifest,
    kind: str,
    cancel: CancelToken,
    *,
    plain_only: bool = False,
    begun: Callable[[Descriptor], None] = lambda layer: None,
) -> Manifest:
    """The same image with its layers in `kind`: the config and its id stay. `plain_only`: layers that are packed in any way
    stay, too. `begun` hears of each layer that is packed, on several threads: zlib leaves the interpreter's lock."""

    def one(layer: Descriptor) -> Descriptor:
        if plain_only and compression(layer.media_type) != "none":
            return layer
        begun(layer)
        return compressed_layer(store, layer, kind, cancel)

    if kind == "uncompressed" or manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        return manifest
    stop = CancelToken()
    with cancel.calling(stop.cancel), ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pack") as pool:
        try:
            unique = sorted({layer.digest: layer for layer in manifest.layers}.values(), key=lambda layer: -layer.size)
            made = dict(zip((layer.digest for layer in unique), pool.map(one, unique), strict=True))
        except BaseException:
            stop.cancel()
            raise
    layers = [made[layer.digest] for layer in manifest.layers]
    if layers == list(manifest.layers):
        return manifest
    annotations = cast("dict[str, str]", manifest.document.get("annotations") or {})
    found = build_manifest(manifest.config, layers, annotations)
    store.blobs.put(found.raw)
    store.packed.note(manifest.digest, kind, found.descriptor)
    return found


def compressed_index(
    store: Store, index: Index, kind: str, cancel: CancelToken, *, begun: Callable[[Descriptor], None]
) -> Index:
    """The same for every image of an index; what else it names stays as it is."""
    children = []
    for child in index.manifests:
        document = (
            parse_manifest(store.blobs.read(child.digest), child.media_type) if child.media_type in MANIFESTS else None
        )
        if isinstance(document, Manifest):
            packed = compressed_image(store, document, kind, cancel, plain_only=True, begun=begun)
            if packed.digest != child.digest:
                child = Descriptor(
                    packed.media_type, packed.digest, packed.size, child.platform, annotations=child.annotations
                )
        elif document is not None:
            raise Corrupt(f"manifest {child.digest.short} is an index")
        children.append(child)
    if children == list(index.manifests):
        return index
    found = build_index(children, cast("dict[str, str]", index.document.get("annotations") or {}))
    store.blobs.put(found.raw)
    store.packed.note(index.digest, kind, found.descriptor)
    return found
