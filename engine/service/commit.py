"""`diff` and `commit`: a container's changes, and an image made of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.archive.writer import LayerWriter
from engine.base.cancel import CancelToken
from engine.base.clock import rfc3339
from engine.build.changes import apply_changes
from engine.errors import Conflict, EngineError, InvalidInput, from_os_error
from engine.linux import idmap
from engine.model import Change, CommitRequest, ContainerSpec
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER
from engine.oci.reference import Reference
from engine.runtime.client import Runtime
from engine.service.images import is_base, tell
from engine.store.changes import find_changes, write_changes
from engine.store.images import Image
from engine.store.store import Store
from engine.store.view import LayerView


class Containers(Protocol):
    """What is needed of the container service."""

    def bundle(self, container_id: str) -> Path: ...
    def resolve(self, name: str) -> tuple[str, dict[str, Any]]: ...
    def lowers(self, container_id: str) -> Sequence[Path]: ...
    def image_of(self, container_id: str) -> Image: ...
    def spec(self, record: dict[str, Any]) -> ContainerSpec: ...
    def event(self, action: str, container_id: str, record: dict[str, Any], **more: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: Descriptor
    diff_id: Digest


class CommitService:
    def __init__(self, store: Store, runtime: Runtime, containers: Containers) -> None:
        self._store, self._runtime, self._containers = store, runtime, containers

    def changes(self, name: str) -> list[Change]:
        container_id, record = self._containers.resolve(name)
        try:
            with self._upper(container_id) as upper:
                return find_changes(upper, LayerView(self._containers.lowers(container_id)))
        except OSError as error:
            raise from_os_error(error, f"comparing container {record['name']} with its image") from error

    @contextlib.contextmanager
    def _upper(self, container_id: str) -> Iterator[int]:
        fd = os.open(self._containers.bundle(container_id) / "upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    # --- commit ---------------------------------------------------------------------------------------

    def commit(self, name: str, request: CommitRequest, cancel: CancelToken | None = None) -> Image:
        """An image of the container's image and its changes. Raises `InvalidInput` before anything is done."""
        container_id, record = self._containers.resolve(name)
        tag = Reference.parse(request.reference).with_default_tag() if request.reference else None
        if tag is not None and (tag.digest or is_base(tag)):
            raise InvalidInput(f"{request.reference} cannot name a committed image", hint="write NAME:TAG")
        base = self._containers.image_of(container_id)
        spec = self._containers.spec(record)
        config = apply_changes(container_config(self._store.images.config(base), spec), request.changes)
        try:
            with self._store.using():
                with self._paused(container_id, wanted=request.pause):
                    layer = self._layer(container_id, cancel or CancelToken())
                image = self._image(base, config, layer, record, request, tag)
        except OSError as error:
            raise from_os_error(error, f"committing container {record['name']}") from error
        shown = tag.familiar if tag is not None else ""
        tell(self._store, "create", image)
        if shown:
            tell(self._store, "tag", image, shown)
        told = {"comment": request.comment, "imageID": str(image.config_digest), "imageRef": shown}
        self._containers.event("commit", container_id, record, **told)
        return image

    @contextlib.contextmanager
    def _paused(self, container_id: str, *, wanted: bool) -> Iterator[None]:
        """A running container stands still meanwhile, so that what is kept belongs together."""
        state = self._runtime.state(self._containers.bundle(container_id))
        if not wanted or state.status != "running":
            yield
            return
        try:
            self._runtime.pause(container_id)
        except EngineError as error:
            # It ended, or was paused, in between; or an ordinary user has no control group that could be frozen (said in
            # `info`): the changes are read through descriptors, so that a moving tree does no harm.
            if not isinstance(error, Conflict) and not idmap.inside():
                raise
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(Conflict):
                self._runtime.unpause(container_id)

    def _layer(self, container_id: str, cancel: CancelToken) -> _Layer:
        with self._upper(container_id) as upper:
            changes = find_changes(upper, LayerView(self._containers.lowers(container_id)), cancel)
            blob = self._store.blobs.ingest()
            try:
                writer = LayerWriter(blob)
                write_changes(upper, changes, writer, cancel)
                written = writer.finish()
                size, digest = blob.size, blob.commit()
            except BaseException:
                blob.abort()
                raise
        return _Layer(Descriptor(OCI_LAYER, digest, size), written.diff_id)

    def _image(
        self,
        base: Image,
        config: ImageConfig,
        layer: _Layer,
        record: dict[str, Any],
        request: CommitRequest,
        tag: Reference | None,
    ) -> Image:
        now = rfc3339()
        history = History(now, " ".join(record["args"]), request.comment, author=request.author)
        config = config.with_step(history, layer.diff_id, now)
        if request.author:
            config = config.with_author(request.author)
        layers = [*self._store.images.manifest(base).layers, layer.descriptor]
        raw = config.to_bytes()
        manifest = build_manifest(Descriptor(OCI_CONFIG, self._store.blobs.put(raw), len(raw)), layers)
        records = self._store.ensure_layers(layers, config.diff_ids)
        self._store.layers.sync([entry.chain for entry in records])
        image = self._store.images.put(manifest, config, sum(entry.size for entry in records), [tag] if tag else [])
        known = list(self._store.images.steps(base))[: len(config.history) - 1]
        known += [{}] * (len(config.history) - 1 - len(known))
        self._store.images.put_steps(image.config_digest, [*known, {"parent": str(base.config_digest)}])
        return image


def container_config(image: ImageConfig, spec: ContainerSpec) -> ImageConfig:
    """The image's settings with the container's over them, as Docker keeps them in a container's Config."""
    env = {entry.partition("=")[0]: entry for entry in (*image.env, *spec.env)}
    entrypoint = spec.entrypoint if spec.entrypoint is not None else image.entrypoint
    inherited = image.cmd if spec.entrypoint is None else None
    command = spec.command if spec.command is not None else inherited
    ports = {*spec.exposed_ports, *spec.port_bindings}
    exposed = {port: {} for port in (*image.exposed_ports, *sorted(ports))}  # type: ignore[var-annotated]
    volumes = {path: {} for path in (*image.volumes, *spec.volumes)}  # type: ignore[var-annotated]
    labels = {**image.labels, **spec.labels}
    return image.with_config(
        Env=[entry for entry in env.values() if "=" in entry] or None,
        Entrypoint=list(entrypoint) if entrypoint else None,
        Cmd=list(command) if command else None,
        User=(spec.user if spec.user is not None else image.user) or None,
        WorkingDir=spec.working_dir or image.working_dir or None,
        Labels=labels or None,
        ExposedPorts=exposed or None,
        Volumes=volumes or None,
        StopSignal=spec.stop_signal or image.stop_signal or None,
        OnBuild=None,
    )
