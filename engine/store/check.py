"""Reading the store back: digests, records, layer folders, and what does not belong there."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.archive.reader import apply_layer
from engine.base.cancel import CancelToken
from engine.base.lazy import lazy
from engine.errors import Corrupt, EngineError
from engine.oci.chain import chain_ids
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.store.images import Image
from engine.store.tree_check import differences, folder_for, put_back

if TYPE_CHECKING:
    import hashlib

    from engine.store.store import Store
else:
    hashlib = lazy("hashlib")

_LAYOUT = {"oci-layout", "index.json", "blobs"}


@dataclass(frozen=True, slots=True)
class Problem:
    """`kind` is blob, layer, file (of an unpacked layer), record or foreign. `digest` names the blob or chain, `images` who needs it."""

    kind: str
    path: str
    text: str
    digest: Digest | None = None
    images: tuple[Image, ...] = ()


def check(store: Store, cancel: CancelToken | None = None, *, files: bool = False, mend: bool = False) -> list[Problem]:
    """Every problem. Changes nothing; holds a lease, so that no sweep makes a blob seem missing. `files`: unpacked layers are compared
    file by file with their blobs, each unpacked beside for that; with `mend` what differs there is put right at once."""
    with store.using():
        return _Check(store, cancel or CancelToken(), files=files, mend=mend).run()


class _Check:
    def __init__(self, store: Store, cancel: CancelToken, *, files: bool, mend: bool) -> None:
        self._store, self._cancel, self._files, self._mend = store, cancel, files, mend
        self._sources: dict[Digest, tuple[Descriptor, Digest, tuple[Digest, ...]]] = {}  # by chain
        self._images = store.images.list()
        self._needs: dict[Digest, list[Image]] = {}
        self._chains: dict[Digest, list[Image]] = {}

    def run(self) -> list[Problem]:
        problems = [Problem("record", "records.sqlite", text) for text in self._store.records.integrity()]
        problems += [problem for image in self._images if (problem := self._needed(image))]
        return [*problems, *self._blobs(), *self._layers(), *self._foreign()]

    def _needed(self, image: Image) -> Problem | None:
        """Notes what an image needs; a problem when its own documents contradict each other."""
        store = self._store
        for digest in (image.digest, image.config_digest):
            self._needs.setdefault(digest, []).append(image)
        try:
            manifest = store.images.manifest(image)
            for layer in manifest.layers:
                self._needs.setdefault(layer.digest, []).append(image)
            config = store.images.config(image)
        except EngineError:
            return None  # the blob that is damaged or missing is named by itself
        chains = chain_ids(config.diff_ids)
        for number, chain in enumerate(chains):
            self._chains.setdefault(chain, []).append(image)
            if number < len(manifest.layers):
                self._sources.setdefault(chain, (manifest.layers[number], config.diff_ids[number], chains[:number]))
        if len(config.diff_ids) != len(manifest.layers):
            text = f"its config names {len(config.diff_ids)} layers, its manifest {len(manifest.layers)}"
            return Problem("record", _name(image), text, image.digest, (image,))
        return None

    def _blobs(self) -> list[Problem]:
        found = []
        present = set()
        folder = self._store.blobs.root / "blobs/sha256"
        for name in sorted(os.listdir(folder)):
            digest = Digest(f"sha256:{name}")
            path = folder / name
            if not path.is_file() or len(name) != 64:
                found.append(Problem("foreign", str(path), "not a blob"))
                continue
            present.add(digest)
            if rehash(path) != digest:
                users = tuple(self._needs.get(digest, ()))
                text = "its bytes do not hash to its name" + _needed_by(users)
                found.append(Problem("blob", str(path), text, digest, users))
        for digest, needing in self._needs.items():
            if digest not in present:
                text = f"missing; image {_name(needing[0])} needs it"
                found.append(Problem("blob", str(self._store.blobs.path(digest)), text, digest, tuple(needing)))
        return found

    def _layers(self) -> list[Problem]:
        found = []
        for name in sorted(os.listdir(self._store.layers.root)):
            path = self._store.layers.root / name
            if len(name) != 64:
                found.append(Problem("foreign", str(path), "not a layer"))
                continue
            chain = Digest(f"sha256:{name}")
            damage = self._store.layers.describe_damage(chain)
            if damage:
                users = tuple(self._chains.get(chain, ()))
                found.append(Problem("layer", str(path), damage + _needed_by(users), chain, users))
            elif self._files and chain in self._sources:
                found += self._differing(chain)
        return found

    def _differing(self, chain: Digest) -> list[Problem]:
        """Files of an unpacked layer that are not its blob's."""
        store, (layer, diff_id, below) = self._store, self._sources[chain]
        record = store.layers.peek(chain)
        if record is None or not store.blobs.has(layer.digest):
            return []  # unpacked anew when it is needed; a blob that is missing is named by itself
        with folder_for(store.tmp, f"check-{secrets.token_hex(8)}") as place:
            fresh, grave = place / "fresh", place / "grave"
            fresh.mkdir(mode=0o755)
            grave.mkdir()
            try:
                with store.open_layer(layer) as tar:
                    if apply_layer(tar, fresh, cancel=self._cancel).diff_id != diff_id:
                        return []
            except Corrupt:
                return []  # the blob is named by itself
            # Of a tree that stands on another, together they are the layer.
            under = ([store.layers.tree(record.base)] if record.base else []) + store.layers.trees(below)
            found = list(differences(fresh, store.layers.tree(chain), under, self._cancel, base=bool(record.base)))
            if self._mend:
                put_back(fresh, store.layers.tree(chain), found, grave)
        users = tuple(self._chains.get(chain, ()))
        return [
            Problem("file", f"{store.layers.tree(chain)}/{one.path}", one.said + _needed_by(users), chain, users)
            for one in found
        ]

    def _foreign(self) -> list[Problem]:
        root = self._store.blobs.root
        return [
            Problem("foreign", str(root / name), "not a part of the store")
            for name in sorted(os.listdir(root))
            if name not in _LAYOUT
        ]


def rehash(path: Path) -> Digest:
    with open(path, "rb", buffering=0) as blob:
        return Digest(f"sha256:{hashlib.file_digest(blob, 'sha256').hexdigest()}")


def _name(image: Image) -> str:
    return image.familiar_tags[0] if image.tags else image.config_digest.short


def _needed_by(users: tuple[Image, ...]) -> str:
    return f"; image {_name(users[0])} needs it" if users else ""
