"""Mending the store: only what `check` names is fetched or made again.

A damaged blob is taken out of the way first. A layer that was built here is written anew from its unpacked tree, if that gives the
very digest; everything else is pulled by digest from a registry that is known to have the image, which fetches the missing
blobs alone. A damaged tree is unpacked again from its blob. Files that are not the store's are named and left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.archive.diff import write_upper
from engine.archive.writer import LayerWriter
from engine.base.cancel import CancelToken
from engine.errors import EngineError
from engine.model import CheckFinding
from engine.oci.chain import chain_ids
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.media import OCI_LAYER
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.pull import pull
from engine.service.registries import registry_config
from engine.store.check import Problem
from engine.store.images import Image
from engine.store.store import Store


class RepairService:
    def __init__(self, store: Store, say: Callable[[str], None] = lambda text: None) -> None:
        self._store, self._say = store, say

    def check(self, cancel: CancelToken, *, files: bool = False) -> list[CheckFinding]:
        return [_finding(problem) for problem in self._store.check(cancel, files=files)]

    def repair(self, cancel: CancelToken, *, files: bool = False) -> list[CheckFinding]:
        """Mends what can be mended; every finding says what was done, and `mended` whether it is whole again."""
        found = self._mend_blobs(cancel)
        # Files last: their layers' blobs are whole by now, as far as they can be.
        if files:
            known = {(one.kind, one.path) for one in found}
            torn = [one for one in self._store.check(cancel, files=True, mend=True) if one.kind == "file"]
            left = {one.path for one in self._store.check(cancel, files=True) if one.kind == "file"} if torn else set()
            found += [_finding(one, mended=one.path not in left) for one in torn if (one.kind, one.path) not in known]
        return found

    def _mend_blobs(self, cancel: CancelToken) -> list[CheckFinding]:
        problems = self._store.check()
        why: dict[Digest, str] = {}
        with self._store.using():
            for problem in problems:
                if problem.digest is not None and problem.kind == "blob":
                    self._store.blobs.remove(problem.digest)
                elif problem.digest is not None and problem.kind == "layer":
                    self._store.layers.remove(problem.digest)
            for image in self._affected(problems):
                try:
                    self._mend(image, cancel)
                except EngineError as error:
                    why |= {problem.digest: error.message for problem in problems if problem.digest}
        left = {(problem.kind, problem.path) for problem in self._store.check()}
        return [
            _finding(
                problem, mended=(problem.kind, problem.path) not in left, why=why.get(problem.digest or Digest(""), "")
            )
            for problem in problems
        ]

    @staticmethod
    def _affected(problems: Sequence[Problem]) -> list[Image]:
        found = {image.digest: image for problem in problems for image in problem.images}
        return list(found.values())

    def _mend(self, image: Image, cancel: CancelToken) -> None:
        store = self._store
        if not self._documents(image):
            self._fetch(image, cancel)
        manifest, config = store.images.manifest(image), store.images.config(image)
        for layer, chain in zip(manifest.layers, chain_ids(config.diff_ids), strict=True):
            if not store.blobs.has(layer.digest):
                self._rebuild(layer, chain)
        if not all(store.blobs.has(layer.digest) for layer in manifest.layers):
            self._fetch(image, cancel)
        store.ensure_layers(manifest.layers, config.diff_ids, cancel=cancel)

    def _documents(self, image: Image) -> bool:
        return self._store.blobs.has(image.digest) and self._store.blobs.has(image.config_digest)

    def _rebuild(self, layer: Descriptor, chain: Digest) -> None:
        """A plain layer out of its tree: equal input gives equal bytes, or it was not made here."""
        record = self._store.layers.get(chain)
        if layer.media_type != OCI_LAYER or record is None or record.base is not None:
            return
        blob = self._store.blobs.ingest()
        try:
            writer = LayerWriter(blob)
            write_upper(self._store.layers.tree(chain), writer)
            writer.finish()
            if blob.digest() == layer.digest:
                blob.commit(layer.digest, layer.size)
                return
        except (EngineError, OSError):
            pass
        blob.abort()

    def _fetch(self, image: Image, cancel: CancelToken) -> None:
        """The image by digest, from any repository that has it. Raises the last registry's error, or `NotFound`."""
        names = [*self._store.images.repo_digests(image), *image.familiar_tags]
        last: EngineError | None = None
        for name in dict.fromkeys(Reference.parse(name).name for name in names):
            reference = Reference.parse(f"{name}@{image.digest}")
            try:
                pull(
                    reference,
                    self._store.blobs,
                    registry_config(self._store),
                    platform=Platform.host(),
                    progress=lambda one: None,
                    cancel=cancel,
                )
                return
            except EngineError as error:
                last = error
        raise last or EngineError(
            f"no registry is known to have image {image.config_digest.short}", hint="build it again, or remove it"
        )


def _finding(problem: Problem, *, mended: bool = False, why: str = "") -> CheckFinding:
    return CheckFinding(problem.kind, problem.path, problem.text, mended, "" if mended else why)
