"""What is below a folder, by stat data: the truth that a watcher compares with. Costs what is looked at, not what there is."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import Protocol

Stamp = tuple[int, int, int, int, int]

RACY_NS = 50_000_000  # a file younger than this may change again without its times moving (ext4 stamps with the kernel's tick)
_MAX_READ = 4 << 20  # bytes of a file whose content is compared
_MAX_FILES = 64  # of one batch whose content is compared
_MAX_KNOWN = 10_000


class Observer(Protocol):
    """Hears of folders before they are listed, and of files with several names."""

    def folder(self, path: str, device: int) -> None: ...

    def gone(self, path: str) -> None: ...

    def linked(self, path: str) -> None: ...


def stamp_of(status: os.stat_result) -> Stamp:
    """A folder's times say nothing that its entries do not say."""
    if stat.S_ISDIR(status.st_mode):
        return 0, 0, 0, 0, status.st_mode
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode


class Tree:
    """Paths are relative to `root`, "" is the root itself. Folders are reported with a slash at their end."""

    def __init__(self, root: str, skips: Callable[[str], bool], observer: Observer) -> None:
        self.root, self._skips, self._observer = root, skips, observer
        self.kids: dict[str, dict[str, Stamp]] = {}
        self._contents: dict[str, bytes] = {}  # digests of files that changed lately

    def inherit(self, other: Tree) -> None:
        """Compares with what `other` has seen: its folder was lost, and came back."""
        self.kids, self._contents = other.kids, other._contents

    def scan(self) -> set[str]:
        """Everything; what changed since the last look."""
        changed: set[str] = set()
        self._sync("", True, changed)
        return self._new_content(changed)

    def list_again(self, folders: Iterable[str]) -> set[str]:
        """These folders' own entries, and what is below those that are new."""
        changed: set[str] = set()
        for folder in folders:
            if folder in self.kids:
                self._sync(folder, False, changed)
        return self._new_content(changed)

    def look(self, paths: Iterable[str]) -> set[str]:
        """These paths alone; a folder with all below it."""
        changed: set[str] = set()
        hinted = set()
        for path in paths:
            if path == "":
                self._sync("", True, changed)
            elif not self._hidden(path):
                hinted.add(path)
                self._one(path, changed)
        return self._new_content(changed | self._racy(hinted - changed))

    def below(self, folder: str) -> list[str]:
        """The folder and the known folders in it."""
        found, pending = [], [folder]
        while pending:
            at = pending.pop()
            if at in self.kids:
                found.append(at)
                pending += [_join(at, name) for name, stamp in self.kids[at].items() if stat.S_ISDIR(stamp[4])]
        return found

    # --- inside -----------------------------------------------------------------------------------------

    def _hidden(self, path: str) -> bool:
        """Whether it, or a folder that it is in, is left out."""
        parts = path.split("/")
        return any(self._skips("/".join(parts[: count + 1])) for count in range(len(parts)))

    def _one(self, path: str, changed: set[str]) -> None:
        folder, _, name = path.rpartition("/")
        known = self.kids.get(folder)
        if known is None:  # its folder is new too: that is looked at as a whole
            return self._one(folder, changed) if folder else self._sync("", True, changed)
        try:
            status = os.lstat(f"{self.root}/{path}")
        except OSError:
            old = known.pop(name, None)
            if old is not None:
                self._drop(path, old, changed)
            return None
        stamp, old = stamp_of(status), known.get(name)
        if old is not None and old != stamp and stat.S_ISDIR(old[4]) and not stat.S_ISDIR(stamp[4]):
            self._drop(path, old, changed)
        known[name] = stamp
        if stat.S_ISDIR(stamp[4]):
            if old != stamp:
                changed.add(f"{path}/")
            self._sync(path, True, changed, status.st_dev)
        elif old != stamp:
            changed.add(path)
            if status.st_nlink > 1:
                self._observer.linked(path)
        return None

    def _sync(self, folder: str, deep: bool, changed: set[str], device: int = 0) -> None:
        pending = [(folder, device)]
        while pending:
            folder, device = pending.pop()
            self._observer.folder(folder, device)  # first: what comes while it is listed is told of
            try:
                entries = os.scandir(f"{self.root}/{folder}" if folder else self.root)
            except (FileNotFoundError, NotADirectoryError):
                continue  # its parent's listing says so
            except OSError:
                self.kids.setdefault(folder, {})
                continue  # unreadable: the build says so if it matters
            old, new = self.kids.get(folder, {}), dict[str, Stamp]()
            with entries:
                for entry in entries:
                    path = _join(folder, entry.name)
                    if self._skips(path):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    stamp = new[entry.name] = stamp_of(status)
                    is_folder = stat.S_ISDIR(stamp[4])
                    before = old.get(entry.name)
                    if before != stamp:
                        if before is not None and stat.S_ISDIR(before[4]) and not is_folder:
                            self._drop(path, before, changed)
                        changed.add(f"{path}/" if is_folder else path)
                    if is_folder and (deep or path not in self.kids):
                        pending.append((path, status.st_dev))
                    elif status.st_nlink > 1 and not is_folder:
                        self._observer.linked(path)
            self.kids[folder] = new
            for name in old.keys() - new.keys():
                self._drop(_join(folder, name), old[name], changed)

    def _drop(self, path: str, old: Stamp, changed: set[str]) -> None:
        if not stat.S_ISDIR(old[4]):
            changed.add(path)
            return
        changed.add(f"{path}/")
        for folder in self.below(path):
            for name, stamp in self.kids.pop(folder).items():
                inner = _join(folder, name)
                changed.add(f"{inner}/" if stat.S_ISDIR(stamp[4]) else inner)
            self._observer.gone(folder)

    # --- content ----------------------------------------------------------------------------------------

    def _new_content(self, changed: set[str]) -> set[str]:
        """Without the files whose content and mode are what they were when they changed last: a touch, a save of the same."""
        if len(changed) > _MAX_FILES:
            for path in changed:
                self._contents.pop(path, None)
            return changed
        found = set()
        for path in changed:
            if path.endswith("/"):
                found.add(path)
                continue
            digest, known = self._digest(path), self._contents.get(path)
            if digest is None or digest != known:
                found.add(path)
            if digest is None:
                self._contents.pop(path, None)
            else:
                if len(self._contents) >= _MAX_KNOWN:
                    self._contents.pop(next(iter(self._contents)))
                self._contents[path] = digest
        return found

    def _racy(self, hinted: set[str]) -> set[str]:
        """Files that were told of, whose times are too young to say that they did not change again."""
        if len(hinted) > _MAX_FILES:
            return set()
        now = time.time_ns()
        found = set()
        for path in hinted:
            folder, _, name = path.rpartition("/")
            stamp = self.kids.get(folder, {}).get(name)
            if stamp and stat.S_ISREG(stamp[4]) and now - stamp[3] < RACY_NS:
                found.add(path)
        return found

    def _digest(self, path: str) -> bytes | None:
        try:
            fd = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_READ:
                return None
            try:
                content = file.read(_MAX_READ)
            except OSError:
                return None
        head = f"{status.st_mode} {status.st_uid} {status.st_gid} ".encode()
        return hashlib.blake2b(head + content, digest_size=16).digest()


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
