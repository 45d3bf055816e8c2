"""The files that a stack of layers shows, as columns: made once for a stack, then read without being loaded.

Entries stand in depth-first order, names sorted as bytes; an entry and everything below it are one range, so that what a layer leaves
alone is copied from the stack below as blocks. The file is a line of JSON and the columns behind it, mapped into memory when it
is read. It is a cache: one that is damaged or of another version counts as none.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1
SAME, ADDED, MODIFIED, REMOVED = range(4)
FORMATS = {
    "start": "I",  # of the name in `names`; one more than entries
    "count": "I",  # entries of the range, the first included
    "up": "I",  # how many entries before this one its folder stands
    "mode": "I",  # st_mode
    "uid": "I",
    "gid": "I",
    "layer": "H",  # number of the layer that has it
    "mark": "B",  # what the topmost layer did to it
    "has": "B",  # 1 << mark of everything in the range; a folder that is as it was counts only when it is empty
    "size": "Q",  # what is counted: 0 for a further hard link, the sum for a folder
    "mtime": "q",  # ns
}
WORST = 2000  # paths that are remembered as wasted


@dataclass
class Head:
    """`shipped` and `wasted` by layer number; `worst` is path -> (bytes, versions)."""

    shipped: list[int] = field(default_factory=list)
    wasted: list[int] = field(default_factory=list)
    worst: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # by mark, folders apart

    def waste(self, path: str, size: int) -> None:
        if size:
            before, times = self.worst.get(path, (0, 0))
            self.worst[path] = (before + size, times + 1)

    def trim(self) -> None:
        if len(self.worst) > WORST:
            kept = sorted(self.worst.items(), key=lambda item: -item[1][0])[:WORST]
            self.worst = dict(kept)


class TreeIndex:
    """Columns by name (see `FORMATS`), each like a sequence of integers. Entry 0 is the root."""

    start: Sequence[int]
    count: Sequence[int]
    up: Sequence[int]
    mode: Sequence[int]
    uid: Sequence[int]
    gid: Sequence[int]
    layer: Sequence[int]
    mark: Sequence[int]
    has: Sequence[int]
    size: Sequence[int]
    mtime: Sequence[int]

    def __init__(self, columns: dict[str, Any], names: Any, head: Head) -> None:
        self.__dict__.update(columns)
        self.names, self.head = names, head
        self.columns = columns

    def __len__(self) -> int:
        return len(self.count)

    def name(self, node: int) -> bytes:
        return bytes(self.names[self.start[node] : self.start[node + 1]])

    def children(self, node: int) -> Iterator[int]:
        count = self.count
        end = node + count[node]
        node += 1
        while node < end:
            yield node
            node += count[node]

    def path(self, node: int) -> bytes:
        """`usr/bin/env`, b"" for the root."""
        parts = []
        while node:
            parts.append(self.name(node))
            node -= self.up[node]
        return b"/".join(reversed(parts))

    def depth(self, node: int) -> int:
        """0 for what is in the root."""
        depth = -1
        while node:
            depth += 1
            node -= self.up[node]
        return depth

    def find(self, path: bytes) -> int | None:
        node = 0
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            found = next((child for child in self.children(node) if self.name(child) == part), None)
            if found is None:
                return None
            node = found
        return node


def write_index(path: Path, tree: TreeIndex) -> None:
    """Replaces the file; not synced. A full disk leaves none."""
    blocks = [memoryview(tree.columns[name]).cast("B") for name in FORMATS]
    head = {
        "version": VERSION,
        "entries": len(tree),
        "names": len(tree.names),
        "shipped": tree.head.shipped,
        "wasted": tree.head.wasted,
        "worst": [[path, *values] for path, values in tree.head.worst.items()],
        "counts": tree.head.counts,
    }
    line = json.dumps(head).encode()
    line += b" " * (-(len(line) + 1) % 8) + b"\n"
    temp = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with open(temp, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
                out.write(line)
                for block in blocks:
                    out.write(block)
                    out.write(bytes(-len(block) % 8))
                out.write(tree.names)
            os.rename(temp, path)
        finally:
            temp.unlink(missing_ok=True)


def read_index(path: Path) -> TreeIndex | None:
    """What `write_index` wrote, None when there is none that is of use."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
            head = json.loads(line)
            if head["version"] != VERSION:
                return None
            data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        entries, at = head["entries"], len(line)
        columns = {}
        for name, kind in FORMATS.items():
            size = array(kind).itemsize * (entries + (name == "start"))
            column: Any = data[at : at + size]
            columns[name] = column.cast(kind)
            at += size + -size % 8
        names = data[at : at + head["names"]]
        if not entries or len(names) != head["names"] or columns["start"][entries] != len(names):
            return None
        worst = {str(path): (int(size), int(times)) for path, size, times in head["worst"]}
        return TreeIndex(columns, names, Head(head["shipped"], head["wasted"], worst, head["counts"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
