"""Files of images and of their layers.

An image name may end in `#INDEX`, the number of a line of its history (`LayerInfo.index`): then the layers up to that line
are meant, and what that line's layer changed is marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["", "A", "M", "D"]  # as it was, added, modified, removed by the layer that is looked at
FileKind = Literal["dir", "file", "link", "fifo", "char", "block"]


@dataclass(frozen=True, slots=True)
class TreeQuery:
    """What a tree shows: entries with one of `marks` (a folder shows for what is in it), whose path `pattern` (a regular
    expression, searched for) matches; "" is everything."""

    order: Literal["size", "name"] = "size"
    marks: frozenset[Mark] = frozenset(("", "A", "M", "D"))
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class TreeExtent:
    """`rows` show now. The counts are of everything but folders; `size` is all that shows in the image, `found` how many entries match
    the pattern."""

    rows: int
    files: int
    size: int
    added: int
    modified: int
    removed: int
    found: int = 0


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One row. `size` of a folder is that of everything in it; of one of several hard links to a file, of the first alone.
    `layer` is the history line whose layer has the entry as it is (of a removed one: as it was)."""

    path: str  # "/usr/bin/env"
    depth: int  # 0 below the root
    kind: FileKind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    mark: Mark
    layer: int
    open: bool = False
    link: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class WastedPath:
    """Bytes of versions of a path that later layers replaced or removed, and how many of them there are."""

    path: str
    size: int
    times: int


@dataclass(frozen=True, slots=True)
class LayerWaste:
    """`shipped` are the bytes that the layer brings, `wasted` those of them that a later layer hides."""

    index: int
    shipped: int
    wasted: int


@dataclass(frozen=True, slots=True)
class WasteReport:
    layers: tuple[LayerWaste, ...]
    worst: tuple[WastedPath, ...]  # most bytes first

    @property
    def shipped(self) -> int:
        return sum(layer.shipped for layer in self.layers)

    @property
    def wasted(self) -> int:
        return sum(layer.wasted for layer in self.layers)

    @property
    def efficiency(self) -> float:
        """The part of what the layers bring that shows in the end, 0 to 1."""
        return 1 - self.wasted / self.shipped if self.shipped else 1.0


@dataclass(frozen=True, slots=True)
class FileStep:
    """What one layer did to a path."""

    index: int
    instruction: str
    line: int
    mark: Mark
    kind: FileKind
    mode: int
    uid: int
    gid: int
    size: int


@dataclass(frozen=True, slots=True)
class FileContent:
    """The beginning of a file. `text`: it can be read as such (UTF-8 without control characters); `link` is where a symbolic link
    points, which is never followed."""

    path: str
    kind: FileKind
    size: int
    data: bytes
    text: bool
    truncated: bool
    link: str = ""


@dataclass(frozen=True, slots=True)
class FileComparison:
    """One path in two trees. `lines` is a unified diff where both are text (or missing); else `what` says what differs."""

    path: str
    what: str
    lines: tuple[str, ...] = ()
    truncated: bool = False
