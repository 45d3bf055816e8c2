"""Which files of a build context changed. Events only hint: a scan of stat data decides.

So a lost event, an overflow or an editor's rename costs a scan, never a change. Quiet time is short, with a hard cap.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.build.dockerfile.ignore import Matcher, read_patterns

QUIET_MS = 40
CAP_MS = 2000
POLL_SECONDS = 1.0
NOISE = {".git", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "4913"}

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Watched:
    """A context with its Dockerfile, and files beside it that matter (compose file, env files)."""

    root: Path
    dockerfile: Path | None  # None: a folder that no build has for its context
    extra: Sequence[Path] = ()


def is_noise(name: str) -> bool:
    return name in NOISE or name.endswith(("~", ".swp", ".swx", ".swo")) or name.startswith(".#")


class Scanner:
    """Snapshots of the stat data of everything a build could read."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._matcher: Matcher | None = None
        self._load()

    def _load(self) -> None:
        dockerfile = self._watched.dockerfile
        if dockerfile is None:
            return
        for path in (dockerfile.with_name(dockerfile.name + ".dockerignore"), self._watched.root / ".dockerignore"):
            if path.is_file():
                self._matcher = Matcher(read_patterns(path.read_text(errors="replace")))
                return
        self._matcher = None

    def skips(self, path: str) -> bool:
        """Whether nothing at or below `path` can matter."""
        if is_noise(path.rpartition("/")[2]):
            return True
        return self._matcher is not None and self._matcher.excluded(path) and not self._matcher.may_include_under(path)

    def scan(self) -> dict[str, Stamp]:
        self._load()
        found: dict[str, Stamp] = {}
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(self._watched.root / folder) as entries:
                    for entry in entries:
                        path = f"{folder}/{entry.name}" if folder else entry.name
                        if self.skips(path):
                            continue
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(status.st_mode):
                            found[path + "/"] = (0, 0, 0, 0, status.st_mode)
                            pending.append(path)
                        else:
                            found[path] = _stamp(status)
            except OSError:
                continue  # gone or unreadable now: the build says so if it matters
        dockerfile = self._watched.dockerfile
        own = (dockerfile, self._watched.root / ".dockerignore") if dockerfile else ()
        for extra in (*own, *self._watched.extra):
            try:
                found[os.path.relpath(extra, self._watched.root)] = _stamp(os.stat(extra))
            except OSError:
                continue
        return found


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode


def changed(before: Mapping[str, Stamp], now: Mapping[str, Stamp]) -> frozenset[str]:
    return frozenset(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


async def watch(watched: Watched, stop: asyncio.Event, notice: Callable[[str], None]) -> AsyncIterator[frozenset[str]]:
    """Yields the changed paths, relative to the context, until `stop`."""
    from watchfiles import awatch

    scanner = Scanner(watched)
    before = await asyncio.to_thread(scanner.scan)
    root = str(watched.root.resolve())

    def wanted(_: object, path: str) -> bool:
        if not path.startswith(root + "/"):
            return True
        parts = path[len(root) + 1 :].split("/")
        return not any(scanner.skips("/".join(parts[: count + 1])) for count in range(len(parts)))

    folders = {
        root,
        *(
            str(path.parent.resolve())
            for path in (watched.dockerfile, *watched.extra)
            if path is not None and path.parent.exists()
        ),
    }
    polling = False
    while not stop.is_set():
        try:
            hints = awatch(
                *folders,
                watch_filter=wanted,
                debounce=CAP_MS,
                step=QUIET_MS,
                stop_event=stop,
                force_polling=polling,
                poll_delay_ms=int(POLL_SECONDS * 1000),
                recursive=True,
            )
            async for _ in hints:
                now = await asyncio.to_thread(scanner.scan)
                paths, before = changed(before, now), now
                if paths:
                    yield paths
        except OSError as error:
            if polling:
                raise
            polling = True
            notice(f"file events are not available ({error}); looking every second instead")
