"""What a COPY may read: the build context, the root of another stage or image, a fetched tree. And what its content is.

A `Source` answers with `Node`s and content digests; `indexed.py` has the one that remembers them. Modification times are not part of any digest (BuildKit's contenthash: mode, owner, type, link and content are).
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.base.cancel import CancelToken
from engine.build.dockerfile.globs import compile_glob, has_wildcards, split_wildcards
from engine.build.dockerfile.ignore import Matcher
from engine.build.dockerfile.wild import Wild
from engine.build.index import MAX_ENTRIES, hash_file
from engine.build.trees import Trees
from engine.errors import AccessDenied, InvalidInput, from_os_error
from engine.linux.openat2 import open_in_root
from engine.linux.statx import kind
from engine.store.view import Entry, LayerView

WARN_ENTRIES = 100_000
REMEMBERED_FROM = 1 << 16  # bytes of a file whose digest is worth a row
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_KEPT_OUT = ("trusted.overlay.", "user.overlay.", "security.selinux", "com.apple.")  # the host's own, not the file's


@dataclass(frozen=True, slots=True)
class Node:
    """One file, directory or link of a source; `path` is relative to its root. `real` is where a view has it."""

    path: str
    status: os.stat_result
    link: str = ""
    real: str = ""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)


class Source(Protocol):
    """`keeps_owner`: files keep their owner (stages and images); else they are root's (a context)."""

    where: str
    keeps_owner: bool

    def lookup(self, path: str, *, follow: bool = True) -> Node | None:
        """The node at `path`; links on the way to it are followed inside the source."""

    def children(self, node: Node) -> Iterator[Node]:
        """What is in a directory, sorted, as far as it may be read."""

    def hidden(self, node: Node) -> bool:
        """Whether a directory shows only because something below it is wanted."""

    def open(self, node: Node) -> int:
        """A descriptor of the file's content."""

    def digest(self, node: Node) -> str: ...

    def xattrs(self, node: Node) -> dict[str, bytes]:
        """Extended attributes that go along with a copy."""

    def tree_digest(self, node: Node) -> str | None:
        """Of everything below a directory, None when only a walk can tell."""


def find_sources(source: Source, pattern: str) -> list[tuple[str, Node]]:
    """The nodes that a COPY's word names, each under the name that it was found by.

    A literal path that is missing is an error; a wildcard without a match is nothing (BuildKit's AllowEmptyWildcard).
    """
    clean = posixpath.normpath("/" + pattern).lstrip("/")
    literal, rest = split_wildcards(clean)
    if not rest:
        node = source.lookup(literal)
        if node is None:
            raise _missing(source, pattern, literal)
        return [(literal, node)]
    start = source.lookup(literal)
    found = [start] if start is not None else []
    for part in rest.split("/"):
        special = has_wildcards(part) or "\\" in part
        glob = compile_glob(part) if special else None
        if special and glob is None:
            return []  # malformed: it matches nothing
        following: list[Node] = []
        for folder in found:
            if folder.is_dir:
                names = source.children(folder)
                following += [n for n in names if _matches(posixpath.basename(n.path), part, glob)]
        found = following
    nodes = ((node.path, source.lookup(node.path)) for node in found)
    return [(path, node) for path, node in nodes if node is not None]


def _missing(source: Source, pattern: str, literal: str) -> InvalidInput:
    """Why there is nothing: a link on the way that leads out of the source, or to nothing in it, is named."""
    parts = literal.split("/")
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        node = source.lookup(path, follow=False)
        if node is not None and node.is_link and source.lookup(path) is None:
            return InvalidInput(
                f"{pattern!r} is not in {source.where}: {path} is a link to {node.link}, and that is not in it",
                hint="a link is followed inside the context alone: copy the file itself into the context",
            )
    return InvalidInput(f"{pattern!r} is not in {source.where}", hint="check the path, and what .dockerignore excludes")


def _matches(name: str, part: str, glob: Wild | None) -> bool:
    return name == part if glob is None else glob.match(name)


def read_xattrs(target: int | str) -> dict[str, bytes]:
    """Extended attributes of a descriptor or of a path (not followed) that travel with a file."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
        return {
            name: os.getxattr(target, name, follow_symlinks=follow)
            for name in sorted(names)
            if not name.startswith(_KEPT_OUT)
        }
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.EBADF):
            return {}
        raise


class ContextSource:
    """A folder on this host, minus what its ignore file excludes. Every path is opened below the folder's descriptor."""

    keeps_owner = False

    def __init__(
        self,
        root: Path,
        matcher: Matcher | None = None,
        *,
        cancel: CancelToken | None = None,
        where: str = "",
    ) -> None:
        self.root, self.where = root, where or f"the build context {root}"
        self.matcher = matcher
        self._cancel = cancel or CancelToken()
        try:
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInput(
                f"build context {root}: {error.strerror}", hint="give the folder that holds the Dockerfile"
            ) from error
        self._prefix = os.readlink(f"/proc/self/fd/{self._fd}").rstrip("/")
        self.entries = 0

    def close(self) -> None:
        os.close(self._fd)

    def excluded(self, path: str) -> bool:
        return self.matcher is not None and bool(path) and self.matcher.excluded(path)

    def _visible(self, path: str, is_dir: bool) -> bool:
        if not self.excluded(path):
            return True
        return is_dir and self.matcher is not None and self.matcher.may_include_under(path)

    def hidden(self, node: Node) -> bool:
        return self.excluded(node.path)

    def lookup(self, path: str, *, follow: bool = True) -> Node | None:
        path = posixpath.normpath("/" + path).lstrip("/")
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        try:
            fd = open_in_root(self._fd, path or ".", flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None  # links that lead to each other lead to nothing
            raise from_os_error(error, f"reading {path!r} in {self.where}") from error
        try:
            real = os.readlink(f"/proc/self/fd/{fd}")
            status = os.fstat(fd)
            link = os.readlink("", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
        finally:
            os.close(fd)
        inside = real[len(self._prefix) :].lstrip("/")
        is_dir = stat.S_ISDIR(status.st_mode)
        if not self._visible(path, is_dir) or not self._visible(inside, is_dir):
            return None
        node = Node(inside, status, link)
        return node if not (is_dir and self.excluded(inside)) or self._has_content(node) else None

    def _has_content(self, folder: Node) -> bool:
        """Whether an excluded directory has something in it that is not."""
        return any(not self.excluded(n.path) or (n.is_dir and self._has_content(n)) for n in self.children(folder))

    def children(self, node: Node) -> Iterator[Node]:
        self._cancel.check()
        try:
            fd = open_in_root(self._fd, node.path, _FOLDER, no_symlinks=True)
        except OSError as error:
            raise self._unreadable(error, node.path) from error
        try:
            yield from self._scan(node.path, fd)
        finally:
            os.close(fd)

    def _scan(self, folder: str, fd: int) -> Iterator[Node]:
        for name in sorted(os.listdir(fd)):
            path = f"{folder}/{name}" if folder else name
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
            except FileNotFoundError:
                continue  # removed while we looked: the next change event brings the next build
            if not stat.S_ISSOCK(status.st_mode) and self._visible(path, stat.S_ISDIR(status.st_mode)):
                self._count(folder)
                yield Node(path, status, link)

    def _count(self, folder: str) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise InvalidInput(
                f"{self.where} holds more than {MAX_ENTRIES:,} files (stopped in {folder or '.'}/)",
                hint=f"add {(folder or '.').split('/')[0]}/ to .dockerignore if the build does not need it",
            )

    def _unreadable(self, error: OSError, path: str) -> Exception:
        if isinstance(error, PermissionError):
            return AccessDenied(
                f"{self.root / path} cannot be read: {error.strerror}",
                hint="make it readable, or add it to .dockerignore if the build does not need it",
            )
        return from_os_error(error, f"reading {path} in {self.where}")

    def open_folder(self, path: str) -> int:
        """A descriptor of the directory `path`; no link on the way is followed."""
        try:
            return open_in_root(self._fd, path, _FOLDER, no_symlinks=True)
        except OSError as error:
            raise self._unreadable(error, path) from error

    def open_in(self, folder: int, name: str, node: Node) -> int:
        """As `open`, with a descriptor of the directory that the file is in."""
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        except OSError as error:
            raise self._unreadable(error, node.path) from error

    def open(self, node: Node) -> int:
        try:
            return open_in_root(self._fd, node.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, no_symlinks=True)
        except OSError as error:
            raise self._unreadable(error, node.path) from error

    def digest(self, node: Node) -> str:
        fd = self.open(node)
        try:
            return hash_file(fd, node.status.st_size, self._cancel)
        finally:
            os.close(fd)

    def tree_digest(self, node: Node) -> str | None:
        return None

    def xattrs(self, node: Node) -> dict[str, bytes]:
        if not (node.is_file or node.is_dir):
            return {}
        fd = self.open(node)
        try:
            return read_xattrs(fd)
        finally:
            os.close(fd)


class ViewSource:
    """The root of a finished stage or of an image."""

    keeps_owner = True

    def __init__(self, view: LayerView, where: str, key: str = "", trees: Trees | None = None) -> None:
        """`key` names the content for ever (a chain ID, an image's ID); with it, `trees` remembers digests of whole directories."""
        self._view, self.where, self._key, self._trees = view, where, key, trees
        self._digests: dict[str, str] = {}

    def _node(self, entry: Entry) -> Node:
        return Node(entry.path, entry.status, os.readlink(entry.real) if entry.is_link else "", entry.real)

    def hidden(self, node: Node) -> bool:
        return False

    def lookup(self, path: str, *, follow: bool = True) -> Node | None:
        entry = self._view.lookup(path, follow=follow)
        return self._node(entry) if entry else None

    def children(self, node: Node) -> Iterator[Node]:
        entry = self._view.lookup(node.path, follow=False)
        if entry is not None and entry.is_dir:
            for child in self._view.children(entry):
                yield self._node(child)

    def open(self, node: Node) -> int:
        return os.open(node.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)

    def digest(self, node: Node) -> str:
        if node.real not in self._digests:
            self._digests[node.real] = self._remembered(node, lambda: self._hash(node))
        return self._digests[node.real]

    def _hash(self, node: Node) -> str:
        with open(node.real, "rb", buffering=0) as file:
            return hash_file(file.fileno(), node.status.st_size)

    def _remembered(self, node: Node, make: Callable[[], str]) -> str:
        """What the key names cannot change, so it is read once; small files are as quickly read as asked for."""
        if not self._key or self._trees is None or (node.is_file and node.status.st_size < REMEMBERED_FROM):
            return make()
        name = f"{self._key} {node.path}"
        known = self._trees.digest(name)
        if known is None:
            known = make()
            self._trees.remember(name, known)
        return known

    def tree_digest(self, node: Node) -> str | None:
        """A Merkle digest as the context index makes it, with owners; None where it would not be remembered."""
        trees = self._trees
        if not self._key or trees is None:
            return None

        def make() -> str:
            listings: dict[str, str] = {}
            digest = self._merkle(node, listings)
            trees.put(listings)
            return digest

        return self._remembered(node, make)

    def _merkle(self, folder: Node, listings: dict[str, str]) -> str:
        lines = [f"{posixpath.basename(n.path)}\0{self._described(n, listings)}" for n in self.children(folder)]
        text = "\n".join(lines)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        listings[digest] = text
        return digest

    def _described(self, node: Node, listings: dict[str, str]) -> str:
        status = node.status
        if node.is_dir:
            content = self._merkle(node, listings)
        elif node.is_file:
            content = self.digest(node)
        else:
            content = node.link if node.is_link else str(status.st_rdev)
        more = "".join(f" {name}={value.hex()}" for name, value in self.xattrs(node).items())
        letter = kind(status.st_mode)
        return f"{letter} {stat.S_IMODE(status.st_mode):04o} {content} {status.st_uid}:{status.st_gid}{more}"

    def xattrs(self, node: Node) -> dict[str, bytes]:
        return read_xattrs(node.real)
