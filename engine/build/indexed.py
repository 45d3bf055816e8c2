"""A build context that remembers: listings, stat data and digests come from the engine's index of the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.build.dockerfile.ignore import Matcher
from engine.build.index import ContextIndex
from engine.build.source import ContextSource, Node
from engine.build.trees import Trees
from engine.build.watched import ContextIndexes


class IndexedSource(ContextSource):
    """Brought up to date when it is opened. `moved`: a file was no longer what its digest says when it was opened to be copied."""

    def __init__(
        self,
        root: Path,
        matcher: Matcher | None,
        indexes: ContextIndexes,
        trees: Trees | None,
        cancel: CancelToken,
        *,
        where: str = "",
        passing: bool = False,
    ) -> None:
        super().__init__(root, matcher, cancel=cancel, where=where)
        self._indexes, self._trees, self.moved = indexes, trees, False
        self._passing = passing
        self.seconds = 0.0  # spent on looking at the folder and on digests of whole directories
        started = time.monotonic()
        try:
            self._watched = (indexes.once if passing else indexes.get)(root, matcher, self.where)
            self._index = self._watched.index
            self._relied = self._watched.refresh(cancel)
        except BaseException:
            self.close()
            raise
        self.tick = self._index.tick
        self.entries = len(self._index)
        self.seconds += time.monotonic() - started

    def later(self, job: Callable[[], None]) -> None:
        """Does `job` when the build has answered, unless the engine has gone by then."""
        if not self._passing:
            self._indexes.later(job)

    def release(self) -> None:
        """The build is done with it."""
        self.close()
        if self._passing:
            self._watched.close()
        else:
            self._indexes.after_build(self._watched, self._relied)

    @property
    def index(self) -> ContextIndex:
        return self._index

    def changed_since(self, tick: int, more: Collection[str] = ()) -> list[tuple[str, Node | None]] | None:
        """What may differ from what it was at an earlier source's `tick`, and `more`, each as it is now, parents first; None: not known."""
        with self._index.lock:
            paths = self._index.changed_since(tick)
            if paths is None:
                return None
            found: list[tuple[str, Node | None]] = []
            for path in sorted({*paths, *more}, key=lambda path: path.split("/")):
                slot = self._index.slot(path)
                found.append((path, self._node(path, slot) if slot is not None else None))
            return found

    def children(self, node: Node) -> Iterator[Node]:
        self._cancel.check()
        with self._index.lock:
            slot = self._index.slot(node.path)
            if slot is None or not self._index.is_dir(slot):
                return iter(())
            self._index.cancel = self._cancel
            found = [self._node(path, child) for path, child in self._index.children(slot)]
        return iter(found)

    def _node(self, path: str, slot: int) -> Node:
        status = self._index.status(slot)
        link = self._index.link(slot) if status.st_mode & 0o170000 == 0o120000 else ""
        return Node(path, status, link)

    def digest(self, node: Node) -> str:
        with self._index.lock:
            slot = self._index.slot(node.path)
            if slot is None:
                return super().digest(node)
            self._index.cancel = self._cancel
            return self._index.digest(slot)

    def xattrs(self, node: Node) -> dict[str, bytes]:
        with self._index.lock:
            slot = self._index.slot(node.path)
            if slot is None:
                return super().xattrs(node)
            self._index.cancel = self._cancel
            return self._index.xattrs(slot)

    def tree_digest(self, node: Node) -> str | None:
        if self.matcher is not None and self.matcher.has_exclusions:
            return None  # a directory may show only for what is below it
        with self._index.lock:
            slot = self._index.slot(node.path)
            if slot is None:
                return None
            self._index.cancel = self._cancel
            started = time.monotonic()
            top = self._index.digest(slot)
            self.seconds += time.monotonic() - started
            listings, self._index.listings = self._index.listings, {}
        if self._trees is not None:
            self._trees.put(listings)
        return top

    def open(self, node: Node) -> int:
        return self._looked_at(super().open(node), node)

    def open_in(self, folder: int, name: str, node: Node) -> int:
        return self._looked_at(super().open_in(folder, name, node), node)

    def _looked_at(self, fd: int, node: Node) -> int:
        now, known = os.fstat(fd), node.status
        if (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            known.st_ino,
            known.st_size,
            known.st_mtime_ns,
            known.st_ctime_ns,
        ):
            self.moved = True
        return fd
