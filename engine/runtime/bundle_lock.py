"""The lock of a container's bundle: who holds it may start the container, or read and write its files while it is stopped."""

from __future__ import annotations

import fcntl
import os
import time

from engine.runtime import state as states
from engine.runtime.launch import StartError

_LOCK_SECONDS = 30.0  # how long a start waits for whoever holds it


def take(bundle: str, container_id: str) -> int:
    """The descriptor that holds it. Raises StartError: another monitor has it."""
    lock = os.open(os.path.join(bundle, "monitor.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    # A monitor that has just recorded its container's end holds the lock for some milliseconds more; a copy into or
    # out of the stopped container, or a commit of it, holds it until it is done.
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            running = states.read(bundle).active
            if running or time.monotonic() > end:
                what = "is running already" if running else "is in use: its files are being copied"
                raise StartError(f"container {container_id[:12]} {what}") from None
            time.sleep(0.002)
