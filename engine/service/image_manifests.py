"""What stands under the names of images: of an index each platform, and how much of it is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.model import ImageManifest
from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import Manifest, artifact_type, parse_manifest

if TYPE_CHECKING:
    from engine.store.images import Image
    from engine.store.store import Store

_KIND, _SUBJECT = "vnd.docker.reference.type", "vnd.docker.reference.digest"  # BuildKit, attestation storage


def every(store: Store, users: Mapping[str, Sequence[str]]) -> dict[str, list[ImageManifest]]:
    """By the image's digest. What is damaged counts as not available; `check` names it."""
    return {str(image.digest): _of(store, image, users) for image in store.images.list()}


def _of(store: Store, image: Image, users: Mapping[str, Sequence[str]]) -> list[ImageManifest]:
    index = next(filter(None, (store.indexes.find(tag) for tag in image.tags)), None)
    if index is not None:
        return [_row(store, child, users) for child in index.manifests]
    try:
        return [_row(store, store.images.manifest(image).descriptor, users)]
    except EngineError:
        return []


def _row(store: Store, one: Descriptor, users: Mapping[str, Sequence[str]]) -> ImageManifest:
    platform, kind, unpacked = str(one.platform or ""), "image", 0
    content, available = 0, False
    document = None
    try:
        if store.blobs.stamp(one.digest):
            document = parse_manifest(store.blobs.read(one.digest), one.media_type)
    except EngineError:
        pass
    if isinstance(document, Manifest):
        parts = [one, document.config, *document.layers]
        there = [part for part in parts if store.blobs.stamp(part.digest)]
        content, available = sum(part.size for part in there), len(there) == len(parts)
        if artifact_type(document):
            kind = "unknown"
        elif document.config in there:
            platform, unpacked = _config(store, document, platform)
    if one.annotations.get(_KIND) == "attestation-manifest":
        kind, unpacked = "attestation", 0
    subject = one.annotations.get(_SUBJECT, "") if kind == "attestation" else ""
    used_by = tuple(users.get(one.digest, ()))
    return ImageManifest(
        one.media_type, str(one.digest), one.size, platform, kind, available, content, unpacked, used_by, subject
    )


def _config(store: Store, document: Manifest, platform: str) -> tuple[str, int]:
    """The platform that the image's config says, unless its index did, and the bytes of its layers that are unpacked."""
    try:
        config = ImageConfig.parse(store.blobs.read(document.config.digest))
        records = [store.layers.get(chain) for chain in chain_ids(config.diff_ids)]
    except EngineError:
        return platform, 0
    said = "/".join(filter(None, (config.os, config.architecture, config.variant)))
    return platform or said, sum(record.size for record in records if record is not None)
