"""Indexes of stacks of layers, kept in `trees/` of the data root by chain ID; the ones used least recently go beyond a budget."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.atomic import locked
from engine.oci.digest import Digest
from engine.store.tree_build import build_index
from engine.store.tree_index import TreeIndex, read_index, write_index

if TYPE_CHECKING:
    from engine.base.cancel import CancelToken
    from engine.store.layers import LayerStore

BUDGET = 1 << 30  # bytes


class TreeCache:
    def __init__(self, folder: Path, layers: LayerStore, tmp: Path, *, budget: int = BUDGET) -> None:
        self._folder, self._layers, self._tmp, self._budget = folder, layers, tmp, budget

    def get(self, chain: Digest) -> TreeIndex | None:
        """The index if it is there; nothing is made."""
        path = self._folder / chain.hex
        found = read_index(path)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return found

    def index(
        self,
        chains: Sequence[Digest],
        *,
        progress: Callable[[int], None] = lambda entries: None,
        cancel: CancelToken | None = None,
    ) -> TreeIndex:
        """Of the layers `chains`, bottom first, which are unpacked. One process makes it, others wait."""
        if not chains:
            return build_index(None, [])
        if found := self.get(chains[-1]):
            return found
        with locked(self._tmp / f"tree-{chains[-1].hex[:16]}.lock"):
            if found := self.get(chains[-1]):
                return found
            known, below = 0, None
            for number in range(len(chains) - 1, 0, -1):
                if below := self.get(chains[number - 1]):
                    known = number
                    break
            for chain in chains[known:]:
                below = build_index(below, self._layers.trees([chain]), progress=progress, cancel=cancel)
                write_index(self._folder / chain.hex, below)
            assert below is not None  # there is at least one layer
            self._prune(keep=chains[-1])
            return below

    def shallow(self, chains: Sequence[Digest], depth: int, *, cancel: CancelToken | None = None) -> TreeIndex:
        """The index if it is there, else one of the upper folders alone, which takes a moment and is kept nowhere."""
        found = self.get(chains[-1]) if chains else None
        for chain in chains if found is None else ():
            found = build_index(found, self._layers.trees([chain]), cancel=cancel, depth=depth)
        return found or build_index(None, [])

    def _prune(self, keep: Digest) -> None:
        """An index that somebody has open stays readable: its file is only unlinked."""
        with contextlib.suppress(OSError):
            found = sorted(
                (entry.stat().st_mtime, entry.stat().st_size, entry.path, entry.name)
                for entry in os.scandir(self._folder)
            )
            total = sum(size for _, size, _, _ in found)
            for _, size, path, name in found:
                if total <= self._budget:
                    return
                if name != keep.hex:
                    os.unlink(path)
                    total -= size
