"""Folders of removed containers: nobody finds them any more, and their files go one by one."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.lazy import lazy

if TYPE_CHECKING:
    import shutil
else:
    shutil = lazy("shutil")


class Graves:
    """Empties graves at once, or (`beside`) on a thread of its own after the answer: for a program that stays. What a killed one
    leaves goes with the next look at all containers (`Life.reconcile`)."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def beside(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="engine-graves", daemon=True)
            self._thread.start()

    def bury(self, grave: Path, *, beside: bool = True) -> None:
        """`beside` False: it is empty on return, whatever else is so."""
        if self._thread is None or not beside:
            shutil.rmtree(grave, ignore_errors=True)
        else:
            self._queue.put(grave)

    def _run(self) -> None:
        while (grave := self._queue.get()) is not None:
            shutil.rmtree(grave, ignore_errors=True)

    def close(self) -> None:
        """Returns when all are empty."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
