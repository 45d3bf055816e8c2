"""A layer's tar from an upper directory, and the newest time in it: what `created` says, so that equal content has equal configs."""

from __future__ import annotations

import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from engine.archive.diff import write_upper
from engine.archive.writer import BLOCK, TYPES, LayerWriter, Sink, TarEntry, Written
from engine.base.cancel import CancelToken
from engine.errors import Corrupt
from engine.store.blobs import BlobWriter
from engine.store.view import Entry, LayerView

_KINDS = {letter: kind for kind, letter in TYPES.items()}
PIECE = 1 << 20  # bytes that are hashed and written at once
BEHIND = 4  # pieces that may wait for it


@dataclass(frozen=True, slots=True)
class Layer:
    """`newest` in seconds; 0 for a layer without files. `records`: its entries, where they were asked for."""

    written: Written
    newest: int
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a layer's tar: where it begins, its time in seconds, the bytes of its content."""

    path: str
    kind: str
    start: int
    mtime: int
    size: int


class _Writer(LayerWriter):
    def __init__(self, out: Sink) -> None:
        super().__init__(out, hashed=False)
        self.newest = 0
        self.records: list[Record] | None = None

    def add(self, entry: TarEntry, body: BinaryIO | None = None) -> None:
        self._note(entry)
        super().add(entry, body)

    def add_whole(self, entry: TarEntry, data: bytes) -> None:
        self._note(entry)
        super().add_whole(entry, data)

    def _note(self, entry: TarEntry) -> None:
        self.newest = max(self.newest, entry.mtime)
        if self.records is not None:
            size = entry.size if entry.kind == "file" else 0
            self.records.append(Record(entry.path, entry.kind, self._size, entry.mtime, size))


def scan(fd: int, size: int) -> list[Record]:
    """The entries of a layer that `make_layer` wrote. Raises `Corrupt` for what is none."""
    records = []
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as tar:
        at = start = 0
        pax: dict[bytes, bytes] = {}
        while at + BLOCK <= size and (kind := tar[at + 156 : at + 157]) != b"\0":
            length = int(tar[at + 124 : at + 135], 8)
            if kind == b"x":
                pax = _pax(tar[at + BLOCK : at + BLOCK + length])
            elif kind not in _KINDS:
                raise Corrupt(f"a layer with an entry of type {kind!r}")
            else:
                length = int(pax.get(b"size", length))
                name = pax.get(b"path") or tar[at : at + 100].rstrip(b"\0")
                mtime = int(pax.get(b"mtime") or int(tar[at + 136 : at + 147], 8))
                path = name.decode("utf-8", "surrogateescape").rstrip("/")
                records.append(Record(path, _KINDS[kind], start, mtime, length))
                pax = {}
            at += BLOCK + length + -length % BLOCK
            if kind != b"x":
                start = at
    return records


def _pax(data: bytes) -> dict[bytes, bytes]:
    found = {}
    while data:
        length = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        found[key], data = value, data[length:]
    return found


class _Behind:
    """Hashing and writing on a thread of their own, a few megabytes behind: both leave the interpreter to the rest.

    A large file is written in many pieces: between two of them, the work can be cancelled.
    """

    def __init__(self, out: Sink, cancel: CancelToken) -> None:
        self._out, self._cancel = out, cancel
        self._pieces: list[bytes] = []
        self._size = 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(BEHIND)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def write(self, data: bytes, /) -> int:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self._pass_on()
        return len(data)

    def _pass_on(self) -> None:
        self._cancel.check()
        if self._error is not None:
            raise self._error
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="layer-writer", daemon=True)
            self._thread.start()
        self._queue.put(b"".join(self._pieces))
        self._pieces.clear()
        self._size = 0

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._out.write(data)
                except BaseException as error:
                    self._error = error

    def close(self) -> None:
        """Everything is written. Raises what writing raised."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error
        self._out.write(b"".join(self._pieces))
        self._pieces.clear()

    def abandon(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None


class _Below:
    """The image below, as the differ asks for it. Neighbours are asked for one after the other: folders are remembered."""

    def __init__(self, view: LayerView) -> None:
        self._view = view
        self._folder: tuple[str, Entry | None] = ("\0", None)

    def _directory(self, path: str) -> Entry | None:
        if self._folder[0] != path:
            entry = self._view.lookup(path, follow=False) if path else self._view.lookup("")
            self._folder = (path, entry if entry is not None and entry.is_dir and entry.path == path else None)
        return self._folder[1]

    def find(self, path: str) -> tuple[str, os.stat_result] | None:
        folder, name = os.path.split(path)
        parent = self._directory(folder)
        entry = self._view.child(parent, name) if parent is not None else None
        return (entry.real, entry.status) if entry is not None else None

    def names(self, path: str) -> list[str]:
        entry = self._directory(path)
        return [os.path.basename(child.path) for child in self._view.children(entry)] if entry is not None else []


def write_layer(
    upper: Path, blob: BlobWriter, view: LayerView, cancel: CancelToken, *, epoch: int | None = None
) -> Layer:
    """What `upper` changes of `view`. With an `epoch` no file is younger than that: neither in the tar nor in `upper`."""
    if epoch is not None:
        _clamp(str(upper), epoch)
    below = _Below(view)
    return make_layer(blob, cancel, lambda out: write_upper(upper, out, below, cancel=cancel, mtime_clamp=epoch))


def make_layer(
    blob: BlobWriter, cancel: CancelToken, fill: Callable[[LayerWriter], None], *, recorded: bool = False
) -> Layer:
    """The layer that `fill` writes, in `blob`. It is not compressed, so its digest is the diff ID: it is hashed once."""
    behind = _Behind(blob, cancel)
    writer = _Writer(behind)
    writer.records = [] if recorded else None
    try:
        fill(writer)
        written = writer.finish()
        behind.close()
    finally:
        behind.abandon()
    return Layer(replace(written, diff_id=blob.digest()), bounded(writer.newest), tuple(writer.records or ()))


def bounded(newest: int) -> int:
    """A file from the future does not make a layer younger than it is."""
    return min(newest, int(time.time()))


def _clamp(root: str, epoch: int) -> None:
    for folder, folders, files in os.walk(root, topdown=False):
        for name in [*files, *folders]:
            path = os.path.join(folder, name)
            if os.lstat(path).st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
