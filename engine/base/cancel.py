"""A token that tells long work to stop, from any thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from engine.errors import Cancelled


class CancelToken:
    """Set once, never reset. `check()` raises `Cancelled`; `on_cancel` runs a callback (at once if already set)."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            # Within the lock: whoever leaves `calling` may then close what the callback uses.
            for callback in list(self._callbacks):
                callback()
            self._callbacks.clear()

    def check(self) -> None:
        if self._event.is_set():
            raise Cancelled("cancelled")

    def wait(self, seconds: float) -> bool:
        """Sleeps up to `seconds`; true when cancelled meanwhile."""
        return self._event.wait(seconds)

    @contextlib.contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """`callback` runs when this is cancelled within the block; afterwards it is forgotten, or has ended."""
        self.on_cancel(callback)
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()
