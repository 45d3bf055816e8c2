"""What a registry has beside images to run: manifests as they are, artifacts, and what refers to an image (OCI 1.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.base.cancel import CancelToken
from engine.model import RegistryDocument
from engine.oci.manifest import Index, Manifest
from engine.oci.manifest import artifact_type as kind_of
from engine.oci.media import INDEXES, MANIFESTS
from engine.oci.platform import Platform, choose
from engine.oci.reference import Reference
from engine.registry.artifact import Artifact
from engine.registry.config import RegistryConfig
from engine.registry.credentials import canonical
from engine.registry.pull import MANIFEST_LIMIT
from engine.service.registries import registry_config

if TYPE_CHECKING:
    from engine.store.store import Store


def manifests(
    store: Store, name: str, *, children: bool, insecure: bool, cancel: CancelToken
) -> Sequence[RegistryDocument]:
    """Raises `NotFound`, `Unauthorized`, `Unavailable`, `Corrupt`."""
    with _asked(store, name, insecure, cancel) as (reference, artifact):
        top = artifact.top()
        below = top.manifests if children and isinstance(top, Index) else ()
        named = [(artifact.child(child), child) for child in below if child.media_type in MANIFESTS + INDEXES]
        found = [
            _document(reference, document, str(child.platform or ""), _config(artifact, document))
            for document, child in named
        ]
        return [_document(reference, top, "", _config(artifact, top) if children else b""), *found]


def referrers(
    store: Store, name: str, *, artifact_type: str, platform: str, insecure: bool, cancel: CancelToken
) -> Sequence[Mapping[str, Any]]:
    """Raises `NotFound`, `Unauthorized`, `Unavailable`, `Corrupt`, `InvalidInput`."""
    with _asked(store, name, insecure, cancel) as (_, artifact):
        top = artifact.top()
        subject = top.digest
        if platform and isinstance(top, Index):
            subject = choose(top.manifests, Platform.parse(platform)).digest
        return artifact.referrers(subject, artifact_type)


def _config(artifact: Artifact, document: Manifest | Index) -> bytes:
    """Of an image; of anything else nothing."""
    if not isinstance(document, Manifest) or kind_of(document):
        return b""
    return artifact.document(document.config, MANIFEST_LIMIT)


def asking(store: Store, *domains: str) -> RegistryConfig:
    """The host's configuration; these registries may be spoken to in the clear."""
    config = registry_config(store)
    return replace(config, insecure=config.insecure | {canonical(domain) for domain in domains})


@contextlib.contextmanager
def _asked(store: Store, name: str, insecure: bool, cancel: CancelToken) -> Iterator[tuple[Reference, Artifact]]:
    reference = Reference.parse(name).with_default_tag()
    config = asking(store, *([reference.domain] if insecure else []))
    artifact = Artifact(reference, store.blobs, config, progress=lambda event: None, cancel=cancel)
    try:
        yield reference, artifact
    finally:
        artifact.close()


def _document(reference: Reference, document: Manifest | Index, platform: str, config: bytes) -> RegistryDocument:
    name, kind = f"{reference.familiar_name}@{document.digest}", kind_of(document)
    return RegistryDocument(name, document.media_type, str(document.digest), document.raw, platform, kind, config)
