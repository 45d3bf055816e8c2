"""The files of images, layer by layer: trees, what a path went through, contents, differences, and what is wasted.

Everything is read from the unpacked layers, which never change; nothing is mounted. Where a path is opened it is opened below the
folder of layers without following any link (openat2(2)), so no image can point out of itself.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from engine.archive.diff import shown_xattrs
from engine.archive.writer import CHUNK, LayerWriter, Sink, TarEntry
from engine.base.cancel import CancelToken
from engine.build.compare import compare
from engine.errors import InvalidInput, NotFound, from_os_error
from engine.linux.openat2 import open_in_root
from engine.model import (
    FileComparison,
    FileContent,
    FileDifference,
    FileStep,
    LayerWaste,
    Mark,
    WastedPath,
    WasteReport,
)
from engine.oci.chain import chain_ids
from engine.store.tree_cache import TreeCache
from engine.store.tree_index import TreeIndex
from engine.store.tree_rows import TreeRows, kind_of
from engine.store.view import Entry, LayerView

if TYPE_CHECKING:
    from engine.oci.digest import Digest
    from engine.store.images import Image
    from engine.store.store import Store

READ = 1 << 20  # bytes of a file that are shown
COMPARED = 1 << 19  # bytes of a text that are compared by lines
LINES = 5000  # of a difference
_TAR_KINDS = {"file": "file", "dir": "dir", "link": "symlink", "fifo": "fifo", "char": "char", "block": "block"}


EMPTY = "scratch"  # the name of no layers at all, as in a Dockerfile


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of an image up to one of them. `lines` has the history line of each layer of the image."""

    image: Image | None
    chains: tuple[Digest, ...] = ()
    lines: tuple[int, ...] = ()


def split_name(name: str) -> tuple[str, int | None]:
    """`IMAGE#3` as the name and the history line."""
    image, hash_, index = name.rpartition("#")
    if not hash_:
        return name, None
    if not (index.isascii() and index.isdigit()):
        raise InvalidInput(f"{name}: {index!r} is no layer's number", hint="`workbench layers IMAGE` lists them")
    return image, int(index)


class LayerFiles:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache = TreeCache(store.root / "trees", store.layers, store.tmp)

    def stack(self, name: str) -> Stack:
        """Raises `NotFound`, `InvalidInput`. The layers are unpacked where they are missing."""
        if name == EMPTY:
            return Stack(None)
        bare, index = split_name(name)
        image = self._store.images.get(bare)
        config = self._store.images.config(image)
        self._store.lowers(image)
        chains = tuple(chain_ids(config.diff_ids))
        history = config.history
        known = [number for number, line in enumerate(history) if not line.empty_layer][: len(chains)]
        lines = (*known, *range(len(history), len(history) + len(chains) - len(known)))
        if index is None:
            return Stack(image, chains, lines)
        last = max(len(history), lines[-1] + 1 if lines else 0)
        if index >= last:
            raise NotFound(f"{bare} has no layer {index}", hint=f"its history has the lines 0 to {last - 1}")
        return Stack(image, chains[: sum(line <= index for line in lines)], lines)

    def _view(self, stack: Stack) -> LayerView:
        return LayerView(self._store.layers.trees(stack.chains))

    # --- trees ----------------------------------------------------------------------------------------------

    def index(self, stack: Stack, progress: Callable[[int], None], cancel: CancelToken, depth: int = 0) -> TreeIndex:
        try:
            if depth:
                return self._cache.shallow(stack.chains, depth, cancel=cancel)
            return self._cache.index(stack.chains, progress=progress, cancel=cancel)
        except OSError as error:
            raise from_os_error(error, "reading the layers' files") from error

    def tree(self, name: str, progress: Callable[[int], None], cancel: CancelToken, depth: int = 0) -> TreeRows:
        stack = self.stack(name)
        view = self._view(stack)

        def link(path: str) -> str:
            entry = view.lookup(path, follow=False)
            return os.readlink(entry.real) if entry is not None and entry.is_link else ""

        return TreeRows(self.index(stack, progress, cancel, depth), stack.lines, link)

    def waste(self, name: str, cancel: CancelToken) -> WasteReport:
        stack = self.stack(name)
        head = self.index(stack, lambda entries: None, cancel).head
        layers = zip(stack.lines, head.shipped, head.wasted, strict=False)
        worst = sorted(head.worst.items(), key=lambda item: (-item[1][0], item[0]))
        return WasteReport(
            tuple(LayerWaste(*layer) for layer in layers),
            tuple(WastedPath(path, size, times) for path, (size, times) in worst),
        )

    def diff(self, first: str, second: str, cancel: CancelToken | None = None) -> list[FileDifference]:
        """What two stacks do not share, by path."""
        before, after = (self._view(self.stack(name)) for name in (first, second))
        return list(compare(before, after, cancel))

    # --- one path -------------------------------------------------------------------------------------------

    def history(self, name: str, path: str) -> list[FileStep]:
        """What each layer did to a path, bottom first. Raises `NotFound` when no layer has it."""
        stack = self.stack(name)
        if stack.image is None:
            raise NotFound(f"no layer of {name} has {path}")
        path = _plain(self._view(stack), path)
        history = self._store.images.config(stack.image).history
        steps = self._store.images.steps(stack.image)
        found: list[FileStep] = []
        before: Entry | None = None
        for number in range(len(stack.chains)):
            view = LayerView(self._store.layers.trees(stack.chains[: number + 1]))
            now = view.lookup(path, follow=False)
            if mark := _mark(before, now):
                line = stack.lines[number]
                step = steps[line] if line < len(steps) else {}
                said = history[line].created_by if line < len(history) else ""
                shown = str(step.get("instruction") or said).removeprefix("/bin/sh -c #(nop) ").strip()
                at = step.get("line")
                status = (now or before).status  # type: ignore[union-attr]  # there is a mark: one of them is there
                found.append(
                    FileStep(
                        line, shown, at if isinstance(at, int) else 0, mark, kind_of(status.st_mode),
                        stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
                        0 if now is None or not stat.S_ISREG(status.st_mode) else status.st_size,
                    )
                )  # fmt: skip
            before = now
        if not found:
            raise NotFound(f"no layer of {name} has {path}")
        return found

    def _entry(self, name: str, path: str) -> Entry:
        """What stands at a path; of one that the topmost layer removed, what stood there."""
        stack = self.stack(name)
        for chains in (stack.chains, stack.chains[:-1]):
            view = LayerView(self._store.layers.trees(chains))
            entry = view.lookup(_plain(view, path), follow=False)
            if entry is not None:
                return entry
        raise NotFound(f"no such file in {name}: {path}")

    def _open(self, entry: Entry) -> BinaryIO:
        root = os.open(self._store.layers.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            below = os.path.relpath(entry.real, self._store.layers.root)
            return open(open_in_root(root, below, os.O_RDONLY | os.O_NONBLOCK, no_symlinks=True), "rb")
        except OSError as error:
            raise from_os_error(error, f"reading /{entry.path}") from error
        finally:
            os.close(root)

    def content(self, name: str, path: str, limit: int = READ) -> FileContent:
        """The first `limit` bytes. Raises `NotFound`."""
        entry = self._entry(name, path)
        mode, shown = entry.status.st_mode, f"/{entry.path}"
        if entry.is_link:
            target = os.readlink(entry.real)
            return FileContent(shown, "link", len(os.fsencode(target)), b"", True, False, target)
        if not stat.S_ISREG(mode):
            return FileContent(shown, kind_of(mode), 0, b"", False, False)
        with self._open(entry) as file:
            data = file.read(limit)
        size = entry.status.st_size
        return FileContent(shown, "file", size, data, is_text(data, cut=size > len(data)), size > len(data))

    def compare_file(self, first: str, second: str, path: str) -> FileComparison:
        """One path in two stacks. Raises `NotFound` when neither has it."""
        sides: list[FileContent | None] = []
        for name in (first, second):
            try:
                stack = self.stack(name)
                view = self._view(stack)
                there = view.lookup(_plain(view, path), follow=False) if stack.chains else None
                sides.append(self.content(name, path, COMPARED + 1) if there is not None else None)
            except NotFound:
                if name == second and sides == [None]:
                    raise
                sides.append(None)
        old, new = sides
        if old is None and new is None:
            raise NotFound(f"neither {first} nor {second} has {path}")
        return _compared(path, old, new, (f"{first} {path}", f"{second} {path}"))

    def save(self, name: str, path: str, out: Sink, cancel: CancelToken) -> None:
        """A file's bytes; of a folder a tar of it with what is in it. Raises `NotFound`, `InvalidInput`."""
        entry = self._entry(name, path)
        if entry.is_dir:
            self._pack(LayerView(self._store.layers.trees(self.stack(name).chains)), entry, out, cancel)
            return
        if not stat.S_ISREG(entry.status.st_mode):
            raise InvalidInput(f"{path} is no file but a {_kind_words(entry)}", hint="save the folder that it is in")
        with self._open(entry) as file:
            while data := file.read(CHUNK):
                cancel.check()
                out.write(data)

    def _pack(self, view: LayerView, folder: Entry, out: Sink, cancel: CancelToken) -> None:
        writer = LayerWriter(out, hashed=False)
        above = os.path.dirname(folder.path)
        for entry in view.walk(folder):
            cancel.check()
            status = entry.status
            if stat.S_ISSOCK(status.st_mode) or not entry.path:
                continue
            kind = _TAR_KINDS[kind_of(status.st_mode)]
            packed = TarEntry(
                os.path.relpath(entry.path, above) if above else entry.path,
                kind,  # type: ignore[arg-type]  # one of the words of the table
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns // 10**9,
                status.st_size if kind == "file" else 0,
                os.readlink(entry.real) if entry.is_link else "",
                (os.major(status.st_rdev), os.minor(status.st_rdev)),
                shown_xattrs(entry.real),
            )
            if kind == "file":
                with self._open(entry) as body:
                    writer.add(packed, body)
            else:
                writer.add(packed)
        writer.finish()


def _plain(view: LayerView, path: str) -> str:
    """`path` with the links among its folders followed, and its last part as it is."""
    folder, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        return view.resolve(path)
    return f"{view.resolve(folder)}/{name}".lstrip("/")


def _mark(before: Entry | None, now: Entry | None) -> Mark:
    if now is None:
        return "D" if before is not None else ""
    if before is None:
        return "A"
    if now.is_dir and before.is_dir:  # that a layer has something in it makes no other folder of it
        old, new = before.status, now.status
        return "M" if (old.st_mode, old.st_uid, old.st_gid) != (new.st_mode, new.st_uid, new.st_gid) else ""
    return "M" if now.real != before.real else ""


def _kind_words(entry: Entry) -> str:
    return "symbolic link" if entry.is_link else "special file"


def is_text(data: bytes, *, cut: bool = False) -> bool:
    """UTF-8 without control characters but white space and escape; `cut`: the last character may be incomplete."""
    if any(byte in data for byte in (0, 1, 2, 3, 4, 5, 6, 14, 15, 16, 127)):
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return cut and error.reason == "unexpected end of data" and error.start > len(data) - 4
    return True


def _compared(path: str, old: FileContent | None, new: FileContent | None, names: tuple[str, str]) -> FileComparison:
    what = "changed"
    if old is None or new is None:
        what = "added" if old is None else "removed"
    elif old.kind != new.kind:
        return FileComparison(path, f"{old.kind} became {new.kind}")
    elif old.kind == "link":
        return FileComparison(path, "same" if old.link == new.link else f"points to {new.link}, before to {old.link}")
    elif (old.data, old.size) == (new.data, new.size) and not old.truncated:
        return FileComparison(path, "same")
    sides = [side for side in (old, new) if side is not None]
    if any(side.truncated for side in sides):
        return FileComparison(path, f"{what}: more than {COMPARED >> 10} KiB, not compared by lines", (), True)
    if not all(side.text and side.kind == "file" for side in sides):
        sizes = "→".join(str(side.size) for side in sides)
        return FileComparison(path, f"{what}: no text, {sizes} bytes")
    before, after = (side.data.decode(errors="replace").splitlines() if side else [] for side in (old, new))
    lines = list(difflib.unified_diff(before, after, *names, lineterm=""))
    return FileComparison(path, what, tuple(lines[:LINES]), len(lines) > LINES)
