"""What a service has to act on: the paths that changed and other reasons, until something has come of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Batch:
    """`rebuild` and `restart` are reasons beside changed files ("" for none). `saved` and `noticed` are monotonic seconds: when
    the newest of the files was written, and when the first of them was seen."""

    paths: set[Path] = field(default_factory=set)
    rebuild: str = ""
    restart: str = ""
    saved: float = 0.0
    noticed: float = 0.0

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Batch:
        found = set(paths)
        now = time.monotonic()
        return cls(found, noticed=now, saved=now - _age(found))

    def __bool__(self) -> bool:
        return bool(self.paths or self.rebuild or self.restart)

    def add(self, other: Batch) -> None:
        """`other` joins it; nothing of either is lost."""
        self.paths |= other.paths
        self.rebuild = other.rebuild or self.rebuild
        self.restart = other.restart or self.restart
        self.saved = max(self.saved, other.saved)
        self.noticed = max(self.noticed, other.noticed)


def _age(paths: Iterable[Path]) -> float:
    """Seconds since the newest of the files changed; 0 when none is there to tell."""
    newest = 0
    for path in paths:
        try:
            newest = max(newest, os.lstat(path).st_ctime_ns)
        except OSError:
            continue
    return min(max(time.time_ns() - newest, 0) / 1e9, 60.0) if newest else 0.0
