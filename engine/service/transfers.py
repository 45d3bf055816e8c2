"""Images on their way out: to registries."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from engine.base.cancel import CancelToken
from engine.base.settings import push_settings
from engine.build.compressing import compressed_image, compressed_index
from engine.errors import EngineError, InvalidInput, from_os_error
from engine.model import PullProgress, RegistryAuth
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.reference import Reference
from engine.registry.push import push
from engine.service.meter import Meter
from engine.service.registries import registry_config
from engine.store.images import Image
from engine.store.store import Store
from engine.store.uploads import Uploads


class TransferService:
    def __init__(self, store: Store) -> None:
        self._store = store

    def push(
        self,
        source: str,
        progress: Callable[[PullProgress], None],
        cancel: CancelToken,
        *,
        target: str = "",
        auth: RegistryAuth | None = None,
    ) -> Digest:
        """Pushes the image `source` under its own name, or under `target`. Returns the manifest's digest."""
        reference = Reference.parse(target or source).with_default_tag()
        if reference.digest and not reference.tag:
            raise InvalidInput(f"{source}: a push needs a name with a tag", hint="write NAME:TAG")
        shown = reference.familiar
        try:
            with self._store.using():
                image = self._store.images.get(source)
                progress(PullProgress(shown, "", "resolving", text=f"The push refers to repository [{reference.name}]"))
                top = self._store.indexes.find(source) or self._store.images.manifest(image)
                manifest = self.packed(image, top, progress, cancel)
                digest = push(
                    reference,
                    manifest,
                    self._store.blobs,
                    registry_config(self._store, [auth] if auth else []),
                    progress=Meter(shown, progress).blob,
                    mounts=lambda: self.neighbours(reference),
                    held=lambda: self.held(reference),
                    journal=Uploads(self._store.tmp),
                    cancel=cancel,
                )
                self._store.images.put_repo_digest(image, f"{reference.name}@{digest}")
        except OSError as error:
            raise from_os_error(error, f"pushing {shown}") from error
        self._store.records.event("image", "push", image.config_digest, {"name": shown}, durable=False)
        text = f"{reference.tag}: digest: {digest} size: {manifest.size}"
        progress(PullProgress(shown, "", "done", manifest.size, manifest.size, text))
        return digest

    def packed(
        self,
        image: Image,
        top: Manifest | Index,
        progress: Callable[[PullProgress], None],
        cancel: CancelToken,
        kind: str = "",
    ) -> Manifest | Index:
        """What goes to a registry: plain layers packed, once and for all (`engine.store.packed`). What came from a registry goes
        as it came. `kind` "" is as the settings say."""
        kind = kind or push_settings(self._store.root).compression
        digests = {Reference.parse(name).digest for name in self._store.images.repo_digests(image)}
        if kind == "uncompressed" or digests - self._store.packed.forms(top.digest):
            return top

        def begun(layer: Descriptor) -> None:
            if self._store.packed.find(layer.digest, kind) is None:
                progress(PullProgress("", layer.digest.short, "packing", 0, layer.size))

        if isinstance(top, Manifest):
            return compressed_image(self._store, top, kind, cancel, plain_only=True, begun=begun)
        return compressed_index(self._store, top, kind, cancel, begun=begun)

    def held(self, reference: Reference) -> list[Manifest]:
        """Manifests that the repository had when something was pushed to it or pulled from it, as far as they are here."""
        found = []
        for other, _ in self._store.images.in_registry(f"{reference.name}@"):
            with contextlib.suppress(EngineError):
                assert other.digest is not None  # by what was asked for
                document = parse_manifest(self._store.blobs.read(other.digest))
                found += [document] if isinstance(document, Manifest) else []
        return found

    def neighbours(self, reference: Reference) -> dict[Digest, list[str]]:
        """For each blob, the other repositories of the same registry that are known to hold it."""
        paths: dict[Digest, set[str]] = {}
        for other, image in self._store.images.in_registry(f"{reference.domain}/"):
            if other.path != reference.path:
                paths.setdefault(image, set()).add(other.path)
        found: dict[Digest, list[str]] = {}
        for image, repositories in paths.items():
            for layer in self._layers(image):
                found.setdefault(layer, []).extend(sorted(repositories))
        return found

    def _layers(self, image: Digest) -> list[Digest]:
        try:
            plain = [layer.digest for layer in self._store.images.manifest_of(image).layers]
        except EngineError:
            return []
        return [one for layer in plain for one in (layer, *self._store.packed.forms(layer))]
