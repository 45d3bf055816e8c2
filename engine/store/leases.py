"""Leases: what running work of any process needs, so that collecting garbage beside it takes nothing away.

A lease is a file under `leases/` that its owner holds with flock(2): when the owner dies, however it dies, the lock is gone and so
is the lease. In it stands one line for each blob and layer that the owner has asked for or added. Asking and looking is one
step under the shared `gc.lock`, choosing and removing one under the exclusive: so either the collector sees the claim, or
the owner sees that the thing is gone and fetches it anew. No clock has a part in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.base.atomic import locked
from engine.base.lazy import lazy

if TYPE_CHECKING:
    import secrets
    import shutil
else:
    secrets = lazy("secrets")
    shutil = lazy("shutil")

T = TypeVar("T")


@dataclass(slots=True)
class _Lease:
    """`fd` holds the lock, and takes the lines; `names` is what stands in it."""

    fd: int
    names: set[str] = field(default_factory=set)


class _Shared:
    """`gc.lock`, held shared by any number of this process's threads through one descriptor."""

    def __init__(self, path: Path) -> None:
        self._path, self._fd, self._holders = path, -1, 0
        self._mutex = threading.Lock()

    def __enter__(self) -> None:
        with self._mutex:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not self._holders:
                fcntl.flock(self._fd, fcntl.LOCK_SH)
            self._holders += 1

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._holders -= 1
            if not self._holders:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._mutex:
            if self._fd >= 0 and not self._holders:
                os.close(self._fd)
                self._fd = -1


class Leases:
    """The leases of one data root. `claim` is called for every blob and layer that work relies on."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "leases"
        self._gc = root / "gc.lock"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._shared = _Shared(self._gc)
        self._active: list[_Lease] = []
        self._mutex = threading.Lock()

    def close(self) -> None:
        self._shared.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """What is claimed inside stays until the end. Several at once in one process are fine."""
        path = f"{self._folder}/{secrets.token_hex(8)}"
        with self._shared:
            lease = _Lease(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            fcntl.flock(lease.fd, fcntl.LOCK_EX)
        with self._mutex:
            self._active.append(lease)
        try:
            yield
        finally:
            with self._mutex:
                self._active.remove(lease)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(lease.fd)

    def claim(self, name: str, look: Callable[[], T]) -> T:
        """The result of `look` (is it there?), with `name` claimed by every lease that this process holds."""
        if all(name in lease.names for lease in tuple(self._active)):
            return look()
        with self._shared:
            with self._mutex:  # a lease that ends is taken from the list first, and closed after that
                for lease in self._active:
                    if name not in lease.names:
                        os.write(lease.fd, f"{name}\n".encode())
                        lease.names.add(name)
            return look()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[frozenset[str]]:
        """Yields every claimed name, while nobody can claim. Renames only: what takes time is done afterwards."""
        with locked(self._gc):
            claimed: set[str] = set()
            for lease in self._folder.iterdir():
                if self._alive(lease):
                    with contextlib.suppress(FileNotFoundError):  # it ended just now, and its work is recorded
                        claimed.update(lease.read_text().split("\n"))
                elif lease.is_dir():
                    shutil.rmtree(lease, ignore_errors=True)  # the form that leases had before
                else:
                    lease.unlink(missing_ok=True)
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
            fd = os.open(lease, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
