"""Python's collector of reference cycles, at times that nobody feels.

A full collection looks at every object that there is: 20 to 60 ms in the middle of whatever the user does, and under load every
few seconds. What the app begins with is put out of the collector's sight (`gc.freeze`), full collections come when no key was
pressed for a moment, and what outlives one of these is put out of sight too until the next.
"""

from __future__ import annotations

import gc
import time

YOUNG = (
    5_000,
    20,
    100_000,
)  # thresholds: a young collection takes 1 ms, a middle one 5 to 10, and a full one never comes by itself
LOOK = 5.0  # seconds between two looks whether there is something to collect
QUIET = 2.0  # seconds without a key
ENOUGH = 20  # young collections since the last full one: less is not worth it, and an app at rest does nothing
MUCH = 400  # so many, and it is done whatever the user does


class Garbage:
    def __init__(self) -> None:
        self.touched = 0.0  # when the last key came (time.monotonic)
        self._done = 0

    def begin(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*YOUNG)
        gc.enable()  # who started the app may have left it to this
        self._done = _collections()

    def look(self) -> None:
        new = _collections() - self._done
        if new > MUCH or (new > ENOUGH and time.monotonic() - self.touched > QUIET):
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._done = _collections()

    def end(self) -> None:
        """As Python has it: for who runs several apps in one process (tests)."""
        gc.unfreeze()
        gc.set_threshold(700, 10, 10)


def _collections() -> int:
    return int(gc.get_stats()[0]["collections"])
