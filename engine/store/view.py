"""A read-only merged view over unpacked layers, without mounting anything.

Reads what overlayfs would show: the topmost entry wins, directories merge, a character device 0:0 is a whiteout and
`trusted.overlay.opaque=y` (or `user.` in a user namespace) hides what lies below (kernel Documentation/filesystems/overlayfs.rst).
Layers are immutable, and a path is followed only through real directories of one layer, so plain paths are safe;
symbolic links are resolved here, inside the view's own root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInput

MAX_LINKS = 40  # path_resolution(7)


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the merged view. `real` is the file in its layer; `sources` the layers a directory merges."""

    path: str  # "usr/bin/env", "" for the root
    real: str
    status: os.stat_result
    sources: tuple[str, ...] = ()

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def hides_below(path: str) -> bool:
    """Whether a directory is opaque: nothing of the layers below shows in it."""
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


class LayerView:
    """`trees` are the layers' directories, topmost first. No layers is an empty root."""

    def __init__(self, trees: Sequence[Path]) -> None:
        self._trees = tuple(str(tree) for tree in trees)

    def _child(self, folders: Sequence[str], name: str) -> tuple[str, os.stat_result, list[str]] | None:
        found: tuple[str, os.stat_result] | None = None
        merged: list[str] = []
        for folder in folders:
            real = f"{folder}/{name}"
            try:
                status = os.lstat(real)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if is_whiteout(status):
                break
            if not stat.S_ISDIR(status.st_mode):
                return (found[0], found[1], merged) if found else (real, status, [])
            found = found or (real, status)
            merged.append(real)
            if hides_below(real):
                break
        return (found[0], found[1], merged) if found else None

    def lookup(self, path: str, *, follow: bool = True) -> Entry | None:
        """The entry at `path` (absolute or relative to the root), links resolved inside it; None if there is none."""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[tuple[str, Sequence[str]]] = [("", self._trees)]
        links = 0
        last: Entry | None = self._root()
        while pending:
            part = pending.pop()
            if part == "..":
                done = done[:-1] or done
                last = None
                continue
            name, folders = done[-1]
            child = self._child(folders, part)
            if child is None:
                return None
            real, status, merged = child
            where = f"{name}/{part}" if name else part
            if stat.S_ISLNK(status.st_mode) and (pending or follow):
                links += 1
                if links > MAX_LINKS:
                    raise InvalidInput(f"{path}: too many levels of symbolic links")
                target = os.readlink(real)
                if target.startswith("/"):
                    done = done[:1]
                pending.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
                last = None
                continue
            last = Entry(where, real, status, tuple(merged))
            if stat.S_ISDIR(status.st_mode):
                done.append((where, merged))
            elif pending:
                return None
        if last is None:
            name = done[-1][0]
            return self.lookup(name, follow=False) if name else self._root()
        return last

    def resolve(self, path: str) -> str:
        """`path` with every existing link followed inside the root; parts that do not exist yet are kept as they are."""
        done = ""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for position, part in enumerate(parts):
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            entry = self.lookup(f"{done}/{part}")
            if entry is None:
                dangling = self.lookup(f"{done}/{part}", follow=False)
                if dangling is not None and dangling.is_link:
                    target = os.readlink(dangling.real)
                    base = "" if target.startswith("/") else done
                    return self.resolve("/".join([base, target, *parts[position + 1 :]]))
                return os.path.normpath("/".join(filter(None, [done, *parts[position:]])))
            done = entry.path
        return done

    def _root(self) -> Entry:
        real = self._trees[0] if self._trees else "/"
        return Entry("", real, os.lstat(real), self._trees)

    def child(self, entry: Entry, name: str) -> Entry | None:
        """What a directory has under `name`, not followed."""
        found = self._child(entry.sources, name)
        if found is None:
            return None
        real, status, merged = found
        return Entry(f"{entry.path}/{name}" if entry.path else name, real, status, tuple(merged))

    def children(self, entry: Entry) -> Iterator[Entry]:
        """The entries of a directory, sorted by name."""
        names: set[str] = set()
        for source in entry.sources:
            names.update(os.listdir(source))
        for name in sorted(names):
            child = self._child(entry.sources, name)
            if child is not None:
                real, status, merged = child
                yield Entry(f"{entry.path}/{name}" if entry.path else name, real, status, tuple(merged))

    def walk(self, entry: Entry) -> Iterator[Entry]:
        """`entry` itself and everything under it, parents first, sorted."""
        yield entry
        if entry.is_dir:
            for child in self.children(entry):
                yield from self.walk(child)

    def read(self, path: str, limit: int = 10 << 20) -> bytes | None:
        """A small regular file's content; None when there is none. Raises `InvalidInput` over `limit` bytes."""
        entry = self.lookup(path)
        if entry is None or not stat.S_ISREG(entry.status.st_mode):
            return None
        if entry.status.st_size > limit:
            raise InvalidInput(f"/{entry.path} in the image is {entry.status.st_size} bytes, more than {limit}")
        with open(entry.real, "rb") as file:
            return file.read(limit)
