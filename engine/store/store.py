"""The store: everything under one data root, shared by any number of processes.

Work (pull, build, create, push) holds a lease while it adds or relies on content that nothing names yet, and the sweep leaves
what a lease claims: so no byte that a running pull, build or container needs is ever removed, and garbage goes beside them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from engine.base.cancel import CancelToken
from engine.base.lazy import part
from engine.errors import EngineError, StorageFull, Unsupported, from_os_error, is_full
from engine.linux.placement import spread_below
from engine.oci.digest import Digest
from engine.store.blobs import BlobStore
from engine.store.leases import Leases
from engine.store.records import Records
from engine.store.recover import recover
from engine.store.unsynced import Unsynced

if TYPE_CHECKING:
    from engine.oci.descriptor import Descriptor
    from engine.store.check import Problem
    from engine.store.images import Image, ImageStore
    from engine.store.indexes import Indexes
    from engine.store.layers import LayerRecord, LayerStore
    from engine.store.packed import Packed
    from engine.store.served import Served
    from engine.store.volumes import VolumeStore

CLOSING = 0.2  # seconds that closing waits for the disk


class Store:
    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.root = root
            self.tmp = root / "tmp"
            self.containers = root / "containers"
            if not self.tmp.exists():
                self.tmp.mkdir(mode=0o710, exist_ok=True)
                spread_below(self.tmp)  # layers and volumes are made here, and moved to their places
            for folder in (self.tmp, self.containers, root / "oci"):
                folder.mkdir(mode=0o710, exist_ok=True)
            self.leases = Leases(root)
            self.unsynced = Unsynced(root)
            self.blobs = BlobStore(root / "oci", self.tmp, self.leases, self.unsynced)
            self.records = Records(root / "records.sqlite")
        except OSError as error:
            raise from_os_error(error, f"opening the data root {root}") from error
        self.unsynced.before_flush = self._before_flush
        self.closing: list[Callable[[], object]] = []  # of what others keep for as long as this is open
        recover(self)

    # Loaded when first used: a command is a process, and many of them need one or none of these.

    @part
    def layers(self) -> LayerStore:
        from engine.store.layers import LayerStore

        return LayerStore(self.root / "layers", self.tmp, self.leases, self.unsynced)

    @part
    def volumes(self) -> VolumeStore:
        from engine.store.volumes import VolumeStore

        return VolumeStore(self.root / "volumes", self.tmp)

    @part
    def images(self) -> ImageStore:
        from engine.store.images import ImageStore

        return ImageStore(self.records, self.blobs, self.unsynced)

    @part
    def indexes(self) -> Indexes:
        from engine.store.indexes import Indexes

        return Indexes(self.records, self.blobs)

    @part
    def packed(self) -> Packed:
        from engine.store.packed import Packed

        return Packed(self.records, self.blobs)

    @part
    def served(self) -> Served:
        from engine.store.served import Served

        return Served(self.records, self.blobs, self.images, self.indexes)

    def close(self) -> None:
        for close in self.closing:
            close()
        self.unsynced.close(CLOSING)
        self.records.close()
        self.leases.close()

    def _before_flush(self) -> Callable[[Sequence[str]], None]:
        images = self.images.unsynced()

        def after(names: Sequence[str]) -> None:
            self.images.note_synced(images)
            self.layers.note_synced(Digest(f"sha256:{name[6:]}") for name in names if name.startswith("layer-"))

        return after

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Held while content is added or relied upon that no record names yet.

        Where the disk was too small for it, what was added goes again: so the next, smaller thing has room.
        """
        full = False
        try:
            with self.leases.hold():
                yield
        except (OSError, StorageFull) as error:
            full = is_full(error)
            raise
        finally:
            if full:
                with contextlib.suppress(OSError, EngineError):
                    self.sweep()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Held while what no record names is removed. Raises BlockingIOError when somebody is `using` it."""
        with self.leases.alone():
            yield

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        """The decompressed tar of a layer blob."""
        from engine.oci.media import compression, is_foreign

        if is_foreign(layer.media_type):
            raise Unsupported(
                f"layer {layer.digest.short} is a foreign layer", hint="use an image whose layers its registry holds"
            )
        from engine.archive.compression import decompress  # only what reads layers needs it

        return decompress(self.blobs.open(layer.digest), compression(layer.media_type))

    def ensure_layers(
        self,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[Digest],
        *,
        progress: Callable[[Descriptor, int], None] | None = None,
        cancel: CancelToken | None = None,
    ) -> list[LayerRecord]:
        """Every layer unpacked, bottom first. Those that are there cost one stat each."""

        from engine.oci.chain import chain_ids

        chains = chain_ids(diff_ids)
        return [
            self.ensure_layer(*each, progress=progress, cancel=cancel)
            for each in zip(layers, diff_ids, chains, strict=True)
        ]

    def ensure_layer(
        self,
        layer: Descriptor,
        diff_id: Digest,
        chain: Digest,
        *,
        progress: Callable[[Descriptor, int], None] | None = None,
        cancel: CancelToken | None = None,
    ) -> LayerRecord:
        """One layer unpacked; those below it need not be, for each is a tree of its own."""
        if cancel:
            cancel.check()
        report = (lambda done: progress(layer, done)) if progress else None
        return self.layers.unpack(chain, diff_id, lambda: self.open_layer(layer), progress=report, cancel=cancel)

    def lowers(self, image: Image) -> list[Path]:
        """The image's layer trees, topmost first; unpacked where they are missing."""
        manifest, config = self.images.manifest(image), self.images.config(image)
        self.ensure_layers(manifest.layers, config.diff_ids)
        from engine.oci.chain import chain_ids

        return self.layers.trees(chain_ids(config.diff_ids))

    # --- garbage and damage -------------------------------------------------------------------------

    def sweep(self, *, dry_run: bool = False) -> int:
        """Removes what nothing names and nobody claims; returns the bytes freed (or that would be)."""
        if not dry_run:
            self.unsynced.settle_now()  # what replaced the garbage is on the disk before the garbage goes
        from engine.store.collect import sweep

        freed = sweep(self, dry_run=dry_run)
        if not dry_run:
            self.images.catch_up()
        return freed

    def check(self, cancel: CancelToken | None = None, *, files: bool = False, mend: bool = False) -> list[Problem]:
        """Reads everything back: digests, records, layer folders, with `files` what is in them. Only `mend` changes anything."""
        from engine.store.check import check  # loaded when it is asked for

        return check(self, cancel, files=files, mend=mend)
