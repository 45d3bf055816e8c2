"""Caches from elsewhere (`--cache-from`): a cache in a registry or a folder, or one that an image carries in its config."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.base.cancel import CancelToken
from engine.build.cache_format import CONFIG, MAX_DOCUMENT, Found, read, read_inline
from engine.build.cache_specs import CacheSpec
from engine.build.interfaces import Emit
from engine.build.platform_run import INLINE
from engine.build.shared_cache import CacheSource
from engine.errors import Cancelled, Corrupt, EngineError, NotFound, from_os_error
from engine.model import BuildNotice
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import Index, Manifest, parse_manifest
from engine.oci.media import MANIFESTS
from engine.oci.reference import Reference
from engine.registry.artifact import Artifact
from engine.service.layouts import LayoutReader
from engine.service.meter import Meter
from engine.service.registries import registry_config
from engine.store.store import Store

Fetch = Callable[[Descriptor, int], bytes]


class _Opened:
    def __init__(self, where: str, steps: Mapping[str, Mapping[str, Any]], take: Callable[[Descriptor], None]) -> None:
        self.where, self.steps, self._take = where, steps, take

    def fetch(self, layer: Descriptor) -> None:
        self._take(layer)


class CacheImport:
    """Opens the caches that a build may use; `close` when it is done. One that cannot be had is a notice, not an error."""

    def __init__(self, store: Store, emit: Emit, cancel: CancelToken) -> None:
        self._store, self._emit, self._cancel = store, emit, cancel
        self._closing = contextlib.ExitStack()

    def close(self) -> None:
        self._closing.close()

    def open(self, specs: Sequence[CacheSpec]) -> list[CacheSource]:
        found: list[CacheSource] = []
        for spec in specs:
            try:
                opened, others = self._open(spec)
            except Cancelled:
                raise
            except EngineError as error:
                self._emit(BuildNotice(f"no cache from {spec.place}: {error.message}"))
                continue
            if opened.steps:
                found.append(opened)
            elif others:
                self._emit(
                    BuildNotice(
                        f"the cache {spec.place} was made by another builder: its keys match no step of this one"
                    )
                )
            else:
                self._emit(BuildNotice(f"{spec.place} holds no cache of steps"))
        return found

    def _open(self, spec: CacheSpec) -> tuple[_Opened, int]:
        if spec.kind == "local":
            return self._folder(spec)
        if spec.kind == "registry":
            return self._registry(spec)
        here = self._here(spec.place)
        if here is None:
            raise NotFound("no image of that name is here")
        return here

    # --- registry -----------------------------------------------------------------------------------------

    def _registry(self, spec: CacheSpec) -> tuple[_Opened, int]:
        reference = Reference.parse(spec.place)
        meter = Meter(f"fetch cache {reference.familiar}", self._emit)
        artifact = Artifact(
            reference,
            self._store.blobs,
            registry_config(self._store),
            progress=meter.blob,
            cancel=self._cancel,
        )
        self._closing.callback(artifact.close)
        try:
            found = _documents(artifact.top(), artifact.child, artifact.document)
        except Cancelled:
            raise
        except EngineError:
            here = self._here(spec.place)
            if here is None:
                raise
            return here
        except OSError as error:
            raise from_os_error(error, f"reading {spec.place}") from error
        return _Opened(reference.familiar, found.steps, artifact.blob), found.others

    def _here(self, name: str) -> tuple[_Opened, int] | None:
        """What an image of that name in this store carries: all its layers are here."""
        image = self._store.images.find(name)
        if image is None:
            return None
        manifest, config = self._store.images.manifest(image), self._store.images.config(image)
        found = _inline(config, manifest)
        return _Opened(name, found.steps, lambda layer: None), found.others

    # --- folder -------------------------------------------------------------------------------------------

    def _folder(self, spec: CacheSpec) -> tuple[_Opened, int]:
        try:
            root = os.open(spec.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._closing.callback(os.close, root)
            reader = LayoutReader(self._store, root, spec.place, self._cancel)
            entry = _tagged(reader.index(), spec)
            top = parse_manifest(reader.document(entry), entry.media_type)
            found = _documents(top, lambda d: parse_manifest(reader.document(d), d.media_type), reader.document)
        except OSError as error:
            raise from_os_error(error, f"reading {spec.place}") from error
        return _Opened(spec.place, found.steps, reader.take), found.others


def _tagged(index: Index, spec: CacheSpec) -> Descriptor:
    for entry in index.manifests:
        name = entry.annotations.get("org.opencontainers.image.ref.name", "")
        if (spec.digest and entry.digest == spec.digest) or (not spec.digest and name == spec.tag):
            return entry
    raise NotFound(f"it has no {spec.digest or spec.tag}")


def _documents(top: Manifest | Index, child: Callable[[Descriptor], Manifest | Index], document: Fetch) -> Found:
    """The cache behind a manifest or an index: a cache of its own, or those that images carry."""
    parts = (top.config, *top.layers) if isinstance(top, Manifest) else top.manifests
    configs = [part for part in parts if part.media_type == CONFIG]
    if configs:
        return read(document(configs[0], MAX_DOCUMENT), [part for part in parts if part.media_type != CONFIG])
    if isinstance(top, Manifest):
        return _inline(ImageConfig.parse(document(top.config, MAX_DOCUMENT)), top)
    steps: dict[str, Mapping[str, Any]] = {}
    others = 0
    for part in parts:
        if part.media_type not in MANIFESTS or (part.platform and part.platform.os == "unknown"):
            continue
        manifest = child(part)
        if isinstance(manifest, Manifest):
            found = _inline(ImageConfig.parse(document(manifest.config, MAX_DOCUMENT)), manifest)
            steps |= found.steps
            others += found.others
    return Found(steps, others)


def _inline(config: ImageConfig, manifest: Manifest) -> Found:
    text = config.document.get(INLINE)
    if not text:
        return Found({})
    if len(manifest.layers) != len(config.diff_ids):
        raise Corrupt("the image's manifest and its config name different numbers of layers")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Corrupt("the image's inline cache is not base64") from error
    return read_inline(raw, manifest.layers, config.diff_ids)
