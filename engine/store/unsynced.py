"""What was written without waiting for the disk, and what becomes of it after a power cut.

A build answers before its results are on the disk: when a process dies, the page cache lives on, so only a power cut (or a kernel
that stops) can lose them. What is written in this way is marked first: `unsynced/<boot ID>/` gets a name for it, made
before the thing itself appears at its place. Journalling file systems keep the order of such changes (ext4, XFS and Btrfs
do), so nothing that is unsynced is ever there without its mark. A moment later a thread flushes the file system (syncfs(2))
and takes the marks away.

Marks of another boot say what to look at when the store is opened: a blob whose bytes do not hash to its name goes, so does a layer's
tree (it is unpacked again from its blob), and a tag that was moved to an image that is no longer whole is moved back to
where it stood when everything was last synced. So a tag means the old image or the new one, never a broken one.

The database (SQLite, WAL, synchronous=NORMAL) loses its last transactions in a power cut, in order, and never half of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.errors import EngineError

if TYPE_CHECKING:
    import secrets
    import shutil
else:
    secrets = lazy("secrets")
    shutil = lazy("shutil")

DELAY = 1.0  # seconds without further writes before what is unsynced is flushed
MOMENT = 0.03  # seconds until what can be done after the answer is done
LATEST = 10.0  # … and after that many in any case


@cache
def boot_id() -> str:
    """Changes with every boot of the kernel (proc(5), /proc/sys/kernel/random/boot_id)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def flush(folder: Path) -> None:
    """Everything that was written to the file system of `folder` is on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)


class Unsynced:
    """The marks of one data root. `before_flush` gives what is to be called with the names that were marked, once all is on the disk."""

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / "unsynced"
        self._mine = f"{self._folder}/{boot_id()}"
        self._mutex = threading.Condition()
        self._last = self._first = 0.0  # when something was marked, by the monotonic clock; 0: nothing is pending
        self._thread: threading.Thread | None = None
        self._closed = False
        self._jobs: list[Callable[[], None]] = []
        self._settling, self._working = threading.Lock(), threading.Lock()
        self.before_flush: Callable[[], Callable[[Sequence[str]], None]] = lambda: lambda names: None

    def mark(self, name: str, file: str, *, soon: bool = True) -> None:
        """Marks `name`, before it appears, with one more link to `file` (which holds its content)."""
        for _ in range(3):
            try:
                os.link(file, f"{self._mine}/{name}")
                break
            except FileExistsError:
                break
            except FileNotFoundError:  # the first mark, or the folder is being settled just now
                self._folder.mkdir(mode=0o700, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._mine, 0o700)
        if soon:
            self.pending()

    def pending(self) -> None:
        """Something is unsynced now: it is flushed when it has been quiet for a moment."""
        with self._mutex:
            self._last = time.monotonic()
            self._first = self._first or self._last
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._wait, name="settle", daemon=True)
                self._thread.start()

    def later(self, job: Callable[[], None]) -> None:
        """Does `job` on the thread that waits, in a moment, and once for any number of calls before it begins."""
        with self._mutex:
            if job not in self._jobs:
                self._jobs.append(job)
            self._mutex.notify_all()
        self.pending()

    def catch_up(self) -> None:
        """Does now what `later` put off, and waits for what is under way of it."""
        with self._working:
            with self._mutex:
                jobs, self._jobs = self._jobs, []
            for job in jobs:
                with contextlib.suppress(
                    OSError, EngineError, sqlite3.Error
                ):  # each is done again with the next change
                    job()

    def _wait(self) -> None:
        with self._mutex:
            while not self._closed:
                if not self._first and not self._jobs:
                    self._mutex.wait(DELAY * 10)
                    if not self._first and not self._jobs:
                        break
                    continue
                now = time.monotonic()
                due = min(self._last + DELAY, self._first + LATEST) if self._first else now + DELAY
                if self._jobs:
                    due = min(due, self._last + MOMENT)
                if due > now:
                    self._mutex.wait(due - now)
                    continue
                work = self.catch_up if self._jobs else self.settle
                self._mutex.release()
                try:
                    work()
                finally:
                    self._mutex.acquire()
            self._thread = None

    def settle(self) -> None:
        """Flushes the file system and takes the marks away. Where that fails, they stay: they cost a look after the next boot."""
        with self._mutex:
            self._first = 0.0
        with contextlib.suppress(OSError, EngineError, sqlite3.Error), self._settling:
            after = self.before_flush()
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._mine, f"{self._mine}.{secrets.token_hex(4)}")
            folders = [path for path in self._folders() if path.name.startswith(f"{boot_id()}.")]
            names = [name for folder in folders for name in os.listdir(folder)]
            flush(self._root)
            after(names)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def settle_now(self) -> None:
        """Before something is removed that what is unsynced replaces, or is acknowledged that relies on it."""
        mine = (path for path in self._folders() if path.name.startswith(boot_id()))
        if any(name.startswith("blob-") for path in mine for name in _names(path)):
            self.settle()

    def _folders(self) -> list[Path]:
        try:
            return list(self._folder.iterdir())
        except FileNotFoundError:
            return []

    def strangers(self) -> list[Path]:
        """Folders of marks of earlier boots."""
        return [path for path in self._folders() if not path.name.startswith(boot_id())]

    def close(self, seconds: float) -> None:
        """What is pending is flushed now, for as long as that takes at most; marks that are left cost a look after the next boot."""
        with self._mutex:
            self._closed, waiting = True, self._first > 0
            self._mutex.notify_all()
        self.catch_up()
        if waiting:
            thread = threading.Thread(target=self.settle, name="settle", daemon=True)
            thread.start()
            thread.join(seconds)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
