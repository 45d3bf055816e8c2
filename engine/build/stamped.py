"""A layer's tar from an upper directory, and the newest time in it: what `created` says, so that equal content has equal configs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.archive.diff import write_upper
from engine.archive.writer import LayerWriter, Sink, TarEntry, Written
from engine.base.cancel import CancelToken
from engine.store.view import Entry, LayerView


@dataclass(frozen=True, slots=True)
class Layer:
    """`newest` in seconds; 0 for a layer without files."""

    written: Written
    newest: int


class _Writer(LayerWriter):
    def __init__(self, out: Sink) -> None:
        super().__init__(out)
        self.newest = 0

    def add(self, entry: TarEntry, body: BinaryIO | None = None) -> None:
        self.newest = max(self.newest, entry.mtime)
        super().add(entry, body)


class _Checked:
    """A large file is written in many pieces: between two of them, the work can be cancelled."""

    def __init__(self, out: Sink, cancel: CancelToken) -> None:
        self._out, self._cancel = out, cancel

    def write(self, data: bytes, /) -> int:
        self._cancel.check()
        return self._out.write(data)


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


def write_layer(upper: Path, out: Sink, view: LayerView, cancel: CancelToken, *, epoch: int | None = None) -> Layer:
    """What `upper` changes of `view`. With an `epoch` no file is younger than that: neither in the tar nor in `upper`."""
    if epoch is not None:
        _clamp(str(upper), epoch)
    writer = _Writer(_Checked(out, cancel))
    write_upper(upper, writer, _Below(view), cancel=cancel, mtime_clamp=epoch)
    return Layer(writer.finish(), min(writer.newest, int(time.time())))


def _clamp(root: str, epoch: int) -> None:
    for folder, folders, files in os.walk(root, topdown=False):
        for name in [*files, *folders]:
            path = os.path.join(folder, name)
            if os.lstat(path).st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
