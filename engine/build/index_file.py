"""A context index on disk: one file, in a form that is read with few operations however many paths there are.

A line of JSON says what it is; paths, parents, digests and stat data follow as blocks. It is a cache: a file that is damaged, of another
version or of other ignore patterns counts as none.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.atomic import write_atomic
from engine.linux.statx import SIZE

VERSION = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """Slots are places in these lists; the root is the first, parents stand before their children."""

    patterns: tuple[str, ...]
    paths: Sequence[str]
    parents: Sequence[int]
    digests: Sequence[str]
    folders: Sequence[int]
    racy: Sequence[int]
    xattrs: Mapping[int, Mapping[str, bytes]]
    stats: bytes


def write_index(path: Path, saved: Saved) -> None:
    """Replaces the file; not synced, for after a power cut it is made anew. A full disk leaves the old one."""
    texts = ["\0".join(saved.paths), "\0".join(saved.digests)]
    blocks = [
        *(text.encode("utf-8", "surrogateescape") for text in texts),
        array("I", saved.parents).tobytes(),
        array("I", saved.folders).tobytes(),
        saved.stats,
    ]
    head = {
        "version": VERSION,
        "patterns": saved.patterns,
        "count": len(saved.paths),
        "racy": saved.racy,
        "xattrs": {str(slot): {n: v.hex() for n, v in found.items()} for slot, found in saved.xattrs.items()},
        "sizes": [len(block) for block in blocks],
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(path, json.dumps(head).encode() + b"\n" + b"".join(blocks), durable=False)


def read_index(path: Path, patterns: tuple[str, ...]) -> Saved | None:
    """What `write_index` wrote, None when it is of no use."""
    try:
        with open(path, "rb") as file:
            head = json.loads(file.readline())
            if head["version"] != VERSION or tuple(head["patterns"]) != patterns:
                return None
            blocks = [file.read(size) for size in head["sizes"]]
        count = head["count"]
        paths, digests = (block.decode("utf-8", "surrogateescape").split("\0") for block in blocks[:2])
        parents, folders = array("I"), array("I")
        parents.frombytes(blocks[2])
        folders.frombytes(blocks[3])
        if not len(paths) == len(digests) == len(parents) == count or len(blocks[4]) != count * SIZE or paths[0]:
            return None
        if any(parent >= max(number, 1) for number, parent in enumerate(parents)):
            return None
        xattrs = {int(s): {n: bytes.fromhex(v) for n, v in found.items()} for s, found in head["xattrs"].items()}
        parents[0] = 0
        listed = list(parents)
        listed[0] = -1
        return Saved(patterns, paths, listed, digests, list(folders), head["racy"], xattrs, blocks[4])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def forget(folder: Path, keep: int = 64) -> None:
    """Leaves the `keep` indexes that were written last."""
    with contextlib.suppress(OSError):
        found = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in found[keep:]:
            os.unlink(entry.path)
