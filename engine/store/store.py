"""The store: everything under one data root, shared by any number of processes.

Writers (pull, build, create) hold the root's lock shared while they add content that nothing names yet; the sweep
takes it exclusively and never waits: where someone is at work, garbage stays until the next sweep. So no byte that a
running pull, build or container needs is ever removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.archive.compression import decompress
from engine.base.atomic import locked
from engine.base.cancel import CancelToken
from engine.errors import Unsupported, from_os_error
from engine.oci.chain import chain_ids
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.media import compression, is_foreign
from engine.store.blobs import BlobStore
from engine.store.images import Image, ImageStore
from engine.store.layers import LayerRecord, LayerStore
from engine.store.records import Records
from engine.store.volumes import VolumeStore

STALE_AFTER = 24 * 3600  # seconds after which a leftover in tmp/ belongs to nobody alive


@dataclass(frozen=True, slots=True)
class Problem:
    kind: str
    path: str
    text: str


class Store:
    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.root = root
            self.tmp = root / "tmp"
            self.containers = root / "containers"
            for folder in (self.tmp, self.containers, root / "oci"):
                folder.mkdir(mode=0o710, exist_ok=True)
            self.blobs = BlobStore(root / "oci", self.tmp)
            self.records = Records(root / "records.sqlite")
        except OSError as error:
            raise from_os_error(error, f"opening the data root {root}") from error
        self.layers = LayerStore(root / "layers", self.tmp)
        self.volumes = VolumeStore(root / "volumes", self.tmp)
        self.images = ImageStore(self.records, self.blobs)

    def close(self) -> None:
        self.records.close()

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Held while content is added that no record names yet."""
        with locked(self.root / "content.lock", shared=True):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Held while what no record names is removed. Raises BlockingIOError when somebody is `using` it."""
        with locked(self.root / "content.lock", blocking=False):
            yield

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        """The decompressed tar of a layer blob."""
        if is_foreign(layer.media_type):
            raise Unsupported(
                f"layer {layer.digest.short} is a foreign layer", hint="use an image whose layers its registry holds"
            )
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

        def unpack(layer: Descriptor, diff_id: Digest, chain: Digest) -> LayerRecord:
            if cancel:
                cancel.check()
            report = (lambda done: progress(layer, done)) if progress else None
            return self.layers.unpack(chain, diff_id, lambda: self.open_layer(layer), progress=report, cancel=cancel)

        return [unpack(*each) for each in zip(layers, diff_ids, chain_ids(diff_ids), strict=True)]

    def lowers(self, image: Image) -> list[Path]:
        """The image's layer trees, topmost first; unpacked where they are missing."""
        manifest, config = self.images.manifest(image), self.images.config(image)
        self.ensure_layers(manifest.layers, config.diff_ids)
        return [self.layers.tree(chain) for chain in reversed(chain_ids(config.diff_ids))]

    # --- sweep ------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Removes what nothing names: blobs, layers, leftovers. Returns bytes of blobs freed; 0 when someone is at work."""
        try:
            with self.alone():
                return self._sweep()
        except BlockingIOError:
            return 0

    def _sweep(self) -> int:
        blobs, chains = self._live()
        freed = 0
        for digest in self.blobs.digests():
            if digest not in blobs:
                freed += self.blobs.size(digest)
                self.blobs.remove(digest)
        for chain in self.layers.chains():
            if chain not in chains:
                self.layers.remove(chain)
        horizon = time.time() - STALE_AFTER
        for name in os.listdir(self.tmp):
            path = self.tmp / name
            if not name.endswith(".lock") and path.lstat().st_mtime < horizon:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return freed

    def _live(self) -> tuple[set[Digest], set[Digest]]:
        blobs: set[Digest] = set()
        chains: set[Digest] = set()
        for image in self.images.list():
            blobs |= {image.digest, image.config_digest}
            with contextlib.suppress(Exception):
                blobs |= {layer.digest for layer in self.images.manifest(image).layers}
                chains |= set(chain_ids(self.images.config(image).diff_ids))
        for row in self.records.read("SELECT document FROM cache"):
            entry = json.loads(row["document"])
            blobs.add(Digest(entry["layer"]["digest"]))
            chains.add(Digest(entry["chain"]))
        return blobs, chains

    # --- check ------------------------------------------------------------------------------------

    def check(self) -> list[Problem]:
        """Reads everything back: digests, records, layer folders. Changes nothing."""
        problems = [Problem("record", "records.sqlite", text) for text in self.records.integrity()]
        present = set()
        for digest in self.blobs.digests():
            present.add(digest)
            if self._rehash(digest) != digest:
                problems.append(Problem("blob", str(self.blobs.path(digest)), "its bytes do not hash to its name"))
        for image in self.images.list():
            problems.extend(self._check_image(image, present))
        for chain in self.layers.chains():
            damage = self.layers.describe_damage(chain)
            if damage:
                problems.append(Problem("layer", str(self.layers.root / chain.hex), damage))
        known = {"oci-layout", "index.json", "blobs"}
        foreign = [name for name in sorted(os.listdir(self.blobs.root)) if name not in known]
        problems += [Problem("foreign", str(self.blobs.root / name), "not a part of the store") for name in foreign]
        return problems

    def _check_image(self, image: Image, present: set[Digest]) -> list[Problem]:
        name = image.familiar_tags[0] if image.tags else image.config_digest.short
        try:
            wanted = [
                image.digest,
                image.config_digest,
                *(layer.digest for layer in self.images.manifest(image).layers),
            ]
        except Exception as error:
            return [Problem("record", name, str(error))]
        return [
            Problem("blob", str(self.blobs.path(d)), f"missing; image {name} needs it")
            for d in wanted
            if d not in present
        ]

    def _rehash(self, digest: Digest) -> Digest:
        import hashlib

        with open(self.blobs.path(digest), "rb", buffering=0) as blob:
            return Digest(f"sha256:{hashlib.file_digest(blob, 'sha256').hexdigest()}")
