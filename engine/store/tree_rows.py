"""What a tree of files shows: which folders are open, which entries are kept, in which order. Rows are numbers of entries."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.base.cancel import CancelToken
from engine.base.patterns import Pattern
from engine.model import FileKind, Mark, TreeExtent, TreeQuery, TreeRow
from engine.store.tree_index import ADDED, MODIFIED, REMOVED, TreeIndex

MARKS: tuple[Mark, ...] = ("", "A", "M", "D")
_CHECK_EVERY = 8192
_ALL = 0b1111


def kind_of(mode: int) -> FileKind:
    kinds: dict[int, FileKind] = {
        stat.S_IFDIR: "dir",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "char",
        stat.S_IFBLK: "block",
    }
    return kinds.get(stat.S_IFMT(mode), "file")


def is_folder(mode: int) -> bool:
    return mode & 0o170000 == stat.S_IFDIR


@dataclass
class _Folds:
    open: bool
    others: set[int] = field(default_factory=set)


class TreeRows:
    """`lines` gives the history line of a layer number."""

    def __init__(self, tree: TreeIndex, lines: Sequence[int], link: Callable[[str], str] = lambda path: "") -> None:
        self._tree, self._lines, self._link = tree, lines, link
        self._query = TreeQuery()
        self._mask = _ALL
        self._keep: bytearray | None = None  # entries that match the pattern, and the folders above them
        self._found = 0
        # Whether folders are open, and those that are not so: without a pattern, and with one.
        self._plain: _Folds = _Folds(open=False)
        self._matched: _Folds = _Folds(open=True)
        self._rows = self._below(0)

    def extent(self) -> TreeExtent:
        counts = self._tree.head.counts
        return TreeExtent(
            len(self._rows),
            sum(counts) - counts[REMOVED],
            self._tree.size[0],
            counts[ADDED],
            counts[MODIFIED],
            counts[REMOVED],
            self._found,
        )

    # --- what shows ---------------------------------------------------------------------------------------

    def select(self, query: TreeQuery, cancel: CancelToken | None = None) -> None:
        """Raises `InvalidInput` for a pattern that is none, or too slow. Without a pattern the folders are as they were before it."""
        cancel = cancel or CancelToken()
        keep, found = self._keep, self._found
        if query.pattern != self._query.pattern:
            keep, found = self._matching(query.pattern, cancel)
            self._matched = _Folds(open=True)
        self._keep, self._found, self._query = keep, found, query
        self._mask = sum(1 << MARKS.index(mark) for mark in query.marks)
        self._rows = self._below(0, cancel)

    def _matching(self, pattern: str, cancel: CancelToken) -> tuple[bytearray | None, int]:
        if not pattern:
            return None, 0
        matches = Pattern(os.fsencode(pattern)).found_in
        tree = self._tree
        start, up, names = tree.start, tree.up, bytes(tree.names)
        keep = bytearray(len(tree))
        paths: dict[int, bytes] = {0: b""}  # of folders
        mode, found = tree.mode, 0
        for node in range(1, len(tree)):
            if not node % _CHECK_EVERY:
                cancel.check()
            path = paths[node - up[node]] + b"/" + names[start[node] : start[node + 1]]
            if is_folder(mode[node]):
                paths[node] = path
            if matches(path):
                found += 1
                while node and not keep[node]:
                    keep[node] = 1
                    node -= up[node]
        return keep, found

    def _kids(self, node: int) -> list[int]:
        """What shows in a folder, in order."""
        tree, mask, keep = self._tree, self._mask, self._keep
        kids = list(tree.children(node))
        if mask != _ALL:
            has = tree.has
            kids = [kid for kid in kids if has[kid] & mask]
        if keep is not None:
            kids = [kid for kid in kids if keep[kid]]
        if self._query.order == "size":
            kids.sort(key=tree.size.__getitem__, reverse=True)
        return kids

    @property
    def _folds(self) -> _Folds:
        return self._plain if self._keep is None else self._matched

    def _is_open(self, node: int) -> bool:
        folds = self._folds
        return folds.open != (node in folds.others)

    def _below(self, node: int, cancel: CancelToken | None = None) -> array[int]:
        """The rows under an open folder."""
        tree, mode = self._tree, self._tree.mode
        plain = self._mask == _ALL and self._keep is None
        if plain and self._plain.open and not self._plain.others and self._query.order == "name":
            return array("I", range(node + 1, node + tree.count[node]))
        rows = array("I")
        stack = [iter(self._kids(node))]
        while stack:
            for kid in stack[-1]:
                rows.append(kid)
                if is_folder(mode[kid]) and self._is_open(kid):
                    if cancel is not None:
                        cancel.check()
                    stack.append(iter(self._kids(kid)))
                    break
            else:
                stack.pop()
        return rows

    def fold(self, row: int, *, open: bool) -> None:
        """Opens or closes the folder of a row; a row that is no folder stays."""
        if not 0 <= row < len(self._rows):
            return
        node = self._rows[row]
        if not is_folder(self._tree.mode[node]) or self._is_open(node) == open:
            return
        self._folds.others ^= {node}
        if open:
            self._rows[row + 1 : row + 1] = self._below(node)
        else:
            end = node + self._tree.count[node]
            last = row + 1
            while last < len(self._rows) and node < self._rows[last] < end:
                last += 1
            del self._rows[row + 1 : last]

    def fold_all(self, *, open: bool, cancel: CancelToken | None = None) -> None:
        if self._keep is None:
            self._plain = _Folds(open)
        else:
            self._matched = _Folds(open)
        self._rows = self._below(0, cancel)

    # --- reading --------------------------------------------------------------------------------------------

    def rows(self, first: int, count: int) -> list[TreeRow]:
        return [self.row(node) for node in self._rows[max(0, first) : max(0, first) + count]]

    def row(self, node: int) -> TreeRow:
        tree = self._tree
        path = "/" + os.fsdecode(tree.path(node))
        mode, number = tree.mode[node], tree.layer[node]
        kind = kind_of(mode)
        made = TreeRow(
            path,
            tree.depth(node),
            kind,
            stat.S_IMODE(mode),
            tree.uid[node],
            tree.gid[node],
            tree.size[node],
            tree.mtime[node],
            MARKS[tree.mark[node]],
            self._lines[number] if number < len(self._lines) else -1,
            kind == "dir" and self._is_open(node),
        )
        return replace(made, link=self._link(path)) if kind == "link" and made.mark != "D" else made

    def row_of(self, path: str) -> int | None:
        """The row of a path, whose folders are opened for it; None when it is not here or does not show."""
        node = self._tree.find(os.fsencode(path))
        if not node:
            return None
        above = []
        at = node - self._tree.up[node]
        while at:
            above.append(at)
            at -= self._tree.up[at]
        try:
            for folder in reversed(above):
                self.fold(self._rows.index(folder), open=True)
            return self._rows.index(node)
        except ValueError:
            return None
