"""What a build context holds, remembered: listings, stat data and digests, so that a build costs what changed and not what there is.

A `ContextIndex` is a tree of slots in a `StatTable`. `refresh` asks the kernel for every path (one comparison of memory says
"nothing changed"), lists the directories whose times moved, and forgets the digests of files that are not what they were: git's
index, with git's racy rule, for a file that changed in the last moments before it was read may change again unseen. Digests of
directories are Merkle digests over what is below them, so that a whole tree is compared in one step; modification times and
owners are no part of them (BuildKit's contenthash leaves times out; a context's files become root's).

An index may be refreshed for named paths alone, when somebody knows which ones changed (`watched.py`, the inner loop).
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import threading
import time
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.build.dockerfile.ignore import Matcher
from engine.build.index_file import Saved, read_index, write_index
from engine.errors import AccessDenied, EngineError, InvalidInput, from_os_error
from engine.linux.openat2 import open_in_root
from engine.linux.statx import StatTable, kind

RACY_NS = 50_000_000  # ext4 stamps with the kernel's tick; anything younger than this may change again unseen
MAX_ENTRIES = 1_000_000
MAX_NOTED = 4096  # paths whose last change is remembered
ROOT = 0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 20
_KEPT_OUT = ("trusted.overlay.", "user.overlay.", "security.selinux", "com.apple.")  # the host's own, not the file's


class ContextIndex:
    """One folder as one set of ignore patterns shows it. Use it under `lock`: two builds may share it."""

    def __init__(
        self, root: Path, matcher: Matcher | None = None, *, file: Path | None = None, where: str = ""
    ) -> None:
        self.root, self.matcher, self.where = root, matcher, where or f"the build context {root}"
        self.lock = threading.RLock()
        self.cancel: CancelToken | None = None  # of the build that holds the lock
        self.listed: list[str] = []  # directories that were listed anew, for a watcher
        self._file = file
        try:
            self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInput(
                f"build context {root}: {error.strerror}", hint="give the folder that holds the Dockerfile"
            ) from error
        self._table = StatTable(self.fd)
        self._paths: list[str | None] = []  # None: the slot is free
        self._parent: list[int] = []
        self._kids: dict[int, list[str]] = {}  # directories: names, sorted
        self._digest: list[str] = []  # of a file's content, a link's text, a directory's Merkle digest; "" unknown
        self._xattrs: dict[int, dict[str, bytes]] = {}
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._racy: set[int] = set()
        self._dirty = False
        self._folder = ("\0", -1)  # held open while files are read; see `_open`
        self.listings: dict[str, str] = {}  # directory digests made since they were taken: what stands behind each
        self.tick = 0  # looks at the folder so far
        self._noted: dict[str, int] = {}  # paths that came, went or changed: at which look
        self._since = 0  # the look from which on `_noted` has all of them

    def close(self) -> None:
        self.save()
        self._let_go()
        os.close(self.fd)

    def __len__(self) -> int:
        return len(self._slots)

    # --- bringing it up to date ------------------------------------------------------------------------

    def refresh(self, cancel: CancelToken | None = None) -> set[str]:
        """Asks for everything. Returns the paths that changed since the last time ("" is the root)."""
        with self.lock:
            if not self._paths:
                self._begin()
            return self._apply(self._table.refresh(cancel), cancel)

    def refresh_paths(self, paths: Iterable[str], cancel: CancelToken | None = None) -> set[str]:
        """Asks for these paths alone, and for the directories they are in. Falls back to everything when nothing is known."""
        with self.lock:
            if not self._paths:
                return self.refresh(cancel)
            slots = set()
            for path in paths:
                clean = path.strip("/")
                slots.add(self._slots.get(clean, ROOT))
                while clean:
                    clean = posixpath.dirname(clean)
                    if clean in self._slots:
                        slots.add(self._slots[clean])
                        break
            return self._apply(self._table.look(sorted(slots)), cancel)

    def _begin(self) -> None:
        saved = read_index(self._file, self._patterns()) if self._file else None
        if saved is None:
            self._add("", -1, ".")
            self._kids[ROOT] = []
            self._racy.add(ROOT)
            return
        self._paths = list(saved.paths)
        self._parent, self._digest = list(saved.parents), list(saved.digests)
        self._xattrs = {slot: dict(found) for slot, found in saved.xattrs.items()}
        self._racy = set(saved.racy)
        self._slots = dict(zip(saved.paths, range(len(saved.paths)), strict=True))
        self._table.reserve([b"."] + [os.fsencode(path) for path in saved.paths[1:]])
        self._table.load(saved.stats)
        self._kids = {slot: [] for slot in saved.folders}
        for path, parent in zip(saved.paths[1:], saved.parents[1:], strict=True):
            self._kids[parent].append(path[path.rfind("/") + 1 :])

    def _patterns(self) -> tuple[str, ...]:
        return self.matcher.patterns if self.matcher else ()

    def changed_since(self, tick: int) -> list[str] | None:
        """The paths that may differ from what they were at the look `tick`; None when that is not known any more."""
        if tick < self._since:
            return None
        return [path for path, noted in self._noted.items() if noted > tick]

    def _note(self, path: str) -> None:
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
            self._since = self.tick
        self._noted[path] = self.tick

    def _apply(self, changed: Sequence[int], cancel: CancelToken | None) -> set[str]:
        self.tick += 1
        pending = sorted({*changed, *self._racy}, key=lambda slot: len(self._paths[slot] or ""))
        found: set[str] = set()
        for at, slot in enumerate(pending):
            try:
                if cancel is not None:
                    cancel.check()
                self._racy.discard(slot)
                found |= self._apply_one(slot, cancel)
            except BaseException:  # the table has their new data already: the next look must ask for the rest again
                self._racy.update(left for left in pending[at:] if self._paths[left] is not None)
                raise
        return found

    def _apply_one(self, slot: int, cancel: CancelToken | None) -> set[str]:
        path = self._paths[slot]
        if path is None:
            return set()
        mode = self._table.mode(slot)
        self._note(path)
        self._dirty = True
        if not mode:
            if slot == ROOT:
                raise InvalidInput(f"the build context {self.root} was removed")
            self._drop(slot)
            return {path}
        if stat.S_ISDIR(mode):
            found = self._list(slot, path, cancel)
            self._stale(slot)
            return found
        if slot in self._kids:
            self._drop_below(slot)
        self._stale(slot)
        return {path}

    def _stale(self, slot: int) -> None:
        """What is said of a slot, and of all directories above it, is no longer known."""
        self._digest[slot] = ""
        self._xattrs.pop(slot, None)
        while (slot := self._parent[slot]) >= 0 and self._digest[slot]:
            self._digest[slot] = ""

    def _add(self, path: str, parent: int, name: str = "") -> int:
        raw = os.fsencode(name or path)
        if self._free:
            slot = self._free.pop()
            self._table.point(slot, raw)
            self._table.look([slot])
            self._paths[slot], self._parent[slot], self._digest[slot] = path, parent, ""
        else:
            slot = self._table.add([raw])[0]
            self._append(path, parent)
        self._slots[path] = slot
        return slot

    def _append(self, path: str, parent: int) -> None:
        self._paths.append(path)
        self._parent.append(parent)
        self._digest.append("")

    def _drop(self, slot: int) -> None:
        path, parent = self._paths[slot], self._parent[slot]
        assert path is not None  # it is dropped once
        self._note(path)
        self._stale(slot)
        self._drop_below(slot)
        names = self._kids.get(parent)
        name = posixpath.basename(path)
        if names and name in names:
            names.remove(name)
        del self._slots[path]
        self._paths[slot] = None
        self._racy.discard(slot)
        self._table.point(slot, b".")  # a path that is always there
        self._free.append(slot)

    def _drop_below(self, slot: int) -> None:
        path = self._paths[slot]
        for name in list(self._kids.get(slot, ())):
            self._drop(self._slots[f"{path}/{name}" if path else name])
        self._kids.pop(slot, None)

    def _drop_names(self, slot: int, prefix: str, names: Sequence[str]) -> None:
        for name in names:
            if (made := self._slots.get(prefix + name)) is not None:
                self._drop(made)
        self._stale(slot)

    # --- listing ----------------------------------------------------------------------------------------

    def _list(self, slot: int, path: str, cancel: CancelToken | None) -> set[str]:
        """Brings the names below a directory up to date; returns the paths that came or went."""
        started = time.time_ns()
        self.listed.append(path)
        try:
            fd = open_in_root(self.fd, path, _FOLDER, no_symlinks=True)
        except FileNotFoundError:
            self._drop(slot)
            return {path}
        except OSError as error:
            raise self.unreadable(error, path) from error
        try:
            names = self._names(path, fd)
            xattrs = read_xattrs(fd)
        finally:
            os.close(fd)
        if xattrs:
            self._xattrs[slot] = xattrs
        known = self._kids.setdefault(slot, [])
        gone, new = set(known).difference(names), sorted(set(names).difference(known))
        prefix = f"{path}/" if path else ""
        for name in gone:
            self._drop(self._slots[prefix + name])
        if new:
            try:
                self._enter(slot, prefix, new, names, cancel)
            except BaseException:  # half of it would pass for all of it
                self._drop_names(slot, prefix, new)
                raise
        _, _, mtime, ctime = self._table.key(slot)
        if started - max(mtime, ctime) <= RACY_NS:
            self._racy.add(slot)
        return {prefix + name for name in (*gone, *new)}

    def _names(self, path: str, fd: int) -> dict[str, bool]:
        """What is shown of a directory: name -> whether it is a directory itself."""
        prefix, found = (f"{path}/" if path else ""), {}
        with os.scandir(fd) as entries:
            for entry in entries:
                is_dir = entry.is_dir(follow_symlinks=False)
                if self.matcher is None or self._visible(prefix + entry.name, is_dir):
                    found[entry.name] = is_dir
        return found

    def _enter(
        self, slot: int, prefix: str, new: Sequence[str], names: dict[str, bool], cancel: CancelToken | None
    ) -> None:
        """New names: their stat data in one go, then what is below the directories among them."""
        self._count(prefix, len(new))
        for name in new:
            self._note(prefix + name)
        while self._free and new:
            name, new = new[0], new[1:]
            self._enter_one(slot, prefix, name, self._add(prefix + name, slot), cancel)
        slots = self._table.add([os.fsencode(prefix + name) for name in new])
        for name in new:
            self._slots[prefix + name] = len(self._paths)
            self._append(prefix + name, slot)
        for name, added in zip(new, slots, strict=True):
            self._enter_one(slot, prefix, name, added, cancel)

    def _enter_one(self, parent: int, prefix: str, name: str, slot: int, cancel: CancelToken | None) -> None:
        if cancel is not None:
            cancel.check()
        insort(self._kids[parent], name)
        mode = self._table.mode(slot)
        if not mode:
            self._drop(slot)  # removed while we looked: the next build sees it
        elif stat.S_ISDIR(mode):
            self._kids[slot] = []
            self._list(slot, prefix + name, cancel)

    def _count(self, folder: str, more: int) -> None:
        if len(self._slots) + more > MAX_ENTRIES:
            top = folder.split("/")[0]
            raise InvalidInput(
                f"{self.where} holds more than {MAX_ENTRIES:,} files (stopped in {folder or './'})",
                hint=f"name what the build does not need in .dockerignore{', as ' + top + '/' if top else ''}",
            )

    def _visible(self, path: str, is_dir: bool) -> bool:
        if self.matcher is None or not self.matcher.excluded(path):
            return True
        return is_dir and self.matcher.may_include_under(path)

    # --- asking it ---------------------------------------------------------------------------------------

    def slot(self, path: str) -> int | None:
        return self._slots.get(path)

    def folders(self) -> list[str]:
        """Every directory, parents first."""
        return [self._paths[slot] or "" for slot in self._walk(ROOT) if slot in self._kids]

    def below(self, path: str) -> list[str]:
        """`path` and everything below it."""
        slot = self._slots.get(path)
        return [self._paths[found] or "" for found in self._walk(slot)] if slot is not None else []

    def with_several_links(self, paths: Iterable[str] | None = None) -> list[str]:
        """Files that have other names as well: they may change without an event here."""
        found = self._slots.items() if paths is None else ((p, self._slots[p]) for p in paths if p in self._slots)
        return [path for path, slot in found if slot not in self._kids and self._table.links(slot) > 1]

    def seconds(self, path: str) -> int | None:
        """When `path` was changed last, as a tar says it; None where nothing is."""
        slot = self._slots.get(path)
        return self._table.key(slot)[2] // 10**9 if slot is not None else None

    def is_dir(self, slot: int) -> bool:
        return slot in self._kids

    def mode(self, slot: int) -> int:
        return self._table.mode(slot)

    def status(self, slot: int) -> os.stat_result:
        return self._table.status(slot)

    def children(self, slot: int) -> Iterator[tuple[str, int]]:
        """Path and slot of what is in a directory, sorted by name; sockets are left out."""
        path = self._paths[slot]
        prefix = f"{path}/" if path else ""
        for name in self._kids.get(slot, ()):
            child = self._slots[prefix + name]
            if not stat.S_ISSOCK(self._table.mode(child)):
                yield prefix + name, child

    def link(self, slot: int) -> str:
        """The text of a symbolic link."""
        return self._digest[slot] or self._read(slot)  # no folder is held for a link

    def xattrs(self, slot: int) -> dict[str, bytes]:
        if not self._digest[slot] and not self.is_dir(slot):
            self._read(slot)
            self._let_go()
        return self._xattrs.get(slot, {})

    def digest(self, slot: int) -> str:
        """Of a file's content: SHA-256 in hex. Of a directory: over everything that is below it, times and owners apart."""
        known = self._digest[slot]
        if known:
            return known
        try:
            return self._digested(slot)
        finally:
            self._let_go()

    def _digested(self, slot: int) -> str:
        return self._merkle(slot) if slot in self._kids else self._read(slot)

    def _merkle(self, slot: int) -> str:
        lines = []
        for path, child in self.children(slot):
            lines.append(f"{posixpath.basename(path)}\0{self.describe(child)}")
        text = "\n".join(lines)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        self.listings[digest] = text
        self._digest[slot] = digest
        self._dirty = True
        return digest

    def describe(self, slot: int) -> str:
        """`f 0644 <digest>`: what a cache key says of an entry, apart from its name."""
        mode = self._table.mode(slot)
        letter = kind(mode)
        if letter == "f" or letter == "d":
            text = self._digest[slot] or self._digested(slot)
        elif letter == "l":
            text = self.link(slot)
        else:
            text = str(self.status(slot).st_rdev)
        more = "".join(f" {name}={value.hex()}" for name, value in self._xattrs.get(slot, {}).items())
        return f"{letter} {mode & 0o7777:04o} {text}{more}"

    def _read(self, slot: int) -> str:
        """Digests a file, or reads a link, and remembers it unless it is too young to be trusted."""
        path, mode = self._paths[slot], self._table.mode(slot)
        assert path is not None  # only what is there is asked for
        started = time.time_ns()
        if stat.S_ISLNK(mode):
            text = self._read_link(path)
        elif stat.S_ISREG(mode):
            text = self._hash(slot, path)
        else:
            return ""
        _, _, mtime, ctime = self._table.key(slot)
        if started - max(mtime, ctime) <= RACY_NS:
            self._racy.add(slot)
        self._digest[slot] = text
        self._dirty = True
        return text

    def _read_link(self, path: str) -> str:
        folder, name = posixpath.split(path)
        try:
            fd = open_in_root(self.fd, folder, _FOLDER, no_symlinks=True)
            try:
                return os.readlink(name, dir_fd=fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self.unreadable(error, path) from error

    def _open(self, path: str) -> int:
        """A descriptor of a file's content; no link is followed. The folder is held open: the next file is likely in it, too."""
        folder, name = posixpath.split(path)
        try:
            if self._folder[0] != folder:
                self._let_go()
                self._folder = (folder, open_in_root(self.fd, folder, _FOLDER, no_symlinks=True))
            return os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=self._folder[1])
        except OSError as error:
            raise self.unreadable(error, path) from error

    def _let_go(self) -> None:
        if self._folder[1] >= 0:
            os.close(self._folder[1])
        self._folder = ("\0", -1)

    def _hash(self, slot: int, path: str) -> str:
        fd = self._open(path)
        try:
            status = os.fstat(fd)
            key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if key != self._table.key(slot):
                self._racy.add(slot)  # it changed since we looked: what is read now is right, and is read again
            digest = hash_file(fd, status.st_size, self.cancel)
            xattrs = read_xattrs(fd)
        finally:
            os.close(fd)
        if xattrs:
            self._xattrs[slot] = xattrs
        return digest

    def unreadable(self, error: OSError, path: str) -> EngineError:
        if isinstance(error, PermissionError):
            return AccessDenied(
                f"{self.root / path} cannot be read: {error.strerror}",
                hint="make it readable, or add it to .dockerignore if the build does not need it",
            )
        return from_os_error(error, f"reading {path} in {self.where}")

    # --- keeping it ---------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes it to its file when something is new. A file that cannot be written costs time, not correctness."""
        with self.lock:
            if not self._dirty or self._file is None or not self._paths:
                return
            order = list(self._walk(ROOT))
            place = {slot: number for number, slot in enumerate(order)}
            saved = Saved(
                patterns=self._patterns(),
                paths=[self._paths[slot] or "" for slot in order],
                parents=[place.get(self._parent[slot], 0) for slot in order],
                digests=[self._digest[slot] for slot in order],
                folders=[place[slot] for slot in order if slot in self._kids],
                racy=[place[slot] for slot in self._racy if slot in place],
                xattrs={place[slot]: found for slot, found in self._xattrs.items() if slot in place},
                stats=self._table.dump(order),
            )
            self._dirty = False
        write_index(self._file, saved)

    def _walk(self, slot: int) -> Iterator[int]:
        """Every slot, parents first, in the order in which names are sorted."""
        stack = [slot]
        while stack:
            slot = stack.pop()
            yield slot
            names = self._kids.get(slot)
            if names:
                path = self._paths[slot]
                prefix = f"{path}/" if path else ""
                stack += [self._slots[prefix + name] for name in reversed(names)]


def hash_file(fd: int, size: int, cancel: CancelToken | None = None) -> str:
    """SHA-256 of what is left to read; `size` is a hint: a small file costs one read."""
    data = os.read(fd, min(size + 1, _CHUNK))
    if len(data) <= size < _CHUNK:  # a regular file is read short at its end only
        return hashlib.sha256(data).hexdigest()
    hashing = hashlib.sha256()
    while data:
        if cancel is not None:
            cancel.check()
        hashing.update(data)
        data = os.read(fd, _CHUNK)
    return hashing.hexdigest()


def read_xattrs(fd: int) -> dict[str, bytes]:
    """Extended attributes that travel with a file."""
    try:
        names = os.listxattr(fd)
        return {name: os.getxattr(fd, name) for name in sorted(names) if not name.startswith(_KEPT_OUT)}
    except OSError:
        return {}  # a file system without them, or one that does not let them be read
