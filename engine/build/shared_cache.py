"""The step cache of one build that also looks into caches from elsewhere (`--cache-from`), and knows what the build used.

What another cache says is believed only as far as it can be checked: its layer is fetched by digest, unpacked, and hashed to the
diff ID that the record names. A layer that cannot be had is a step that runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from engine.base.cancel import CancelToken
from engine.build.interfaces import Emit
from engine.build.step_cache import StepCache
from engine.errors import Cancelled, EngineError
from engine.model import BuildNotice
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.store.store import Store


class CacheSource(Protocol):
    """A cache that was opened: what it knows, by step key, and how its layers are had."""

    where: str
    steps: Mapping[str, Mapping[str, Any]]

    def fetch(self, layer: Descriptor) -> None:
        """The blob into the store, verified. Raises the engine's errors."""


class SharedCache(StepCache):
    """`open_sources` is called when the first step is not in the cache here: a build that needs nothing asks nobody."""

    def __init__(
        self, store: Store, open_sources: Callable[[], Sequence[CacheSource]], emit: Emit, cancel: CancelToken
    ) -> None:
        super().__init__(store)
        self._open, self._emit, self._cancel = open_sources, emit, cancel
        self._sources: Sequence[CacheSource] | None = None
        self._broken: set[str] = set()  # keys that could not be fetched
        self._lock = threading.Lock()
        self.used: dict[str, Mapping[str, Any]] = {}  # every step of this build with what it made

    def lookup(self, key: str) -> dict[str, Any] | None:
        document = super().lookup(key) or self._elsewhere(key)
        if document is not None:
            self.used[key] = document
        return document

    def put(self, key: str, document: Mapping[str, Any]) -> None:
        super().put(key, document)
        self.used[key] = dict(document)

    def _opened(self) -> Sequence[CacheSource]:
        with self._lock:
            if self._sources is None:
                self._sources = self._open()
            return self._sources

    def _elsewhere(self, key: str) -> dict[str, Any] | None:
        for source in self._opened():
            found = source.steps.get(key)
            if found is None or key in self._broken:
                continue
            document = dict(found)
            layer = Descriptor.from_json(document["layer"])
            try:
                source.fetch(layer)
                record = self._store.ensure_layer(
                    layer, Digest(document["diff_id"]), Digest(document["chain"]), cancel=self._cancel
                )
            except Cancelled:
                raise
            except EngineError as error:
                self._broken.add(key)
                self._emit(BuildNotice(f"the cache {source.where} has a step that cannot be used: {error.message}"))
                continue
            document["size"] = record.size
            super().put(key, document)
            return document
        return None
