"""Progress of a transfer as front ends show it: bytes, rate and time left of each blob."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.model import PullProgress

if TYPE_CHECKING:
    from engine.oci.descriptor import Descriptor
    from engine.oci.digest import Digest
    from engine.registry.blob import BlobProgress

WINDOW = 5.0  # seconds over which the rate is taken: long enough to be steady, short enough to be true
_UNPACK_SECONDS = 0.1  # between two reports of one layer


class Meter:
    """Turns reports of blobs into `PullProgress`. Called from several threads."""

    def __init__(
        self, shown: str, emit: Callable[[PullProgress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shown, self._emit, self._clock = shown, emit, clock
        self._begun = False
        self._marks: dict[Digest, deque[tuple[float, int]]] = {}
        self._reported: dict[Digest, float] = {}
        self._lock = threading.Lock()

    def begun(self) -> None:
        """Said once, before anything else."""
        if not self._begun:
            self._begun = True
            self._emit(PullProgress(self._shown, "", "resolving"))

    def blob(self, blob: BlobProgress) -> None:
        rate, left = 0.0, None
        if blob.phase in ("downloading", "uploading"):
            rate = self._rate(blob.digest, blob.current)
            left = (blob.total - blob.current) / rate if rate else None
        text = f"Mounted from {blob.detail}" if blob.detail else ""
        self._emit(PullProgress(self._shown, blob.digest.short, blob.phase, blob.current, blob.total, text, rate, left))

    def unpacked(self, layer: Descriptor, done: int) -> None:
        """`done` plain bytes of a layer are on the disk."""
        now = self._clock()
        with self._lock:
            if now - self._reported.get(layer.digest, -1.0) < _UNPACK_SECONDS:
                return
            self._reported[layer.digest] = now
        self._emit(PullProgress(self._shown, layer.digest.short, "extracting", done))

    def _rate(self, digest: Digest, current: int) -> float:
        now = self._clock()
        with self._lock:
            marks = self._marks.setdefault(digest, deque())
            marks.append((now, current))
            while marks[0][0] < now - WINDOW and len(marks) > 2:
                marks.popleft()
            (start, before), (end, after) = marks[0], marks[-1]
        return (after - before) / (end - start) if end > start else 0.0
