"""Where a build's time goes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping

PHASES = ("scan", "solve", "run", "commit", "tag")


class Phases:
    """Seconds by phase, added up by several threads. What no phase claims is `solve`."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._lock = threading.Lock()

    def add(self, phase: str, seconds: float) -> None:
        with self._lock:
            self._seconds[phase] += seconds

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(phase, time.monotonic() - started)

    def result(self, total: float) -> Mapping[str, float]:
        """`total` is how long the whole build took."""
        with self._lock:
            rest = total - sum(seconds for phase, seconds in self._seconds.items() if phase != "solve")
            return {**self._seconds, "solve": max(rest, 0.0)}
