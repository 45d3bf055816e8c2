"""Indexes made of images that are in registries: what an index names is mounted or copied from where it is, then it is pushed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO

from engine.base.cancel import CancelToken
from engine.errors import InvalidInput, NotFound
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.media import INDEXES, MANIFESTS
from engine.oci.reference import Reference
from engine.registry.artifact import Artifact
from engine.registry.config import RegistryConfig
from engine.registry.push import push
from engine.service.artifacts import asking
from engine.store.uploads import Uploads

if TYPE_CHECKING:
    from engine.store.store import Store


def push_index(
    store: Store, target: str, document: bytes, sources: Mapping[str, str], *, insecure: bool, cancel: CancelToken
) -> str:
    """See `engine.api.Engine.push_index`. Raises `NotFound`, `Unauthorized`, `Unavailable`, `Corrupt`, `InvalidInput`."""
    reference = Reference.parse(target).with_default_tag()
    top = parse_manifest(document)
    places = {Digest.parse(digest): Reference.parse(name) for digest, name in sources.items()}
    config = asking(store, *({place.domain for place in (reference, *places.values())} if insecure else ()))
    with store.using():
        there = _Elsewhere(store, config, top, places, cancel)
        try:
            digest = push(
                reference,
                top,
                there,
                config,
                progress=lambda event: None,
                mounts=lambda: there.neighbours(reference),
                held=lambda: there.at(reference),
                journal=Uploads(store.tmp),
                cancel=cancel,
            )
        finally:
            there.close()
    if there.fetched:
        store.sweep()  # what was copied through here has no name here
    return str(digest)


class _Elsewhere:
    """A `BlobSource` over the repositories of registries. What is read is known from what names it: the documents come first."""

    def __init__(
        self,
        store: Store,
        config: RegistryConfig,
        top: Manifest | Index,
        places: Mapping[Digest, Reference],
        cancel: CancelToken,
    ) -> None:
        self._store, self._config, self._cancel = store, config, cancel
        self._artifacts: dict[str, Artifact] = {}
        self._where: dict[Digest, tuple[Reference, Descriptor]] = {}
        self._documents: dict[Digest, Manifest | Index] = {}
        self.fetched = False
        self._note(top, places)

    def close(self) -> None:
        for artifact in self._artifacts.values():
            artifact.close()

    def _note(
        self, document: Manifest | Index, places: Mapping[Digest, Reference], above: Reference | None = None
    ) -> None:
        """Where what `document` names is: as `places` say, else where it is itself."""
        own = places.get(document.digest, above)
        named = document.manifests if isinstance(document, Index) else (document.config, *document.layers)
        for one in named:
            place = places.get(one.digest, own)
            if place is None:
                raise InvalidInput(f"the index names {one.digest}, and no repository is named that has it")
            self._where.setdefault(one.digest, (place, one))

    def _of(self, digest: Digest) -> tuple[Artifact, Descriptor]:
        found = self._where.get(digest)
        if found is None:
            raise NotFound(f"nothing names blob {digest.short}")
        place, descriptor = found
        if place.name not in self._artifacts:
            self._artifacts[place.name] = Artifact(
                place, self._store.blobs, self._config, progress=lambda event: None, cancel=self._cancel
            )
        return self._artifacts[place.name], descriptor

    def has(self, digest: Digest) -> bool:
        return digest in self._where

    def read(self, digest: Digest) -> bytes:
        artifact, descriptor = self._of(digest)
        if descriptor.media_type not in MANIFESTS + INDEXES:
            return artifact.document(descriptor, descriptor.size)
        document = artifact.child(descriptor)
        self._documents[digest] = document
        self._note(document, {}, self._where[digest][0])
        return document.raw

    def open(self, digest: Digest) -> BinaryIO:
        artifact, descriptor = self._of(digest)
        if not self._store.blobs.has(digest):
            self.fetched = True
            artifact.blob(descriptor)
        return self._store.blobs.open(digest)

    def neighbours(self, target: Reference) -> dict[Digest, list[str]]:
        """Blobs that another repository of the target's registry has."""
        return {
            digest: [place.path]
            for digest, (place, _) in self._where.items()
            if place.domain == target.domain and place.path != target.path
        }

    def at(self, target: Reference) -> list[Manifest]:
        """Images that are in the target's repository already."""
        return [
            document
            for digest, document in self._documents.items()
            if isinstance(document, Manifest) and self._where[digest][0].name == target.name
        ]
