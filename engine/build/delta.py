"""A COPY layer made out of the one that the same step made before: only what changed is read, and only that is written.

The layer's tree then holds the changed files alone and stands on the tree before (`LayerRecord.base`); its tar is the tar before with
other entries in their places. Its bytes, and so its digest, are those that copying everything would give: whatever this module is not sure
of, it leaves to that (`change` returns None). What changed is what the context's index has seen change since the whole copy: stat
data, not only content, for times are in a tar.
"""

from __future__ import annotations

import os
import posixpath
import stat
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.archive.diff import shown_xattrs
from engine.archive.writer import BLOCK, LayerWriter, TarEntry, Written
from engine.base.cancel import CancelToken
from engine.build.copier import Copier
from engine.build.copy import CopyPlan, Item, Tree
from engine.build.index import ContextIndex
from engine.build.indexed import IndexedSource
from engine.build.source import Node
from engine.build.stamped import Layer, Record, bounded, scan
from engine.build.writer import UpperWriter
from engine.errors import NotFound, from_os_error
from engine.oci.digest import Digest
from engine.store.blobs import BlobWriter
from engine.store.store import Store
from engine.store.view import Entry, LayerView

MOST = 200  # changed paths, or an eighth of all: more are copied as a whole
KEPT = 32  # whole copies that are remembered
_TRAILER = 2 * BLOCK
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """A COPY of one folder of a context, `view` the image that it goes onto. `key`: what it shares with the same step of another build."""

    plan: CopyPlan
    tree: Tree
    source: IndexedSource
    view: LayerView
    key: Key


@dataclass(frozen=True, slots=True)
class Whole:
    """A layer that was copied as a whole, from what `index` knew at its look `tick`. `keys` are the paths of `records`, split."""

    index: ContextIndex
    tick: int
    chain: Digest
    blob: Digest
    tar_size: int
    content_size: int
    newest: int
    records: Sequence[Record]
    keys: Sequence[Key]
    stale: frozenset[str] = frozenset()  # paths of the context that differed already then


class Copies:
    """The whole copies that this process made, by what `Copied.key` says. For several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Whole] = OrderedDict()
        self._tried: tuple[Key, Digest] | None = None
        self._lock = threading.Lock()

    def get(self, copied: Copied) -> Whole | None:
        with self._lock:
            found = self._known.get(copied.key)
            if found is None or found.index is not copied.source.index:
                return None
            self._known.move_to_end(copied.key)
            return found

    def may_recall(self, copied: Copied, chain: Digest) -> bool:
        """Whether it is worth trying: not what was tried last."""
        with self._lock:
            before, self._tried = self._tried, (copied.key, chain)
            return before != self._tried

    def put(self, copied: Copied, chain: Digest, blob: Digest, layer: Layer) -> None:
        """A layer that was just copied as a whole. With hard links in it, nothing is remembered."""
        records, written = layer.records, layer.written
        if not records or any(record.kind == "hardlink" for record in records):
            return
        newest = max(record.mtime for record in records)
        whole = Whole(
            copied.source.index, copied.source.tick, chain, blob, written.tar_size, written.content_size, newest,
            records, _keys(records),
        )  # fmt: skip
        self.keep(copied, whole)

    def keep(self, copied: Copied, whole: Whole) -> None:
        with self._lock:
            self._known[copied.key] = whole
            if len(self._known) > KEPT:
                self._known.popitem(last=False)


def _keys(records: Sequence[Record]) -> list[Key]:
    return [tuple(record.path.split("/")) for record in records]


def recall(store: Store, copied: Copied, chain: Digest, below: Sequence[Path]) -> Whole | None:
    """The whole copy behind a layer that another process made, or this one's cache had: from its tar, and from what the context's index
    knows. The layer has the content that the context has now; its times may be older ones, and where it stands on another, that one
    has what the folder held before."""
    record = store.layers.get(chain)
    base = store.layers.get(record.base) if record is not None and record.base is not None else record
    if record is None or base is None or base.base is not None or not store.blobs.has(base.diff_id):
        return None
    top = LayerView([*store.layers.trees([chain]), *below]).lookup(copied.plan.dest)
    if top is None or not top.is_dir:
        return None
    with store.blobs.open(base.diff_id) as blob:
        size = os.fstat(blob.fileno()).st_size
        records = scan(blob.fileno(), size)
    keys = _keys(records)
    if not records or any(each.kind == "hardlink" for each in records) or keys != sorted(keys):
        return None
    index, prefix = copied.source.index, f"{top.path}/" if top.path else ""
    inner = f"{copied.tree.top.path}/" if copied.tree.top.path else ""
    with index.lock:
        times = ((inner + each.path[len(prefix) :], each.mtime) for each in records if each.path.startswith(prefix))
        stale = {path for path, mtime in times if index.seconds(path) != mtime}
    if record.base is not None:
        own = (path for path in _paths_in(store.layers.tree(chain)) if path.startswith(prefix))
        stale |= {inner + path[len(prefix) :] for path in own}
    newest = max(each.mtime for each in records)
    # What has changed since that source was opened is noted in the index.
    tick = copied.source.tick
    return Whole(index, tick, base.chain, base.diff_id, size, base.size, newest, records, keys, frozenset(stale))


def _paths_in(tree: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            yield os.path.relpath(os.path.join(folder, name), tree)


def change(
    store: Store,
    whole: Whole,
    copied: Copied,
    below: Sequence[Path],
    upper: Path,
    blob: BlobWriter,
    cancel: CancelToken,
) -> Layer | None:
    """Fills `upper` and `blob` out of `whole`; `below` are the trees of the image that it goes onto. None, with both untouched, where
    the folder must be copied as a whole. Raises `StorageFull`, `Cancelled`."""
    record = store.layers.get(whole.chain)
    if record is None or record.base is not None or not store.blobs.has(whole.blob):
        return None
    try:
        before = store.blobs.open(whole.blob)
    except NotFound:
        return None
    with before:
        if os.fstat(before.fileno()).st_size != whole.tar_size:
            return None
        merged = LayerView([store.layers.tree(whole.chain), *below])
        job = _Change(whole, copied, merged)
        if not job.plan():
            return None
        try:
            job.write_tree(upper, cancel)
            return job.write_tar(before.fileno(), blob, cancel)
        except OSError as error:
            raise from_os_error(error, "copying into the image") from error


@dataclass(slots=True)
class _Present:
    key: Key
    target: str
    item: Item


class _Recorder:
    """Stands where the copier expects the layer's tar: keeps the entries, for they go into the midst of another tar."""

    def __init__(self, writer: UpperWriter, folders: set[str]) -> None:
        self._writer, self._folders = writer, folders
        self.entries: dict[str, tuple[TarEntry, bytes | None]] = {}
        self.left_out: set[str] = set()

    def folder(self, path: str) -> None:
        if path not in self._folders or path in self.entries:
            return
        real = self._writer.real(path)
        status = os.lstat(real)
        mode, mtime = stat.S_IMODE(status.st_mode), self._writer.time_of(path) // 10**9
        entry = TarEntry(path, "dir", mode, status.st_uid, status.st_gid, mtime, xattrs=shown_xattrs(real))
        self.entries[path] = (entry, b"")

    def file(self, entry: TarEntry, below: Entry | None, data: bytes | None) -> None:
        self.entries[entry.path] = (entry, data if entry.kind == "file" else b"")


@dataclass(slots=True)
class _Change:
    whole: Whole
    copied: Copied
    merged: LayerView
    present: list[_Present] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  # uppermost paths that are no longer there
    dropped: list[int] = field(default_factory=list)  # records that go, replaced ones apart
    entries: dict[str, tuple[TarEntry, bytes | None]] = field(default_factory=dict)
    upper: str = ""

    # --- what is to be done ---------------------------------------------------------------------------

    def plan(self) -> bool:
        """False where the result might not be what a whole copy gives."""
        whole, tree = self.whole, self.copied.tree
        found = self.copied.source.changed_since(whole.tick, whole.stale)
        if found is None or len(found) > max(MOST, len(whole.records) // 8):
            return False
        top = self.merged.lookup(self.copied.plan.dest)
        if top is None or not top.is_dir:
            return False
        prefix = f"{tree.top.path}/" if tree.top.path else ""
        for path, node in found:
            inside = path[len(prefix) :] if path.startswith(prefix) else ""
            if not inside or path == tree.top.path:
                continue
            target = f"{top.path}/{inside}" if top.path else inside
            if self.copied.view.lookup(target, follow=False) is not None:
                return (
                    False  # what is as it was in the image below is left out of a layer, and what is removed shows it
                )
            if not self._path(target, inside, node):
                return False
        left = len(whole.records) - len(self.dropped) + len(self.present)
        return left > (top.path.count("/") + 1 if top.path else 0)

    def _path(self, target: str, inside: str, node: Node | None) -> bool:
        key = tuple(target.split("/"))
        if node is None or stat.S_ISSOCK(node.status.st_mode):
            self._remove(target, key)
            return True
        if node.is_file and node.status.st_nlink > 1:
            return False
        was = self.merged.lookup(target, follow=False)
        if was is not None:
            if stat.S_IFMT(was.status.st_mode) != stat.S_IFMT(node.status.st_mode) or self._record(key) is None:
                return False
            if was.is_dir and shown_xattrs(was.real):
                return False  # attributes that were taken away would come through from the tree before
        if len(key) > 1 and self._record(key[:-1]) is None and not any(each.key == key[:-1] for each in self.present):
            return False
        self.present.append(_Present(key, target, Item(inside, node)))
        return True

    def _record(self, key: Key) -> int | None:
        at = bisect_left(self.whole.keys, key)
        return at if at < len(self.whole.keys) and self.whole.keys[at] == key else None

    def _remove(self, target: str, key: Key) -> None:
        if any(target.startswith(f"{above}/") for above in self.gone):
            return
        at, keys = bisect_left(self.whole.keys, key), self.whole.keys
        first = at
        while at < len(keys) and keys[at][: len(key)] == key:
            at += 1
        if at > first:
            self.gone.append(target)
            self.dropped += range(first, at)

    # --- doing it -----------------------------------------------------------------------------------------

    def write_tree(self, upper: Path, cancel: CancelToken) -> None:
        self.upper = str(upper)
        writer = UpperWriter(upper, self.merged)
        recorder = _Recorder(writer, {each.target for each in self.present if each.item.node.is_dir})
        copier = Copier(writer, self.copied.plan, cancel, self.upper, recorder)
        try:
            for each in self.present:
                cancel.check()
                copier.put(self.copied.tree, each.item, each.target)
            for target in self.gone:
                writer.whiteout(target)
            writer.close()
        finally:
            copier.close()
        self.entries = recorder.entries

    def write_tar(self, before: int, blob: BlobWriter, cancel: CancelToken) -> Layer:
        whole, tar = self.whole, LayerWriter(blob, hashed=False)
        end = whole.tar_size - _TRAILER
        edits: list[tuple[Key, int, int, str]] = [(whole.keys[at], at, at + 1, "") for at in self.dropped]
        for each in self.present:
            at = bisect_left(whole.keys, each.key)
            same = at < len(whole.keys) and whole.keys[at] == each.key
            edits.append((each.key, at, at + 1 if same else at, each.target))
        done = 0
        for _, first, last, target in sorted(edits):
            cancel.check()
            blob.splice(before, done, self._start(first, end))
            if target:
                self._add(tar, *self.entries[target])
            done = self._start(last, end)
        blob.splice(before, done, whole.tar_size)
        return self._layer(blob, [at for _, first, last, _ in edits for at in range(first, last)])

    def _start(self, at: int, end: int) -> int:
        return self.whole.records[at].start if at < len(self.whole.records) else end

    def _add(self, tar: LayerWriter, entry: TarEntry, data: bytes | None) -> None:
        if data is not None:
            tar.add_whole(entry, data)
            return
        with open(os.open(f"{self.upper}/{entry.path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as body:
            tar.add(entry, body)

    def _layer(self, blob: BlobWriter, out: Sequence[int]) -> Layer:
        whole = self.whole
        new = [entry for entry, _ in self.entries.values()]
        newest = max((entry.mtime for entry in new), default=0)
        if any(whole.records[at].mtime == whole.newest for at in out):
            gone = set(out)
            newest = max((newest, *(r.mtime for at, r in enumerate(whole.records) if at not in gone)))
        else:
            newest = max(newest, whole.newest)
        size = whole.content_size + sum(entry.size for entry in new if entry.kind == "file")
        size -= sum(whole.records[at].size for at in out)
        return Layer(Written(blob.digest(), blob.size, size), bounded(newest))


def copied_key(chain: str, instruction: str, plan: CopyPlan, tree: Tree, source: IndexedSource) -> Key:
    """What two COPY steps share whose layers differ by what changed in their folder alone."""
    patterns = source.matcher.patterns if source.matcher else ()
    return (
        chain,
        instruction,
        str(plan.chmod),
        str(source.root),
        tree.top.path,
        posixpath.normpath(plan.dest),
        *patterns,
    )
