"""Layers in another compression, as blobs of the store: for registries and caches far away. Equal input gives equal bytes."""

from __future__ import annotations

from typing import BinaryIO, cast

from engine.archive.compression import compressor
from engine.base.cancel import CancelToken
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import Manifest, build_manifest
from engine.oci.media import OCI_LAYER_GZIP, OCI_LAYER_ZSTD, compression
from engine.store.store import Store

LAYER_TYPES = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
KINDS = ("uncompressed", *LAYER_TYPES)
_CHUNK = 1 << 20


def compressed_layer(store: Store, layer: Descriptor, kind: str, cancel: CancelToken) -> Descriptor:
    """`layer` in `kind`; as it is where it is so already, or where nothing is asked for. The caller holds the store's lease."""
    if kind == "uncompressed" or compression(layer.media_type) == kind:
        return layer
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
    return Descriptor(LAYER_TYPES[kind], blob.commit(), size)


def compressed_image(store: Store, manifest: Manifest, kind: str, cancel: CancelToken) -> Manifest:
    """The same image with its layers in `kind`: the config and its id stay."""
    layers = [compressed_layer(store, layer, kind, cancel) for layer in manifest.layers]
    if layers == list(manifest.layers):
        return manifest
    annotations = cast("dict[str, str]", manifest.document.get("annotations") or {})
    found = build_manifest(manifest.config, layers, annotations)
    store.blobs.put(found.raw)
    return found
