"""Where a build's result goes beyond this store: to registries (`--push`), and its cache to a registry or a folder (`--cache-to`)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from engine.base.cancel import CancelToken
from engine.build.cache_format import CONFIG, nodes_of, write
from engine.build.cache_specs import CacheSpec
from engine.build.compressing import compressed_image, compressed_layer
from engine.build.interfaces import Emit
from engine.build.options import pushes
from engine.build.result import Outcome
from engine.errors import Cancelled, EngineError, from_os_error
from engine.model import BuildNotice, BuildRequest, PullProgress
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, build_index, build_manifest, parse_manifest
from engine.oci.reference import Reference
from engine.registry.push import push
from engine.service.meter import Meter
from engine.service.registries import registry_config
from engine.service.transfers import TransferService
from engine.store.store import Store
from engine.store.uploads import Uploads

_REF_NAME = "org.opencontainers.image.ref.name"


class Delivery:
    """The way out of one build. Called while the store's lease is held."""

    def __init__(self, store: Store, request: BuildRequest, emit: Emit, cancel: CancelToken) -> None:
        self._store, self._request, self._emit, self._cancel = store, request, emit, cancel
        self._transfers = TransferService(store)

    # --- images -------------------------------------------------------------------------------------------

    def push(self, outcome: Outcome) -> None:
        """Pushes under every name. Raises what a push raises."""
        for output in filter(pushes, self._request.outputs):
            own = tuple(name for name in output.options.get("name", "").split(",") if name)
            top = self._compressed(outcome, output.options.get("compression", ""))
            by_digest = output.options.get("push-by-digest", "") == "true"
            for name in own or self._request.tags:
                reference = Reference.parse(name).with_default_tag()
                if by_digest:
                    reference = Reference.parse(f"{reference.name}@{top.digest}")
                self._push(reference, top)
            for name in own or self._request.tags:
                repository = Reference.parse(name).name
                image = self._store.images.find(str(outcome.usual.manifest.digest))
                if image is not None and isinstance(top, Manifest):
                    self._store.images.put_repo_digest(image, f"{repository}@{top.digest}")

    def _compressed(self, outcome: Outcome, kind: str) -> Manifest | Index:
        """`kind` "" is what a later `push` of the image would send: the digests are the same."""
        image = self._store.images.find(str(outcome.usual.manifest.digest))
        if not kind and image is not None:
            return self._transfers.packed(image, outcome.top, self._emit, self._cancel)
        if kind in ("", "uncompressed"):
            return outcome.top
        found = [compressed_image(self._store, result.manifest, kind, self._cancel) for result in outcome.results]
        if len(found) == 1:
            return found[0]
        return build_index(
            [
                Descriptor(manifest.media_type, manifest.digest, manifest.size, result.platform)
                for manifest, result in zip(found, outcome.results, strict=True)
            ]
        )

    def _push(self, reference: Reference, top: Manifest | Index, shown: str = "") -> None:
        shown = shown or reference.familiar
        digest = push(
            reference,
            top,
            self._store.blobs,
            registry_config(self._store),
            progress=Meter(f"push {shown}", self._emit).blob,
            mounts=lambda: self._transfers.neighbours(reference),
            journal=Uploads(self._store.tmp),
            cancel=self._cancel,
        )
        text = f"pushed {shown}: digest: {digest} size: {top.size}"
        self._emit(PullProgress(f"push {shown}", "", "done", top.size, top.size, text))

    # --- caches -------------------------------------------------------------------------------------------

    def export_cache(self, spec: CacheSpec, outcome: Outcome, steps: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises what a push or writing a folder raises, unless the spec says that errors are to be passed over."""
        try:
            self._export(spec, outcome, steps)
        except Cancelled:
            raise
        except (EngineError, OSError) as error:
            told = (
                error if isinstance(error, EngineError) else from_os_error(error, f"writing the cache to {spec.place}")
            )
            if not spec.ignore_error:
                raise told from error
            self._emit(BuildNotice(f"the cache was not written to {spec.place}: {told.message}"))

    def _export(self, spec: CacheSpec, outcome: Outcome, steps: Mapping[str, Mapping[str, Any]]) -> None:
        nodes = nodes_of(outcome.states)
        wanted = set(nodes) if spec.every_stage else outcome.chains()
        chosen = {key: step for key, step in steps.items() if step["chain"] in wanted and step["chain"] in nodes}
        blobs: dict[Digest, Descriptor] = {}
        for node in nodes.values() if spec.compression != "uncompressed" else ():
            if spec.every_stage or _in(node.layer, outcome):
                blobs[node.layer.digest] = compressed_layer(self._store, node.layer, spec.compression, self._cancel)
        raw, layers = write(chosen, nodes, blobs)
        config = Descriptor(CONFIG, self._store.blobs.put(raw), len(raw))
        top = build_manifest(config, layers) if spec.as_manifest else build_index([*layers, config])
        self._store.blobs.put(top.raw)
        if spec.kind == "registry":
            reference = Reference.parse(spec.place)
            self._push(reference, top, f"cache {reference.familiar}")
        else:
            self._write_folder(Path(spec.place), spec.tag, top, [*layers, config])
            self._emit(BuildNotice(f"cache of {len(chosen)} steps written to {spec.place}"))

    def _write_folder(self, folder: Path, tag: str, top: Manifest | Index, parts: list[Descriptor]) -> None:
        """An OCI layout; other tags in it stay."""
        blobs = folder / "blobs/sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        for part in (*parts, top.descriptor):
            self._cancel.check()
            place = blobs / part.digest.hex
            if place.exists() and place.stat().st_size == part.size:
                continue
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            try:
                shutil.copyfile(self._store.blobs.path(part.digest), temporary)
                os.rename(temporary, place)
            finally:
                temporary.unlink(missing_ok=True)
        entry = {**top.descriptor.to_json(), "annotations": {_REF_NAME: tag}}
        others = [one.to_json() for one in _entries(folder) if one.annotations.get(_REF_NAME) != tag]
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [*others, entry],
        }
        write_atomic(folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)
        write_atomic(folder / "index.json", json.dumps(document).encode(), 0o644)


def _in(layer: Descriptor, outcome: Outcome) -> bool:
    return any(layer.digest == one.digest for result in outcome.results for one in result.manifest.layers)


def _entries(folder: Path) -> tuple[Descriptor, ...]:
    try:
        document = parse_manifest((folder / "index.json").read_bytes())
    except FileNotFoundError:
        return ()
    return document.manifests if isinstance(document, Index) else ()
