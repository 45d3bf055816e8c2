"""The folders of `RUN --mount=type=cache`: one for each id, kept across builds, never part of a layer.

Their names are digests of what identifies them, so no id can name a place outside (CVE-2024-9675). A folder in use is held by a
lock of its `lock` file: shared for `shared`, exclusive for `locked`; `private` takes the first folder of its id that is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.base.atomic import write_atomic
from engine.base.cancel import CancelToken
from engine.build.dockerfile.mounts import Sharing

_WAIT = 0.05  # seconds between tries for a lock that another build holds
MAX_PRIVATE = 1000


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What identifies a cache and how it begins. `base` names the tree it is filled from, "" for an empty one."""

    id: str
    sharing: Sharing
    base: str = ""
    owner: tuple[int, int, int] | None = None  # uid, gid, mode of its top when it is made

    def digest(self, number: int) -> str:
        parts = [self.id, self.base, *(self.owner or ())]
        if self.sharing == "private" and number:
            parts.append(f"private {number}")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class CacheMounts:
    def __init__(self, root: Path, cancel: CancelToken) -> None:
        """`root` is the data root's folder for them."""
        self._root, self._cancel = root, cancel

    @contextlib.contextmanager
    def use(self, spec: CacheSpec, fill: Callable[[Path], None]) -> Iterator[Path]:
        """The cache's folder, held while the context lasts. `fill` puts the first content into a new one."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        fd, folder = self._take(spec)
        try:
            self._prepare(spec, folder, fill)
            yield folder / "data"
        finally:
            os.close(fd)

    def _take(self, spec: CacheSpec) -> tuple[int, Path]:
        number = 0
        while True:
            folder = self._root / spec.digest(number)
            folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            how = fcntl.LOCK_SH if spec.sharing == "shared" else fcntl.LOCK_EX
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                self._cancel.check()
                if spec.sharing == "private" and number < MAX_PRIVATE:
                    number += 1
                else:
                    self._cancel.wait(_WAIT)
                continue
            if (folder / "lock").exists():  # not removed between the two calls
                return fd, folder
            os.close(fd)

    def _prepare(self, spec: CacheSpec, folder: Path, fill: Callable[[Path], None]) -> None:
        """Makes `data` under a lock of its own, since several may share the folder."""
        fd = os.open(folder / "making", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not (folder / "data").is_dir():
                fresh = folder / "new"
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(mode=0o755)
                fill(fresh)
                if spec.owner is not None:
                    uid, gid, mode = spec.owner
                    os.chown(fresh, uid, gid)
                    os.chmod(fresh, mode)
                os.rename(fresh, folder / "data")
            document = {"id": spec.id, "sharing": spec.sharing, "used": time.time_ns()}
            write_atomic(folder / "cache.json", json.dumps(document).encode(), durable=False)
        finally:
            os.close(fd)
