"""Leases: what running work of any process needs, so that collecting garbage beside it takes nothing away.

A lease is a folder under `leases/` whose lock file its owner holds with flock(2): when the owner dies, however it dies, the
lock is gone and so is the lease. In the folder stands one empty file for each blob and layer that the owner has asked for or
added. Asking and looking is one step under the shared `gc.lock`, choosing and removing one under the exclusive: so either the
collector sees the claim, or the owner sees that the thing is gone and fetches it anew. No clock has a part in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from engine.base.atomic import locked

T = TypeVar("T")
_OWNER = "owner.lock"


class Leases:
    """The leases of one data root. `claim` is called for every blob and layer that work relies on."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "leases"
        self._gc = root / "gc.lock"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._active: dict[Path, set[str]] = {}
        self._mutex = threading.Lock()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """What is claimed inside stays until the end. Several at once in one process are fine."""
        lease = self._folder / secrets.token_hex(8)
        with locked(self._gc, shared=True):
            lease.mkdir(mode=0o700)
            owner = os.open(lease / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(owner, fcntl.LOCK_EX)
        with self._mutex:
            self._active[lease] = set()
        try:
            yield
        finally:
            with self._mutex:
                del self._active[lease]
            shutil.rmtree(lease, ignore_errors=True)
            os.close(owner)

    def claim(self, name: str, look: Callable[[], T]) -> T:
        """The result of `look` (is it there?), with `name` claimed by every lease that this process holds."""
        with self._mutex:
            missing = [lease for lease, names in self._active.items() if name not in names]
        if not missing:
            return look()
        with locked(self._gc, shared=True):
            for lease in missing:
                with contextlib.suppress(FileNotFoundError):  # the lease ended meanwhile
                    os.close(os.open(lease / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            found = look()
        with self._mutex:
            for lease in missing:
                if lease in self._active:
                    self._active[lease].add(name)
        return found

    @contextlib.contextmanager
    def collecting(self) -> Iterator[frozenset[str]]:
        """Yields every claimed name, while nobody can claim. Renames only: what takes time is done afterwards."""
        with locked(self._gc):
            claimed: set[str] = set()
            for lease in self._folder.iterdir():
                if self._alive(lease):
                    with contextlib.suppress(FileNotFoundError):  # it ended just now, and its work is recorded
                        claimed.update(os.listdir(lease))
                else:
                    shutil.rmtree(lease, ignore_errors=True)
            yield frozenset(claimed)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Held while nobody has a lease, and nobody can take one. Raises `BlockingIOError` when somebody has."""
        with locked(self._gc):
            if any(self._alive(lease) for lease in self._folder.iterdir()):
                raise BlockingIOError("somebody is at work on the store")
            yield

    @staticmethod
    def _alive(lease: Path) -> bool:
        try:
            with locked(lease / _OWNER, blocking=False):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
