"""Layers unpacked while others still arrive: every layer is a tree of its own, so their order does not matter."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from engine.base.cancel import CancelToken
from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest
from engine.store.layers import LayerRecord
from engine.store.store import Store


@cache
def _pool() -> ThreadPoolExecutor:
    """One for the process: decompressing and hashing leave the interpreter's lock, so threads do spread over the cores."""
    return ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="unpack")


class Unpacking:
    """The layers of one pull. `image`, then `layer` for each as it arrives, then `records`; `close` whatever happened."""

    def __init__(self, store: Store, progress: Callable[[Descriptor, int], None], cancel: CancelToken) -> None:
        self._store, self._progress = store, progress
        self._stop = CancelToken()
        cancel.on_cancel(self._stop.cancel)
        self._manifest: Manifest | None = None
        self._diff_ids: tuple[Digest, ...] = ()
        self._chains: tuple[Digest, ...] = ()
        self._running: dict[int, Future[LayerRecord]] = {}

    def image(self, manifest: Manifest, config: ImageConfig) -> None:
        self._manifest, self._diff_ids = manifest, config.diff_ids
        self._chains = chain_ids(config.diff_ids)

    def layer(self, index: int, descriptor: Descriptor) -> None:
        """Begins with a layer that has arrived. Raises what an earlier one failed with: the rest need not be fetched."""
        for future in self._running.values():
            if future.done():
                future.result()
        there = self._store.layers.get(self._chains[index])
        if there is not None:
            self._running[index] = Future()
            self._running[index].set_result(there)
            return
        self._running[index] = _pool().submit(
            self._store.ensure_layer,
            descriptor,
            self._diff_ids[index],
            self._chains[index],
            progress=self._progress,
            cancel=self._stop,
        )

    def records(self) -> list[LayerRecord]:
        """All layers, bottom first, when they are unpacked."""
        return [self._running[index].result() for index in range(len(self._chains))]

    def close(self) -> None:
        """Nothing of this pull writes any more when this returns."""
        unfinished = [future for future in self._running.values() if not future.done()]
        if unfinished:
            self._stop.cancel()
        for future in unfinished:
            if not future.cancel():
                future.exception()
