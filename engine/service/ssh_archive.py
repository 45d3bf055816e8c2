"""Images to and from a host that forwards no ports: as an archive through its engine's `load` and `save`.

To the host only the layers go that it lacks: `docker load` and `podman load` open a layer's file only when they have no layer of
that chain (Docker's graph drivers do; where the load fails without them, as with containerd's store, all are sent). From the
host everything comes, for `save` always writes everything; gzip packs it on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import BinaryIO

from engine.archive.compression import compressor
from engine.base.cancel import CancelToken
from engine.errors import NotFound, Unavailable
from engine.model import LoadedImage, PullProgress
from engine.oci.chain import chain_ids
from engine.oci.digest import Digest
from engine.oci.reference import Reference
from engine.service.archives import ArchiveService
from engine.service.ssh_host import Host, capture, reading, writing
from engine.store.archive_save import Chosen, save
from engine.store.images import Image
from engine.store.store import Store

Emit = Callable[[PullProgress], None]

_HAVE = """
ids=$("$engine" image ls -q --no-trunc | sort -u)
echo "$engine"
[ -z "$ids" ] || "$engine" image inspect $ids
"""
_LOAD = """
gzip -dc | "$engine" load >&2 && echo "$engine"
"""
_SAVE = """
"$engine" save SOURCE | gzip -1
"""


def send(
    store: Store, archives: ArchiveService, host: Host, image: Image, target: str, cancel: CancelToken, emit: Emit
) -> str:
    """The image by `load` there, without the layers that are there. Returns the engine that took it."""
    engine, present = _layers_of(host)
    config = store.images.config(image)
    chosen = [Chosen(image, [Reference.parse(target)])]
    chains = chain_ids(config.diff_ids)
    layers = store.images.manifest(image).layers
    known = {layer.digest for layer, chain in zip(layers, chains, strict=True) if chain in present}
    known -= {layer.digest for layer, chain in zip(layers, chains, strict=True) if chain not in present}
    if engine == "workbench":
        known = set()

    def give(left_out: set[Digest]) -> Callable[[BinaryIO], None]:
        def write(out: BinaryIO) -> None:
            packed = compressor(out, "gzip")
            save(
                store,
                chosen,
                packed,
                cancel=cancel,
                progress=lambda digest, size: emit(PullProgress("", digest.short, "done", size, size)),
                left_out=left_out,
            )
            packed.close()

        return write

    script = Host(host.host, host.user, host.port, engine).script(_LOAD)
    if known:
        for digest in known:
            emit(PullProgress("", digest.short, "exists"))
        try:
            return writing(host, script, give(known), cancel).strip()
        except (Unavailable, NotFound):
            emit(PullProgress("", "", "resolving", text=f"{engine} on {host} wants every layer: all are sent"))
    return writing(host, script, give(set()), cancel).strip()


def _layers_of(host: Host) -> tuple[str, set[Digest]]:
    """The engine there, and the chains of layers that its images have."""
    engine, _, text = capture(host, host.script(_HAVE)).partition("\n")
    found: set[Digest] = set()
    try:
        for one in json.loads(text or "[]"):
            layers = (one.get("RootFS") or {}).get("Layers") or ()
            found.update(chain_ids([Digest.parse(layer) for layer in layers]))
    except (ValueError, AttributeError, TypeError):
        pass  # not known: all is sent
    return engine, found


def receive(
    archives: ArchiveService, store: Store, host: Host, engine: str, name: str, cancel: CancelToken, emit: Emit
) -> Image:
    """The image by `save` there."""
    loaded: list[LoadedImage] = []

    def note(event: PullProgress | LoadedImage) -> None:
        loaded.append(event) if isinstance(event, LoadedImage) else emit(event)

    script = Host(host.host, host.user, host.port, engine).script(_SAVE, SOURCE=name)
    with reading(host, script, cancel) as archive:
        archives.load(archive, note, cancel)
    if not loaded:
        raise Unavailable(f"{host}: {engine} sent no image")
    return store.images.get(loaded[0].digest)
