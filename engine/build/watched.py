"""Context indexes of a long-lived engine: kept between builds, and told by inotify(7) what changed.

Between two builds of one context, the kernel says which paths were touched; only those are asked for. Its word is good for local
file systems, as far as writers use names: a file written through another hard link or an old memory mapping moves without an event.
So files with several links are always asked for, and after a build that relied on events everything is looked at once more, in
the background: a change that nobody told of ends the trust in events for that context, for good, and is reported.
A process that builds once never relies on events.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.build.dockerfile.ignore import Matcher
from engine.build.index import ContextIndex
from engine.build.index_file import forget
from engine.errors import InvalidInput
from engine.linux import inotify
from engine.linux.inotify import Inotify

MAX_FOLDERS = 8192  # watched in one context; a larger one is looked through for each build
MAX_INDEXES = 16
MOMENT = 0.03  # seconds between a build and the look at what it relied on
_MASK = (
    inotify.IN_MODIFY
    | inotify.IN_ATTRIB
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ONLYDIR
    | inotify.IN_DONT_FOLLOW
)
_LOST = inotify.IN_Q_OVERFLOW | inotify.IN_UNMOUNT | inotify.IN_MOVE_SELF
# statfs(2) f_type of file systems that change by this kernel alone: ext4, xfs, btrfs, tmpfs, f2fs, overlay, zfs, bcachefs.
_LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0xF2F52010, 0x794C7630, 0x2FC12FC1, 0xCA451A4E}


def is_local(fd: int) -> bool:
    """Whether every change to the file system goes through this kernel."""
    buffer = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None, use_errno=True).fstatfs(fd, buffer):
        return False
    return ctypes.c_ulong.from_buffer(buffer).value in _LOCAL


class Watched:
    """An index and the events of its folders."""

    def __init__(self, index: ContextIndex) -> None:
        self.index = index
        self.distrusted = False
        self._inotify: Inotify | None = None
        self._folders: dict[int, str] = {}
        self._linked: set[str] = set()
        self._torn = False  # a refresh did not come to its end: what it found was not gone into
        self._checking = threading.Lock()

    def close(self) -> None:
        self._unwatch()
        self.index.close()

    def refresh(self, cancel: CancelToken | None) -> bool:
        """Brings the index up to date. True when that relied on events: `verify` it when there is time."""
        with self.index.lock:
            told = self._told()
            if told is None:
                self.index.refresh(cancel)
                self.index.listed.clear()
                return False
            torn, self._torn = self._torn, True
            changed = self.index.refresh_paths(told | self._linked, cancel)
            if torn or not self._linked.issuperset(self.index.with_several_links(changed)):
                self.index.refresh(cancel)  # a file got another name: nobody tells of its other ones
                self._linked = set(self.index.with_several_links())
            self._follow()
            self._torn = False
            return True

    def watch(self) -> None:
        """Begins to watch. What changes between here and the next refresh is seen by events, what changed before by its look."""
        with self.index.lock:
            if self._inotify is not None or self.distrusted or not is_local(self.index.fd):
                return
            try:
                self._inotify = Inotify()
                self._watch_all()
            except OSError:
                self._unwatch()

    def _watch_all(self) -> None:
        """Watches first, then looks: nothing can fall between the two."""
        index = self.index
        folders = index.folders()
        if len(folders) > MAX_FOLDERS:
            self.distrusted = True
            self._unwatch()
            return
        for path in folders:
            self._add(path)
        index.listed.clear()
        index.refresh()
        self._follow()
        self._linked = set(index.with_several_links())

    def _add(self, path: str) -> None:
        assert self._inotify is not None  # only called while watching
        place = f"/proc/self/fd/{self.index.fd}/{path}" if path else f"/proc/self/fd/{self.index.fd}/."
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._folders[self._inotify.add(place, _MASK)] = path

    def _follow(self) -> None:
        """Watches directories that came, and lists them once more: they may have changed before the watch stood."""
        while self._inotify is not None and self.index.listed:
            fresh = [path for path in dict.fromkeys(self.index.listed) if path not in self._folders.values()]
            self.index.listed.clear()
            if len(self._folders) + len(fresh) > MAX_FOLDERS:
                self.distrusted = True
                self._unwatch()
                return
            try:
                for path in fresh:
                    self._add(path)
            except OSError:
                self._unwatch()
                return
            if fresh:
                below = {inner for path in fresh for inner in self.index.below(path)}
                self.index.refresh_paths(below)
                self._linked |= set(self.index.with_several_links(below))

    def _told(self) -> set[str] | None:
        """The paths that events name, None when events cannot be relied on."""
        if self._inotify is None:
            return None
        paths: set[str] = set()
        for watch, mask, name in self._inotify.read():
            folder = self._folders.get(watch)
            if mask & _LOST or (folder == "" and mask & inotify.IN_DELETE_SELF):
                self._unwatch()
                return None
            if folder is None:
                continue
            if mask & inotify.IN_IGNORED:
                del self._folders[watch]
                continue
            path = os.fsdecode(name)
            paths.add(folder)
            if path:
                paths.add(f"{folder}/{path}" if folder else path)
        return paths

    def _unwatch(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None
        self._folders.clear()

    def verify(self, report: Callable[[frozenset[str]], None] | None = None) -> frozenset[str]:
        """Looks at everything; returns what changed and nobody told of. One at a time: a second call returns at once."""
        if not self._checking.acquire(blocking=False):
            return frozenset()
        try:
            with self.index.lock:
                told = self._told()
                if told is None:
                    return frozenset()
                self.index.refresh_paths(told | self._linked)
                unseen = self.index.refresh()
                late = self._told()  # what changed while we looked
                missed = frozenset(path for path in unseen if late is not None and not _covered(path, late))
                if late:
                    self.index.refresh_paths(late)
                if missed:
                    self.distrusted = True
                    self._unwatch()
            if missed and report is not None:
                report(missed)
            return missed
        finally:
            self._checking.release()


def _covered(path: str, told: set[str]) -> bool:
    return path in told or os.path.dirname(path) in told


class ContextIndexes:
    """The indexes of one engine, by folder and ignore patterns. `keep` False: one build, no watching."""

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self._folder, self._keep = folder, keep
        self._known: OrderedDict[tuple[str, tuple[str, ...]], Watched] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def get(self, root: Path, matcher: Matcher | None, where: str = "") -> Watched:
        """Raises `InvalidInput` when there is no such folder."""
        real = os.path.realpath(root)
        self._refuse_own_records(real, matcher)
        patterns = matcher.patterns if matcher else ()
        key = (real, patterns)
        with self._lock:
            found = self._known.get(key)
            if found is not None and _same_folder(found.index.fd, real):
                self._known.move_to_end(key)
                return found
            if found is not None:  # of the folder that was here before
                self._drop(found)
            name = hashlib.sha256("\0".join((real, *patterns)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
            made = Watched(ContextIndex(root, matcher, file=self._folder / f"{name}.idx", where=where))
            self._known[key] = made
            if len(self._known) > MAX_INDEXES:
                self._drop(self._known.popitem(last=False)[1])
            return made

    @staticmethod
    def once(root: Path, matcher: Matcher | None, where: str = "") -> Watched:
        """The index of a folder that goes with its build: neither kept nor watched. Raises `InvalidInput` when there is none."""
        return Watched(ContextIndex(root, matcher, where=where))

    def _refuse_own_records(self, real: str, matcher: Matcher | None) -> None:
        """A process that closes a database file that it has open through SQLite as well loses its locks on it (fcntl(2)), and the
        next one that writes damages it. So no build reads the data root of its own engine."""
        data_root = os.path.dirname(os.path.realpath(self._folder))
        inside = os.path.relpath(f"{data_root}/records.sqlite", real)
        if not inside.startswith("../") and not (matcher and matcher.excluded(inside)):
            folder = os.path.dirname(inside) or "."
            raise InvalidInput(
                f"build context {real}: the engine's own data root is in it, at {folder}",
                hint=f"add {folder} to .dockerignore, or choose another data root with --root",
            )

    def _drop(self, old: Watched) -> None:
        if old.index.lock.acquire(blocking=False):  # one in use is left to its build
            old.close()
            old.index.lock.release()

    def after_build(
        self, watched: Watched, relied: bool, report: Callable[[frozenset[str]], None] | None = None
    ) -> None:
        """Saves what is new, watches, verifies. On a thread and a moment later, for the build is done; a process that builds once
        has gone by then."""
        if not self._keep:
            watched.index.save()
            forget(self._folder)
            return

        def work() -> None:
            with contextlib.suppress(
                Exception
            ):  # a cache: whatever is wrong with it is met, and said, by the next build
                watched.index.save()
                if relied:
                    watched.verify(report)
                elif not self._closed.is_set():
                    watched.watch()

        self._begin(work)

    def later(self, job: Callable[[], None]) -> None:
        """Does `job` after the build; never in a process that builds once. What it raises is not told: it only saves time."""

        def work() -> None:
            if not self._closed.is_set():
                with contextlib.suppress(Exception):
                    job()

        if self._keep:
            self._begin(work)

    def _begin(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="context-index", daemon=True)
                self._thread.start()
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._closed.wait(MOMENT)  # the build answers first
            work()

    def close(self) -> None:
        self._closed.set()
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            for watched in self._known.values():
                with watched.index.lock:
                    watched.close()
            self._known.clear()


def _same_folder(fd: int, path: str) -> bool:
    """Whether `path` is still the folder that `fd` holds: it may have been replaced."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
