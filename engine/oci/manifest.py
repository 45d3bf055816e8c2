"""Manifests and indexes of OCI and Docker (image-spec, manifest.md and image-index.md).

The raw bytes are kept: digests are over bytes. A manifest may have no layers (a stage FROM scratch with metadata
alone has none): the specification says SHOULD, its JSON schema says must.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.errors import Corrupt, InvalidInput, Unsupported
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.media import DOCKER_CONFIG, INDEXES, MANIFESTS, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

MAX_SIZE = 4 << 20
MAX_ENTRIES = 10_000
# Old registries and tools give a config no type of its own.
_CONFIGS = {OCI_CONFIG, DOCKER_CONFIG, "", "application/octet-stream", "application/json"}


@dataclass(frozen=True, slots=True)
class _Document:
    raw: bytes
    media_type: str
    document: Mapping[str, object] = field(repr=False)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    @property
    def size(self) -> int:
        return len(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class Manifest(_Document):
    """One image: its config and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Index(_Document):
    """One name, an image for each platform."""

    manifests: tuple[Descriptor, ...]


def artifact_type(document: Manifest | Index) -> str:
    """What an artifact is; "" for an image (image-spec, manifest.md, "Guidelines for Artifact Usage")."""
    written = document.document.get("artifactType")
    if isinstance(written, str) and written:
        return written
    if isinstance(document, Manifest) and document.config.media_type not in _CONFIGS:
        return document.config.media_type
    return ""


def parse_manifest(raw: bytes, content_type: str | None = None) -> Manifest | Index:
    """Reads a manifest or an index.

    A document that could be read as either is refused, and so is one whose type is not what the server said
    (CVE-2021-41190). Raises `Corrupt`, `InvalidInput`, `Unsupported` (schema 1).
    """
    if len(raw) > MAX_SIZE:
        raise Corrupt(f"a manifest of {len(raw)} bytes is larger than {MAX_SIZE}")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"the manifest is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Corrupt("the manifest is not a JSON object")
    if document.get("schemaVersion") == 1:
        raise Unsupported("the image is in Docker's old schema 1", hint="push it again with a current tool")
    if document.get("schemaVersion") != 2:
        raise Corrupt(f"schemaVersion {document.get('schemaVersion')!r} is not 2")
    media_type = _media_type(document, (content_type or "").split(";")[0].strip())
    if document.get("subject") is not None:
        Descriptor.from_json(document["subject"])
    if media_type in MANIFESTS:
        if "manifests" in document:
            raise Corrupt("the document is a manifest and an index at once")
        config = Descriptor.from_json(document.get("config"))
        return Manifest(raw, media_type, document, config, _descriptors(document.get("layers"), "layers"))
    if "layers" in document or "config" in document:
        raise Corrupt("the document is an index and a manifest at once")
    return Index(raw, media_type, document, _descriptors(document.get("manifests"), "manifests"))


def _media_type(document: Mapping[str, object], content_type: str) -> str:
    written = document.get("mediaType")
    if written is not None and not isinstance(written, str):
        raise Corrupt("mediaType is not a string")
    known = MANIFESTS + INDEXES
    if written and content_type in known and written != content_type:
        raise Corrupt(f"the document says {written}, its server {content_type}")
    media_type = written or (content_type if content_type in known else "")
    if not media_type:
        media_type = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if media_type not in known:
        raise InvalidInput(f"{media_type} is neither an image manifest nor an index")
    return media_type


def _descriptors(obj: object, name: str) -> tuple[Descriptor, ...]:
    if not isinstance(obj, list) or len(obj) > MAX_ENTRIES:
        raise Corrupt(f"the manifest's {name} are not a list of at most {MAX_ENTRIES}")
    return tuple(Descriptor.from_json(entry) for entry in obj)


def build_manifest(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> Manifest:
    """An OCI manifest; equal input gives equal bytes."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Manifest(raw, OCI_MANIFEST, document, config, tuple(layers))


def build_index(manifests: Sequence[Descriptor], annotations: Mapping[str, str] | None = None) -> Index:
    """An OCI index over `manifests`, which should name their platforms; equal input gives equal bytes."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [manifest.to_json() for manifest in manifests],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Index(raw, OCI_INDEX, document, tuple(manifests))
