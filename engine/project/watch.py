"""Which files below a folder changed. Events only hint: a look at stat data decides.

So a lost event, an overflow or an editor's rename costs a look, never a change. How long a change is waited for depends on what it
looks like: a file that was written and closed, or renamed into its place, is there; a file that is being written, taken away, or one
of many is not, and more is waited for, up to a hard cap. While git holds its index (a checkout of thousands of files) nothing is
told, for one change is to come of it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.project.watch_events import Events
from engine.project.watch_tree import Stamp, Tree, stamp_of

QUIET = 0.001  # seconds without a hint, after which a file that was closed or renamed counts as written
BUSY = 0.04  # the same while a file is being written or was taken away
BURST = 0.1  # the same while very many change
RESTLESS = 0.15  # seconds: what changes again so soon after it was told of is waited for ever longer,
CALM = 0.25  # up to so many seconds without a hint
CAP = 2.0  # seconds after the first hint, whatever still comes
BURST_CAP = 10.0  # the same for very many files: a folder that is copied in
GIT_CAP = 60.0  # the same while git holds its index: a lock that a killed git left must not stop everything
MANY, VERY_MANY = 20, 500  # paths
GIT_LOOK = 0.02  # seconds between two looks at git's lock
LOOK_LEAST, LOOK_MOST, LOOK_SHARE = (
    1.0,
    30.0,
    0.02,
)  # of looking through folders without events: seconds, and its share of a CPU
GONE_LOOK = 0.3  # seconds between two looks for a folder that went away
NOISE = {".git", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "4913"}


@dataclass(frozen=True, slots=True)
class Watched:
    """A folder (or a single file), and files beside it that matter (Dockerfile, compose file, env files).

    `matcher` None: what the context's ignore file says, where there is a `dockerfile`; else nothing is ignored."""

    root: Path
    dockerfile: Path | None = None
    extra: Sequence[Path] = ()
    matcher: Matcher | None = None


class Changed(frozenset[str]):
    """Paths relative to the root. `first` and `settled` are monotonic seconds: of the first hint, and of the end of waiting."""

    first: float = 0.0
    settled: float = 0.0

    @classmethod
    def of(cls, paths: Iterable[str], first: float, settled: float) -> Changed:
        found = cls(paths)
        found.first, found.settled = first, settled
        return found


def is_noise(name: str) -> bool:
    return (
        name in NOISE
        or name.endswith(("~", ".swp", ".swx", ".swo", "___jb_tmp___", "___jb_old___"))
        or (name.startswith(".#") or (name.startswith("#") and name.endswith("#")))
    )


class Ignore:
    """What is left out of a folder. Reads the ignore file again when it changed."""

    def __init__(self, watched: Watched) -> None:
        self._watched, self._matcher = watched, watched.matcher
        self._read: tuple[str, Stamp] | None = None
        self.files: tuple[Path, ...] = ()
        if watched.dockerfile is not None and watched.matcher is None:
            beside = watched.dockerfile.with_name(watched.dockerfile.name + ".dockerignore")
            self.files = (beside, watched.root / ".dockerignore")
        self.load()

    def load(self) -> bool:
        """Whether the patterns are other ones than before."""
        if not self.files:
            return False
        before = self._read
        self._read, matcher = None, None
        for path in self.files:
            try:
                self._read = str(path), stamp_of(os.stat(path))
                if self._read == before:
                    return False
                matcher = Matcher(read_patterns(path.read_text(errors="replace")))
                break
            except OSError:
                continue
        self._matcher = matcher
        return self._read != before

    def skips(self, path: str) -> bool:
        """Whether nothing at or below `path` can matter. What leads to it is not asked again."""
        if is_noise(path[path.rfind("/") + 1 :]):
            return True
        matcher = self._matcher
        return matcher is not None and matcher.excluded(path) and not matcher.may_include_under(path)


async def watch(watched: Watched, stop: asyncio.Event, notice: Callable[[str], None]) -> AsyncIterator[Changed]:
    """Yields the changed paths, relative to the folder, until `stop`. `notice` hears what the user should know, once."""
    watcher = Watcher(watched, stop, notice)
    try:
        while not stop.is_set():
            found = await watcher.next()
            if found:
                yield found
    finally:
        watcher.close()


class Watcher:
    def __init__(self, watched: Watched, stop: asyncio.Event, notice: Callable[[str], None]) -> None:
        self._stop, self._notice = stop, notice
        self._root = os.path.realpath(watched.root)
        self._given = watched.root
        self._single = not os.path.isdir(self._root)
        self._folder = self._identity()
        watched = replace(watched, root=Path(self._root))
        self._ignore = Ignore(watched)
        files = {*watched.extra, *self._ignore.files, *([watched.dockerfile] if watched.dockerfile else [])}
        if self._single:
            files.add(watched.root)
        if watched.root != self._given and self._given.is_symlink():
            files.add(self._given)  # a link that may be set to another folder
        self._files: dict[Path, Stamp | None] = dict.fromkeys(files)
        self._missing: set[Path] = set()  # of them
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started = False
        self._told, self._restless = Changed(), 0  # what was told last; how often in a row it had changed again by then
        self._look_at = 0.0  # when folders without events are looked through next
        self._events = self._make_events()

    @property
    def outgrown(self) -> bool:
        """What was watched as a file, or was not there, is a folder now: it takes another watcher."""
        return self._single and os.path.isdir(self._given)

    def close(self) -> None:
        if self._events.fd >= 0:
            self._loop.remove_reader(self._events.fd)
        self._events.close()

    def _make_events(self) -> Events:
        events = Events(self._root, self._ignore.skips, self._notice)
        old = getattr(self, "_tree", None)
        self._tree = Tree(self._root, self._ignore.skips, events)
        if old is not None:
            self._tree.inherit(old)
        if events.fd >= 0:
            self._loop.add_reader(events.fd, self._readable)
        return events

    def _readable(self) -> None:
        if self._events.read(self._tree.below):
            self._woken.set()

    # --- the loop -------------------------------------------------------------------------------------------

    async def next(self) -> Changed | None:
        """The next change; None when there was none after all, or the watching ended."""
        if not self._started:
            self._started = True
            if not self._single:
                await self._threaded(self._tree.scan)
            self._events.watch_beside(set(self._files))
            self._look_beside()
            return None
        first = await self._wait()
        if self._stop.is_set():
            return None
        if self._lost():
            return await self._come_back()
        if self._events.dirty or self._events.overflowed or self._events.beside:
            await self._settle(first)
            if self._lost():  # while it was waited for
                return await self._come_back()
        settled = time.monotonic()
        again = self._changes_again(first)
        found = Changed.of(await self._look(), first, settled)
        if found:
            self._restless = self._restless + 1 if again else 0
            self._told = found
        return found or None

    def _changes_again(self, when: float) -> bool:
        return when - self._told.settled < RESTLESS and not self._told.isdisjoint(self._events.dirty)

    async def _wait(self) -> float:
        """Until something is told, or folders without events are to be looked through; when that was."""
        timeout: float | None = None
        if self._events.unwatched or self._events.fd < 0:
            timeout = max(self._look_at - time.monotonic(), 0.01)
        if self._lost_beside:
            timeout = min(timeout or GONE_LOOK, GONE_LOOK)
        waits = [asyncio.ensure_future(self._woken.wait()), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._woken.clear()
        return time.monotonic()

    async def _settle(self, start: float) -> None:
        """Waits until what was told of is likely to be whole; `start` is when it began."""
        events = self._events
        while not self._stop.is_set():
            if await self._git(start):
                start = time.monotonic()
                events.waited()
            count = len(events.dirty)
            calm = not events.unfinished and count <= MANY and not events.overflowed
            many = count > VERY_MANY or events.overflowed
            quiet = QUIET if calm else BURST if many else BUSY
            if self._restless and self._changes_again(start):  # a log, perhaps: not each of its lines is a save
                quiet = max(quiet, min(QUIET * 4**self._restless, CALM))
            left = start + (BURST_CAP if many else CAP) - time.monotonic()
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), min(quiet, max(left, 0)))
            except TimeoutError:
                if left <= quiet or not _git_is_busy(self._root):
                    break
            if left <= 0:
                break
        events.waited()
        self._woken.clear()

    async def _git(self, start: float) -> bool:
        """Waits while git holds its index; whether it did."""
        held = False
        while _git_is_busy(self._root) and time.monotonic() < start + GIT_CAP and not self._stop.is_set():
            held = True
            await asyncio.sleep(GIT_LOOK)
        return held

    async def _look(self) -> set[str]:
        events, dirty = self._events, self._events.dirty
        everything, beside = events.overflowed, events.beside or self._lost_beside or events.fd < 0
        if self._lost_beside:  # a folder of theirs went away: perhaps there is another one by now
            events.watch_beside(set(self._files))
        events.dirty, events.overflowed, events.beside = set(), False, False
        found: set[str] = set()
        if everything:  # also what ended watches may be among what was lost
            found |= await self._anew()
        elif dirty:
            found |= self._tree.look(dirty) if len(dirty) <= MANY else await self._threaded(self._tree.look, dirty)
        if self._events.unwatched and time.monotonic() >= self._look_at:
            found |= await self._look_through()
            beside = True
        if beside or self._events.fd < 0:
            found |= self._look_beside()
            if self._ignore.load():
                found |= await self._threaded(self._tree.scan)
        return found

    async def _look_through(self) -> set[str]:
        """The folders without events. How long it takes sets how often it is done: its share of the time is bounded."""
        start = time.monotonic()
        found: set[str] = await self._threaded(self._tree.list_again, sorted(self._events.unwatched))
        spent = time.monotonic() - start
        while found and time.monotonic() < start + CAP:  # whoever wrote may be writing still
            await self._git(start)
            await asyncio.sleep(BURST)
            more = await self._threaded(self._tree.list_again, sorted(self._events.unwatched))
            if not more:
                break
            found |= more
        self._look_at = time.monotonic() + min(max(spent / LOOK_SHARE, LOOK_LEAST), LOOK_MOST)
        return found

    async def _threaded(self, work: Callable[..., set[str]], *args: object) -> set[str]:
        """On a thread; what is told meanwhile waits in the kernel, for both use the same tables."""
        fd = self._events.fd
        if fd >= 0:
            self._loop.remove_reader(fd)
        try:
            return await asyncio.to_thread(work, *args)
        finally:
            if fd >= 0:
                self._loop.add_reader(fd, self._readable)

    async def _anew(self) -> set[str]:
        """Watches everything afresh, and says what is not as it was."""
        self.close()
        self._events = self._make_events()
        self._events.watch_beside(set(self._files))
        return await self._threaded(self._tree.scan)

    @property
    def _lost_beside(self) -> bool:
        return self._events.beside_lost or bool(self._missing)

    def _look_beside(self) -> set[str]:
        """The files beside the tree that changed since the last look. While one is missing that was there, its folder is looked for
        now and then: perhaps it went too, and one that somebody holds open sends no IN_DELETE_SELF."""
        found = set()
        for path, before in self._files.items():
            try:
                now: Stamp | None = stamp_of(os.stat(path))
                if path == self._given and now is not None:
                    now = (*now[:4], hash(os.path.realpath(path)))
            except OSError:
                now = None
            if now is not None:
                self._missing.discard(path)
            elif before is not None:
                self._missing.add(path)
            if now != before:
                self._files[path] = now
                found.add(os.path.relpath(path, self._root))  # "." for a watched file itself
        return found

    # --- a folder that goes away ------------------------------------------------------------------------------

    def _lost(self) -> bool:
        """Whether the folder that is watched is not the one at the path any more."""
        if self._single:
            return False
        return self._events.root_lost or self._identity() != self._folder

    def _identity(self) -> tuple[int, int]:
        try:
            status = os.stat(self._given)
        except OSError:
            return 0, 0
        return status.st_dev, status.st_ino

    async def _come_back(self) -> Changed | None:
        """Waits until the folder is there again, and says what is not as it was."""
        if not os.path.isdir(self._given):
            self._notice(f"{self._given} is gone: what runs goes on; it is watched again as soon as it is back")
            while not os.path.isdir(self._given):
                if self._stop.is_set():
                    return None
                await asyncio.sleep(GONE_LOOK)
            self._notice(f"{self._given} is back")
        first = time.monotonic()
        await asyncio.sleep(BUSY)  # whoever made it is at work still
        await self._git(first)
        self._root, self._folder = os.path.realpath(self._given), self._identity()
        found = await self._anew() | self._look_beside()
        return Changed.of(found, first, time.monotonic()) if found else None


def _git_is_busy(root: str) -> bool:
    """Whether git is changing the work tree that `root` is in: it holds `index.lock` meanwhile (gitrepository-layout(5))."""
    folder = root
    while True:
        git = f"{folder}/.git"
        try:
            mode = os.stat(git).st_mode
        except OSError:
            parent = os.path.dirname(folder)
            if parent == folder:
                return False
            folder = parent
            continue
        if stat.S_ISREG(mode):  # of a linked work tree or a submodule
            try:
                text = Path(git).read_text(errors="replace")
            except OSError:
                return False
            git = os.path.join(folder, text.partition("gitdir:")[2].strip())
        return os.path.exists(f"{git}/index.lock")
