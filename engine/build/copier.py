"""Carrying out a copy plan: what COPY and ADD put into a new layer, and the layer's tar in the same pass where that can be.

A tar lists a tree sorted, parents first, which is the order in which one source tree is copied. So a plan of one folder is
streamed: each file is read once, written to the upper directory and to the tar, and nothing is looked for that is known.
"""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path
from typing import Protocol

from engine.archive.diff import same_file, shown_xattrs
from engine.archive.writer import LayerWriter, TarEntry
from engine.base.cancel import CancelToken
from engine.build.copy import CopyPlan, Item, Text, Tree
from engine.build.source import ContextSource, Node
from engine.build.writer import DEFAULT_MODE, UpperWriter, check_name
from engine.errors import from_os_error
from engine.store.view import Entry, LayerView

WHOLE = 1 << 20  # files up to this size are in memory at once
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_plan(plan: CopyPlan, upper: Path, view: LayerView, cancel: CancelToken, *, epoch: int = 0) -> None:
    """Raises `InvalidInput` for what cannot be merged, `StorageFull`, `Cancelled`."""
    from engine.build.unpack import unpack

    writer = UpperWriter(upper, view, epoch=epoch)
    try:
        for tree in plan.trees:
            cancel.check()
            if isinstance(tree, Tree) and tree.archive:
                unpack(writer, tree, plan, cancel)
            else:
                copier = Copier(writer, plan, cancel, str(upper), None)
                try:
                    copier.copy(tree)
                finally:
                    copier.close()
        writer.close()
    except OSError as error:
        raise from_os_error(error, "copying into the image") from error


def can_stream(plan: CopyPlan) -> bool:
    """One tree, no archive: what is copied comes in the order of a tar."""
    return len(plan.trees) == 1 and isinstance(plan.trees[0], Tree) and not plan.trees[0].archive


def stream_plan(plan: CopyPlan, upper: Path, view: LayerView, cancel: CancelToken, out: LayerWriter) -> None:
    """As `write_plan` for a plan that `can_stream`; `out` gets what `engine.archive.diff` would write of `upper`."""
    writer = UpperWriter(upper, view)
    tar = _Tar(writer, out)
    copier = Copier(writer, plan, cancel, str(upper), tar)
    try:
        copier.copy(plan.trees[0])
        writer.close()
    except OSError as error:
        raise from_os_error(error, "copying into the image") from error
    finally:
        copier.close()


class Tar(Protocol):
    """Takes the entries of a layer as they are copied, parents first."""

    left_out: set[str]  # what is as it was below, and no entry of the layer

    def folder(self, path: str) -> None:
        """A directory of the upper directory, and those above it."""

    def file(self, entry: TarEntry, below: Entry | None, data: bytes | None) -> None:
        """`data` None: the content is read again from the upper directory."""


class _Tar:
    """The entries of a layer, as the differ would find them: what is as it was below is left out, and so is a directory
    that did not change unless something comes with it."""

    def __init__(self, writer: UpperWriter, out: LayerWriter) -> None:
        self._writer, self._out = writer, out
        self._waiting: list[TarEntry] = []
        self._known: set[str] = set()  # directories that were looked at
        self.left_out: set[str] = set()

    def folder(self, path: str) -> None:
        """A directory of the upper directory that no item describes, and those above it."""
        if path and path not in self._known:
            self.folder(posixpath.dirname(path))
            self.directory(path)

    def directory(self, path: str) -> None:
        self._known.add(path)
        # Those that wait and are not above this one have nothing in them that changed.
        self._waiting = [entry for entry in self._waiting if path.startswith(f"{entry.path}/")]
        real = self._writer.real(path)
        status = os.lstat(real)
        entry = TarEntry(
            path, "dir", stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
            self._writer.time_of(path) // 10**9, xattrs=shown_xattrs(real),
        )  # fmt: skip
        below = self._writer.below(path)
        if below is not None and same_file((below.real, below.status), (real, status)):
            self._waiting.append(entry)
        else:
            self._add(entry)

    def file(self, entry: TarEntry, below: Entry | None, data: bytes | None) -> None:
        """`data` None: the content is read again from the upper directory."""
        self._waiting = [parent for parent in self._waiting if entry.path.startswith(f"{parent.path}/")]
        if below is not None:
            real = self._writer.real(entry.path)
            if same_file((below.real, below.status), (real, os.lstat(real))):
                self.left_out.add(entry.path)
                return
        if entry.kind != "file" or data is not None:
            self._add(entry, data)
            return
        for parent in self._waiting:
            self._out.add(parent)
        self._waiting.clear()
        with open(os.open(self._writer.real(entry.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as body:
            self._out.add(entry, body)

    def _add(self, entry: TarEntry, data: bytes | None = None) -> None:
        for parent in self._waiting:
            self._out.add(parent)
        self._waiting.clear()
        self._out.add_whole(entry, data or b"")


class Copier:
    """`tar` takes the layer's entries while they are copied; None: somebody reads the upper directory afterwards."""

    def __init__(self, writer: UpperWriter, plan: CopyPlan, cancel: CancelToken, upper: str, tar: Tar | None) -> None:
        self._writer, self._plan, self._cancel, self._upper, self._tar = writer, plan, cancel, upper, tar
        self._links: dict[tuple[int, int], str] = {}
        chmod = plan.chmod
        self._made = chmod.octal if chmod is not None and chmod.octal is not None else DEFAULT_MODE
        self._fresh: set[str] = set()  # directories that were made anew: nothing can be in the way there
        self._is_root = os.geteuid() == os.getegid() == 0
        self._reading: tuple[str, int] | None = None  # the source's folder, held open

    def close(self) -> None:
        if self._reading is not None:
            os.close(self._reading[1])
            self._reading = None

    def copy(self, tree: Tree | Text) -> None:
        dest = self._plan.dest
        folder = dest if dest.endswith(("/", "/.")) or dest in ("", ".") else posixpath.dirname(dest)
        self._make(self._writer.resolve(folder))
        target = self._writer.resolve(dest)
        status = self._writer.status(target)
        is_dir = isinstance(tree, Tree) and tree.top.is_dir
        if not is_dir and status is not None and stat.S_ISDIR(status.st_mode):
            target = f"{target}/{tree.name}" if target else tree.name
        self._make(target if is_dir and status is None else posixpath.dirname(target))
        if is_dir and status is None:
            self._fresh.add(target)
        if isinstance(tree, Text):
            self._text(target, tree)
            return
        for item in tree.items:
            self._cancel.check()
            self.put(tree, item, f"{target}/{item.path}".strip("/") if item.path else target)

    def _make(self, path: str) -> None:
        self._writer.make_dirs(path, self._made, self._plan.owner)

    def _owner(self, tree: Tree, node: Node) -> tuple[int, int]:
        if self._plan.owner is not None:
            return self._plan.owner
        return (node.status.st_uid, node.status.st_gid) if tree.source.keeps_owner else (0, 0)

    def _mode(self, mode: int, *, directory: bool) -> int:
        return self._plan.chmod.apply(mode, directory=directory) if self._plan.chmod else stat.S_IMODE(mode)

    def _text(self, target: str, text: Text) -> None:
        self._writer.clear(target)
        fd = self._writer.create(target)
        with open(fd, "wb") as file:
            file.write(text.content)
        mode = self._mode(0o644, directory=False)
        # A nanosecond on, so that a later `touch -d @0` is a change, as it is to BuildKit, which writes the present time.
        self._writer.finish(target, self._plan.owner or (0, 0), mode, self._writer.epoch * 10**9 + 1, {})

    def put(self, tree: Tree, item: Item, target: str) -> None:
        """One item, whose parents are there, at `target`."""
        node, writer, tar = item.node, self._writer, self._tar
        if node.is_dir:
            self._directory(tree, item, target)
            return
        folder = posixpath.dirname(target)
        fresh = folder in self._fresh
        below = None if fresh else writer.below(target)
        if not fresh:
            writer.clear(target)
        owner = self._owner(tree, node)
        mtime, seconds = node.status.st_mtime_ns, node.status.st_mtime_ns // 10**9
        if tar is not None and not fresh:
            writer.show_parents(target)
        if tar is not None:
            tar.folder(folder)
        key = (node.status.st_dev, node.status.st_ino)
        if node.is_file and node.status.st_nlink > 1 and key in self._links:
            first = self._links[key]
            writer.hard_link(target, first)
            if tar is not None:
                mode, (uid, gid) = self._mode(node.status.st_mode, directory=False), owner
                if first in tar.left_out:
                    tar.file(self._described(target, "file", mode, uid, gid, seconds, node.status.st_size), below, None)
                else:
                    tar.file(TarEntry(target, "hardlink", mode, uid, gid, seconds, link=first), below, None)
            return
        if node.is_file:
            mode = self._mode(node.status.st_mode, directory=False)
            xattrs = tree.source.xattrs(node)
            size, data = self._file(tree, node, target, owner, mode)
            if xattrs:
                writer.finish(target, owner, mode, mtime, xattrs)
            self._links[key] = target
            if tar is not None:
                shown = shown_xattrs(writer.real(target)) if xattrs else {}
                tar.file(TarEntry(target, "file", mode, *owner, seconds, size, xattrs=shown), below, data)
            return
        self._other(tree, node, target, owner, below)

    def _directory(self, tree: Tree, item: Item, target: str) -> None:
        node, writer = item.node, self._writer
        made = writer.directory(target)
        mtime = node.status.st_mtime_ns
        if made or (item.path and not item.implied):
            mode = self._mode(node.status.st_mode, directory=True)
            writer.finish(target, self._owner(tree, node), mode, mtime, tree.source.xattrs(node))
        elif item.path:
            os.chmod(writer.real(target), stat.S_IMODE(node.status.st_mode))
        if made:
            self._fresh.add(target)
        if self._tar is not None:
            self._tar.folder(target)

    def _other(self, tree: Tree, node: Node, target: str, owner: tuple[int, int], below: Entry | None) -> None:
        writer, mode = self._writer, self._mode(node.status.st_mode, directory=False)
        if node.is_link:
            writer.link(target, node.link)
        else:
            writer.node(target, node.status.st_mode, node.status.st_rdev)
        writer.finish(target, owner, None if node.is_link else mode, node.status.st_mtime_ns, tree.source.xattrs(node))
        if self._tar is None:
            return
        seconds = node.status.st_mtime_ns // 10**9
        shown = shown_xattrs(writer.real(target))
        if node.is_link:
            entry = TarEntry(target, "symlink", 0o777, *owner, seconds, link=node.link, xattrs=shown)
        elif stat.S_ISFIFO(node.status.st_mode):
            entry = TarEntry(target, "fifo", mode, *owner, seconds, xattrs=shown)
        else:
            device = (os.major(node.status.st_rdev), os.minor(node.status.st_rdev))
            kind = "char" if stat.S_ISCHR(node.status.st_mode) else "block"
            entry = TarEntry(target, kind, mode, *owner, seconds, dev=device, xattrs=shown)  # type: ignore[arg-type]
        self._tar.file(entry, below, None)

    def _described(self, path: str, kind: str, mode: int, uid: int, gid: int, seconds: int, size: int) -> TarEntry:
        shown = shown_xattrs(self._writer.real(path))
        return TarEntry(path, kind, mode, uid, gid, seconds, size, xattrs=shown)  # type: ignore[arg-type]

    # --- a file's content -----------------------------------------------------------------------------------

    def _open(self, tree: Tree, node: Node) -> int:
        """The source's folder is held open: one path is looked up for all files in it."""
        source = tree.source
        if not isinstance(source, ContextSource):
            return source.open(node)
        folder, name = posixpath.split(node.path)
        if self._reading is None or self._reading[0] != folder:
            self.close()
            self._reading = (folder, source.open_folder(folder))
        return source.open_in(self._reading[1], name, node)

    def _file(self, tree: Tree, node: Node, target: str, owner: tuple[int, int], mode: int) -> tuple[int, bytes | None]:
        """Copies the content, sets owner, mode and time. Its size, and the content itself when it is small."""
        reading = self._open(tree, node)
        try:
            writing = self._create(target)
            try:
                size, data = self._content(reading, writing, node.status.st_size)
                if (
                    owner != (0, 0) or not self._is_root or os.fstat(writing).st_gid
                ):  # a set-group-id directory gives its own
                    os.fchown(writing, *owner)
                os.fchmod(writing, mode)
                os.utime(writing, ns=(node.status.st_mtime_ns, node.status.st_mtime_ns))
                return size, data
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _create(self, target: str) -> int:
        if posixpath.dirname(target) not in self._fresh:
            return self._writer.create(target)
        check_name(target)
        self._writer.note_file(target)
        return os.open(f"{self._upper}/{target}", _NEW, 0o600)

    def _content(self, reading: int, writing: int, expected: int) -> tuple[int, bytes | None]:
        if expected < WHOLE:
            data = os.read(reading, expected + 1)
            if len(data) <= expected:  # a regular file is read short at its end only
                _write_all(writing, data)
                return len(data), data
            _write_all(writing, data)  # it grew: the rest follows
        while os.sendfile(writing, reading, None, 1 << 24):
            self._cancel.check()
        return os.fstat(writing).st_size, None


def _write_all(fd: int, data: bytes) -> None:
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])
