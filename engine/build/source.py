"""What a COPY may read: the build context, or the root of another stage or image. And what its content is.

A `Source` answers with `Node`s and content digests. The digest of a file is remembered by its stat data (inode, size, mtime,
ctime), as git's index does, with git's racy rule: a file changed in the last moments before it was hashed is hashed again.
Modification times are not part of any digest (BuildKit's contenthash: mode, owner, type, link and content are).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.base.atomic import write_atomic
from engine.base.cancel import CancelToken
from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.errors import AccessDenied, InvalidInput, from_os_error
from engine.linux.openat2 import open_in_root
from engine.store.view import LayerView

RACY_NS = 50_000_000  # ext4 stamps with the kernel's tick; anything younger than this may change again unseen
MAX_ENTRIES = 1_000_000
WARN_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class Node:
    """One file, directory or link of a source; `path` is relative to its root."""

    path: str
    real: str
    status: os.stat_result
    link: str = ""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)


class Source(Protocol):
    def lookup(self, path: str) -> Node | None:
        """The node at `path`; links in it are followed inside the source."""

    def walk(self, node: Node) -> Iterator[Node]:
        """`node` and all below it that a COPY would take, parents first, sorted."""

    def children(self, path: str) -> list[str]: ...

    def open(self, node: Node) -> int:
        """A descriptor of the file's content."""

    def digest(self, node: Node) -> str: ...


def glob(source: Source, pattern: str) -> list[str]:
    """Paths that match, by Go's filepath.Match: `*` and `?` stay within one component."""
    found = [""]
    for part in (p for p in pattern.split("/") if p):
        following: list[str] = []
        for folder in found:
            if not any(c in part for c in "*?["):
                following.append(posixpath.join(folder, part))
                continue
            names = source.children(folder)
            following.extend(
                posixpath.join(folder, n) for n in names if fnmatch.fnmatchcase(n, part.replace("[^", "[!"))
            )
        found = following
    return [path for path in found if source.lookup(path) is not None]


class StatCache:
    """Content digests by stat data, kept across builds in one JSON file per context."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[object]] = {}
        self._dirty = False
        if path is not None:
            try:
                self._known = json.loads(path.read_bytes())
            except (OSError, ValueError):
                self._known = {}

    def digest(self, path: str, status: os.stat_result, fd: int) -> str:
        key: list[object] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(path)
        if known and known[:4] == key:
            return str(known[4])
        started = time.time_ns()
        with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if started - max(status.st_mtime_ns, status.st_ctime_ns) > RACY_NS:
            self._known[path] = [*key, digest]
            self._dirty = True
        else:
            self._dirty = self._known.pop(path, None) is not None or self._dirty
        return digest

    def save(self) -> None:
        if self._dirty and self._path is not None:
            write_atomic(self._path, json.dumps(self._known, separators=(",", ":")).encode(), durable=False)
            self._dirty = False


class ContextSource:
    """The build context: a folder on this host, minus what its ignore file excludes."""

    def __init__(self, root: Path, dockerfile: Path, cache: StatCache, cancel: CancelToken | None = None) -> None:
        self.root = root
        self._cancel = cancel or CancelToken()
        self._cache = cache
        try:
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInput(
                f"build context {root}: {error.strerror}", hint="give the folder that holds the Dockerfile"
            ) from error
        self.ignore_file = self._find_ignore(dockerfile)
        patterns = read_patterns(self.ignore_file.read_text(errors="replace")) if self.ignore_file else []
        self._matcher = Matcher(patterns) if patterns else None
        self._listing: dict[str, list[os.DirEntry[str]]] = {}
        self.entries = 0

    def _find_ignore(self, dockerfile: Path) -> Path | None:
        for candidate in (dockerfile.with_name(dockerfile.name + ".dockerignore"), self.root / ".dockerignore"):
            if candidate.is_file():
                return candidate
        return None

    def close(self) -> None:
        os.close(self._fd)

    def _excluded(self, path: str) -> bool:
        return self._matcher is not None and bool(path) and self._matcher.excluded(path)

    def lookup(self, path: str) -> Node | None:
        path = posixpath.normpath("/" + path).lstrip("/")
        try:
            fd = open_in_root(self._fd, path or ".", os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_os_error(error, f"reading {path!r} in the build context") from error
        try:
            real = os.readlink(f"/proc/self/fd/{fd}")
            status = os.fstat(fd)
        finally:
            os.close(fd)
        inside = os.path.relpath(real, os.path.realpath(self.root))
        inside = "" if inside == "." else inside
        if self._excluded(path) and not (
            stat.S_ISDIR(status.st_mode) and self._matcher and self._matcher.may_include_under(path)
        ):
            return None
        return Node(inside, real, status)

    def children(self, path: str) -> list[str]:
        return [name for name, _ in self._scan(path)]

    def _scan(self, path: str) -> list[tuple[str, os.DirEntry[str]]]:
        try:
            with os.scandir(self.root / path) as found:
                entries = sorted(((entry.name, entry) for entry in found), key=lambda pair: pair[0])
        except PermissionError as error:
            raise AccessDenied(
                f"{self.root / path} cannot be read: {error.strerror}",
                hint="make it readable, or add it to .dockerignore if the build does not need it",
            ) from error
        except OSError as error:
            raise from_os_error(error, "reading the build context") from error
        kept = []
        for name, entry in entries:
            where = posixpath.join(path, name)
            if self._excluded(where):
                below = entry.is_dir(follow_symlinks=False) and self._matcher and self._matcher.may_include_under(where)
                if not below:
                    continue
            kept.append((name, entry))
        return kept

    def walk(self, node: Node) -> Iterator[Node]:
        if not self._excluded(node.path) or not node.is_dir:
            yield node
        if not node.is_dir:
            return
        for name, entry in self._scan(node.path):
            self._count(node.path)
            path = posixpath.join(node.path, name)
            try:
                status = entry.stat(follow_symlinks=False)
                link = os.readlink(entry.path) if stat.S_ISLNK(status.st_mode) else ""
            except FileNotFoundError:
                continue  # removed while we looked: the next change event brings the next build
            child = Node(path, entry.path, status, link)
            if child.is_dir:
                yield from self.walk(child)
            elif not stat.S_ISSOCK(status.st_mode):
                yield child

    def _count(self, folder: str) -> None:
        self._cancel.check()
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise InvalidInput(
                f"the build context {self.root} holds more than {MAX_ENTRIES:,} files (stopped in {folder or '.'}/)",
                hint=f"add {(folder or '.').split('/')[0]}/ to .dockerignore if the build does not need it",
            )

    def open(self, node: Node) -> int:
        try:
            return open_in_root(self._fd, node.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, no_symlinks=True)
        except PermissionError as error:
            raise AccessDenied(
                f"{self.root / node.path} cannot be read: {error.strerror}",
                hint="make it readable, or add it to .dockerignore if the build does not need it",
            ) from error
        except OSError as error:
            raise from_os_error(error, f"reading {node.path} in the build context") from error

    def digest(self, node: Node) -> str:
        fd = self.open(node)
        try:
            return self._cache.digest(node.path, os.fstat(fd), fd)
        finally:
            os.close(fd)


class ViewSource:
    """The root of a finished stage or of an image."""

    _digests: dict[str, str] = {}

    def __init__(self, view: LayerView) -> None:
        self._view = view

    def lookup(self, path: str) -> Node | None:
        entry = self._view.lookup(path)
        return Node(entry.path, entry.real, entry.status) if entry else None

    def children(self, path: str) -> list[str]:
        entry = self._view.lookup(path)
        return (
            [posixpath.basename(child.path) for child in self._view.children(entry)] if entry and entry.is_dir else []
        )

    def walk(self, node: Node) -> Iterator[Node]:
        entry = self._view.lookup(node.path)
        for found in self._view.walk(entry) if entry else ():
            yield Node(found.path, found.real, found.status, os.readlink(found.real) if found.is_link else "")

    def open(self, node: Node) -> int:
        return os.open(node.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def digest(self, node: Node) -> str:
        if node.real not in self._digests:
            with open(node.real, "rb", buffering=0) as file:
                self._digests[node.real] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[node.real]


def expand_sources(source: Source, patterns: Sequence[str], where: str) -> list[Node]:
    """The nodes that a COPY names. A literal path that is missing is an error, a wildcard without a match is none."""
    nodes: list[Node] = []
    for pattern in patterns:
        clean = posixpath.normpath("/" + pattern).lstrip("/")
        if any(c in clean for c in "*?["):
            nodes.extend(node for path in glob(source, clean) if (node := source.lookup(path)))
            continue
        node = source.lookup(clean)
        if node is None:
            raise InvalidInput(f"{pattern!r} is not in {where}", hint="check the path, and what .dockerignore excludes")
        nodes.append(node)
    return nodes
