"""Making the index of a stack of layers: that of the stack below, and the topmost layer's tree laid over it.

Folders that the layer does not touch are copied as ranges; the rest is a merge of sorted names. What the layer replaces or
removes is counted as wasted: those bytes travel with the image and nobody sees them.
"""

from __future__ import annotations

import os
import stat
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.base.cancel import CancelToken
from engine.store.tree_index import ADDED, FORMATS, MODIFIED, REMOVED, SAME, Head, TreeIndex
from engine.store.view import hides_below, is_whiteout

REPORT_EVERY = 4096  # entries between two calls of `progress`
_ROOT_MODE = stat.S_IFDIR | 0o755


def build_index(
    below: TreeIndex | None,
    trees: Sequence[Path],
    *,
    progress: Callable[[int], None] = lambda entries: None,
    cancel: CancelToken | None = None,
    depth: int = 0,
) -> TreeIndex:
    """`depth`: folders so deep are not looked into (0: all are); what such an index says of sizes and counts is of what it has. `trees` are the layer's folders as `LayerStore.trees` gives them: where there are two, whiteouts of the upper one say what
    the layer has not, and remove nothing from the layers below."""
    return _Builder(below, progress, cancel or CancelToken(), depth).run([os.fsencode(tree) for tree in trees])


class _Builder:
    def __init__(
        self, below: TreeIndex | None, progress: Callable[[int], None], cancel: CancelToken, depth: int = 0
    ) -> None:
        self._depth, self._level = depth, 0
        self._below, self._progress, self._cancel = below, progress, cancel
        self._c = {name: array(kind) for name, kind in FORMATS.items()}
        self._names = bytearray()
        old = below.head if below is not None else Head()
        self.head = Head([*old.shipped, 0], [*old.wasted, 0], dict(old.worst))
        self._number = len(old.shipped)
        self._stacked = False
        self._links: set[tuple[int, int]] = set()
        self._told = 0

    def run(self, trees: Sequence[bytes]) -> TreeIndex:
        self._stacked = len(trees) > 1
        # Two frames a folder, and a layer may nest 512 of them (`engine.archive.reader.Limits`).
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 3000))
        status = os.lstat(trees[0]) if trees else None
        old = 0 if self._below is not None else None
        mark = SAME if status is None or self._below is None else self._changed(0, status)
        self._folder(b"", 0, status, list(trees), old, SAME if mark == SAME else MODIFIED, opaque=False)
        self._c["start"].append(len(self._names))
        self.head.trim()
        return TreeIndex(dict(self._c), bytes(self._names), self.head)

    # --- entries ------------------------------------------------------------------------------------------

    def _add(
        self, name: bytes, parent: int, values: tuple[int, int, int, int], size: int, layer: int, mark: int
    ) -> int:
        """`values` are mode, uid, gid and mtime. `has` and a folder's `size` and `count` are set when it is whole."""
        c = self._c
        node = len(c["count"])
        c["start"].append(len(self._names))
        self._names += name
        c["count"].append(1)
        c["up"].append(node - parent)
        c["mode"].append(values[0])
        c["uid"].append(values[1])
        c["gid"].append(values[2])
        c["mtime"].append(values[3])
        c["layer"].append(layer)
        c["mark"].append(mark)
        c["has"].append(1 << mark)
        c["size"].append(size)
        if node - self._told >= REPORT_EVERY:
            self._told = node
            self._cancel.check()
            self._progress(node)
        return node

    def _new(self, name: bytes, parent: int, real: bytes, status: os.stat_result, mark: int) -> None:
        """What the layer brings that is no folder."""
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            size = 0 if key in self._links else size
            self._links.add(key)
        self.head.shipped[-1] += size
        self.head.counts[mark] += 1
        self._add(name, parent, _values(status), size, self._number, mark)

    def _folder(
        self,
        name: bytes,
        parent: int,
        status: os.stat_result | None,
        sources: list[bytes],
        old: int | None,
        mark: int,
        *,
        opaque: bool,
    ) -> int:
        """A folder that the layer has, over the folder `old` of the stack below. Returns what it holds, in bytes."""
        values = _values(status) if status is not None else (_ROOT_MODE, 0, 0, 0)
        keep = mark == SAME and old is not None and self._below is not None
        layer = self._below.layer[old] if keep and self._below is not None and old is not None else self._number
        node = self._add(name, parent, values, 0, layer, mark)
        c, below = self._c, self._below
        self._level += 1
        entries = {} if self._depth and self._level > self._depth else self._listed(sources)
        olds = list(below.children(old)) if below is not None and old is not None else []
        at, size = 0, 0
        for one in sorted(entries):
            while at < len(olds) and below is not None and below.name(olds[at]) < one:
                size += self._left(olds[at], node, opaque)
                at += 1
            match: int | None = None
            if at < len(olds) and below is not None and below.name(olds[at]) == one:
                match = olds[at] if below.mark[olds[at]] != REMOVED else None
                at += 1
            size += self._entry(one, node, entries[one], match, opaque)
        for rest in olds[at:]:
            size += self._left(rest, node, opaque)
        c["count"][node] = len(c["count"]) - node
        c["size"][node] = size
        has = 1 << mark if mark != SAME or c["count"][node] == 1 else 0
        child, end = node + 1, len(c["count"])
        counts, flags = c["count"], c["has"]
        while child < end:
            has |= flags[child]
            child += counts[child]
        flags[node] = has
        self._level -= 1
        return size

    def _listed(self, sources: list[bytes]) -> dict[bytes, tuple[os.stat_result, list[bytes]]]:
        """What the layer has in a folder: status, and the folders that make it up."""
        found: dict[bytes, tuple[os.stat_result, list[bytes]]] = {}
        hidden: set[bytes] = set()
        for number, source in enumerate(sources):
            with os.scandir(source) as entries:
                for entry in entries:
                    name, status = entry.name, entry.stat(follow_symlinks=False)
                    known = found.get(name)
                    if name in hidden:
                        continue
                    if self._stacked and is_whiteout(status):
                        hidden.add(name)
                    elif known is None:
                        found[name] = (status, [entry.path])
                        if number + 1 < len(sources) and (
                            not stat.S_ISDIR(status.st_mode) or hides_below(os.fsdecode(entry.path))
                        ):
                            hidden.add(name)
                    elif stat.S_ISDIR(status.st_mode):
                        known[1].append(entry.path)
        return found

    def _entry(
        self, name: bytes, parent: int, found: tuple[os.stat_result, list[bytes]], old: int | None, opaque: bool
    ) -> int:
        """One name that the layer has. Returns the bytes that show."""
        status, sources = found
        if is_whiteout(status):
            if old is not None:
                self._gone(old, parent)
            return 0
        if opaque and old is not None:
            self._hide(old)
            old_mark = MODIFIED
        else:
            old_mark = ADDED if old is None else MODIFIED
        if not stat.S_ISDIR(status.st_mode):
            if old is not None and not opaque:
                self._hide(old)
            node = len(self._c["count"])
            self._new(name, parent, sources[0], status, old_mark)
            return self._c["size"][node]
        was_folder = old is not None and self._below is not None and stat.S_ISDIR(self._below.mode[old])
        if old is not None and not was_folder and not opaque:
            self._hide(old)
        if not was_folder or opaque:
            mark = ADDED if old is None else MODIFIED
            return self._folder(name, parent, status, sources, None, mark, opaque=False)
        assert old is not None  # it was a folder
        inner = not self._stacked and hides_below(os.fsdecode(sources[0]))
        return self._folder(name, parent, status, sources, old, self._changed(old, status), opaque=inner)

    def _changed(self, old: int, status: os.stat_result) -> int:
        below = self._below
        assert below is not None  # `old` is one of its entries
        same = (below.mode[old], below.uid[old], below.gid[old]) == _values(status)[:3]
        return SAME if same else MODIFIED

    # --- what the stack below has -----------------------------------------------------------------------------

    def _left(self, old: int, parent: int, opaque: bool) -> int:
        """A name that the layer does not have: as it was, or gone where the layer hides the folder's content."""
        below = self._below
        assert below is not None  # `old` is one of its entries
        if below.mark[old] == REMOVED:
            return 0
        if opaque:
            self._gone(old, parent)
            return 0
        if not below.has[old] & (1 << REMOVED):
            self._copy(old, parent, SAME)
        else:
            self._copy_apart(old, parent)
        return below.size[old]

    def _gone(self, old: int, parent: int) -> None:
        below = self._below
        assert below is not None  # `old` is one of its entries
        if below.mark[old] == REMOVED:
            return
        self._hide(old)
        if below.has[old] & (1 << REMOVED):
            node = self._copy_apart(old, parent)
            for one in range(node, len(self._c["count"])):
                self._remark(one, REMOVED)
            return
        self._copy(old, parent, REMOVED)

    def _remark(self, node: int, mark: int) -> None:
        if not stat.S_ISDIR(self._c["mode"][node]):
            self.head.counts[self._c["mark"][node]] -= 1
            self.head.counts[mark] += 1
        self._c["mark"][node] = mark
        self._c["has"][node] = 1 << mark

    def _copy(self, old: int, parent: int, mark: int) -> int:
        """A range of the stack below with nothing removed in it, as blocks."""
        below, c = self._below, self._c
        assert below is not None  # `old` is one of its entries
        node, size = len(c["count"]), below.count[old]
        end = old + size
        shift = len(self._names) - below.start[old]
        self._names += below.names[below.start[old] : below.start[end]]
        starts: Any = below.start[old:end]
        if shift:
            c["start"].extend([at + shift for at in starts])
        else:
            c["start"].frombytes(memoryview(starts).cast("B"))
        for name in ("count", "up", "mode", "uid", "gid", "layer", "size", "mtime"):
            c[name].frombytes(memoryview(below.columns[name])[old:end].cast("B"))
        c["up"][node] = node - parent
        c["mark"].frombytes(bytes([mark]) * size)
        c["has"].frombytes(bytes([1 << mark]) * size)
        if size == 1:
            self.head.counts[mark] += not stat.S_ISDIR(below.mode[old])
        else:
            self.head.counts[mark] += sum(mode & 0o170000 != stat.S_IFDIR for mode in below.mode[old:end])
        self._cancel.check()
        self._progress(len(c["count"]))
        return node

    def _copy_apart(self, old: int, parent: int) -> int:
        """A range in which the layer below had removed something: that is dropped now."""
        below, c = self._below, self._c
        assert below is not None  # `old` is one of its entries
        values = (below.mode[old], below.uid[old], below.gid[old], below.mtime[old])
        node = self._add(below.name(old), parent, values, below.size[old], below.layer[old], SAME)
        if not stat.S_ISDIR(values[0]):
            self.head.counts[SAME] += 1
        for child in below.children(old):
            if below.mark[child] == REMOVED:
                continue
            if below.has[child] & (1 << REMOVED):
                self._copy_apart(child, node)
            else:
                self._copy(child, node, SAME)
        c["count"][node] = len(c["count"]) - node
        return node

    def _hide(self, old: int) -> None:
        """What shows at `old` below is wasted from now on."""
        below = self._below
        assert below is not None  # `old` is one of its entries
        if below.mark[old] == REMOVED:
            return
        self.head.waste("/" + os.fsdecode(below.path(old)), below.size[old])
        for node in range(old, old + below.count[old]):
            if below.mark[node] != REMOVED and not stat.S_ISDIR(below.mode[node]):
                self.head.wasted[below.layer[node]] += below.size[node]


def _values(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns
