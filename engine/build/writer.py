"""Writing into the upper directory of a new layer, as if the image below were mounted: links in the destination are followed
inside the image, parents are made, directories merge.

`upper` is ours alone until it is done, and targets are resolved against the image's own tree before they are joined to it, so
plain paths in it are safe. The rules are those of fsutil's copier and, for archives, of Docker's unpacker.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from engine.build.source import read_xattrs
from engine.errors import InvalidInput
from engine.store.view import Entry, LayerView

_OPAQUE = "trusted.overlay.opaque"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DEFAULT_MODE = 0o755


class UpperWriter:
    """Paths are relative to the image's root, without links in them but for the last component."""

    def __init__(self, upper: Path, view: LayerView, *, epoch: int = 0) -> None:
        self._upper, self._view, self.epoch = str(upper), view, epoch
        self._lower: dict[str, Entry | None] = {}  # directories of the image below, by path
        self._mine: dict[str, str] = {"": "dir"}  # what this writer has put there
        self._gone: set[str] = set()  # paths of the image below that were replaced
        self._times: dict[str, int] = {}  # directories, whose time is set when nothing more is put into them
        root = view.lookup("")
        if root and root.real != "/":
            self._like(self._upper, root.status)
            self._times[""] = root.status.st_mtime_ns

    # --- what is there --------------------------------------------------------------------------------

    def real(self, path: str) -> str:
        return f"{self._upper}/{path}" if path else self._upper

    def status(self, path: str) -> os.stat_result | None:
        """What is at `path` now, the last component not followed."""
        if path in self._mine:
            return os.lstat(self.real(path))
        below = self.below(path)
        return below.status if below else None

    def below(self, path: str) -> Entry | None:
        """The image's own entry at `path`, unless a directory above it was made anew or replaced."""
        if not path:
            return self._view.lookup("")
        folder, name = posixpath.split(path)
        if folder not in self._lower:
            found = None if folder in self._gone else self.below(folder)
            self._lower[folder] = found if found is not None and found.is_dir else None
        parent = self._lower[folder]
        if parent is None or path in self._gone:
            return None
        return self._view.child(parent, name)

    def resolve(self, path: str, root: str = "") -> str:
        """`path` below `root`, every link followed inside it; parts that do not exist stay as they are."""
        done = root
        parts = [part for part in path.split("/") if part not in ("", ".")]
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = posixpath.dirname(done) if done != root else root
                continue
            place = f"{done}/{part}" if done else part
            status = self.status(place)
            if status is None or not stat.S_ISLNK(status.st_mode):
                done = place
                continue
            links += 1
            if links > 40:
                raise InvalidInput(f"{path}: too many levels of symbolic links")
            target = self._readlink(place)
            if target.startswith("/"):
                done = root
            parts = [p for p in target.split("/") if p not in ("", ".")] + parts
        return done

    def _readlink(self, path: str) -> str:
        if path in self._mine:
            return os.readlink(self.real(path))
        below = self.below(path)
        return os.readlink(below.real) if below else ""

    # --- directories ----------------------------------------------------------------------------------

    def _like(self, real: str, status: os.stat_result) -> None:
        os.chown(real, status.st_uid, status.st_gid)
        os.chmod(real, stat.S_IMODE(status.st_mode))

    def make_dirs(self, path: str, mode: int = DEFAULT_MODE, owner: tuple[int, int] | None = None) -> None:
        """The directory `path` and its parents; those that are missing get `mode` and `owner` (root without)."""
        if path in self._mine and self._mine[path] == "dir":
            return
        if path:
            self.make_dirs(posixpath.dirname(path), mode, owner)
        status = self.status(path)
        if status is None:
            self._mkdir(path)
            os.chown(self.real(path), *(owner or (0, 0)))
            os.chmod(self.real(path), mode)
            self._times[path] = self.epoch * 10**9
        elif stat.S_ISDIR(status.st_mode):
            self.show_dir(path)
        else:
            raise InvalidInput(f"/{path} in the image is not a directory", hint="choose another destination")

    def show_dir(self, path: str) -> None:
        """A directory of the image below, in the new layer with the metadata it has."""
        if path in self._mine:
            return
        self.show_parents(path)
        below = self.below(path)
        assert below is not None
        os.mkdir(self.real(path))
        self._mine[path] = "dir"
        for name, value in read_xattrs(below.real).items():
            os.setxattr(self.real(path), name, value)
        self._like(self.real(path), below.status)
        self._times[path] = below.status.st_mtime_ns

    def show_parents(self, path: str) -> None:
        folder = posixpath.dirname(path)
        if folder not in self._mine:
            self.show_dir(folder)

    def _mkdir(self, path: str) -> None:
        check_name(path)
        self.show_parents(path)
        os.mkdir(self.real(path))
        self._mine[path] = "dir"
        if path in self._gone:  # else the directory that was there would shine through
            os.setxattr(self.real(path), _OPAQUE, b"y")

    def check_directory(self, path: str) -> None:
        """Raises `InvalidInput` when something else than a directory is there."""
        status = self.status(path)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise InvalidInput(f"/{path} in the image is not a directory", hint="choose another path")

    def directory(self, path: str) -> bool:
        """Whether the directory `path` was made; false when there is one. Raises `InvalidInput` where a file is."""
        status = self.status(path)
        if status is None:
            self._mkdir(path)
            return True
        if not stat.S_ISDIR(status.st_mode):
            raise InvalidInput(f"cannot copy to non-directory: /{path}")
        self.show_dir(path)
        return False

    # --- files ----------------------------------------------------------------------------------------

    def clear(self, path: str, *, trees: bool = False) -> None:
        """Makes room for a file. A directory is in the way unless `trees`."""
        status = self.status(path)
        if status is None:
            return
        is_dir = stat.S_ISDIR(status.st_mode)
        if is_dir and not trees:
            raise InvalidInput(f"cannot replace to directory /{path} with file")
        if self.below(path) is not None:
            self._gone.add(path)
        if path in self._mine:
            if is_dir:
                shutil.rmtree(self.real(path))
                self._mine = {p: k for p, k in self._mine.items() if not p.startswith(f"{path}/")}
            else:
                os.unlink(self.real(path))
            self._mine.pop(path, None)
        self._lower = {p: e for p, e in self._lower.items() if p != path and not p.startswith(f"{path}/")}

    def create(self, path: str) -> int:
        """A descriptor of the new, empty file `path` (0600, root's)."""
        check_name(path)
        self.show_parents(path)
        self._mine[path] = "file"
        return os.open(self.real(path), _NEW, 0o600)

    def link(self, path: str, target: str) -> None:
        check_name(path)
        self.show_parents(path)
        os.symlink(target, self.real(path))
        self._mine[path] = "link"

    def hard_link(self, path: str, existing: str) -> None:
        """`existing` may be a file of the image below: it is taken into this layer first."""
        check_name(path)
        if existing not in self._mine:
            self._copy_up(existing)
        self.show_parents(path)
        os.link(self.real(existing), self.real(path), follow_symlinks=False)
        self._mine[path] = "file"

    def _copy_up(self, path: str) -> None:
        below = self.below(path)
        if below is None or below.is_dir:
            raise InvalidInput(f"a hard link to /{path}, which is no file of the image")
        self.show_parents(path)
        shutil.copyfile(below.real, self.real(path), follow_symlinks=False)
        os.chown(self.real(path), below.status.st_uid, below.status.st_gid, follow_symlinks=False)
        if not below.is_link:
            os.chmod(self.real(path), stat.S_IMODE(below.status.st_mode))
        os.utime(self.real(path), ns=(below.status.st_mtime_ns, below.status.st_mtime_ns), follow_symlinks=False)
        self._mine[path] = "file"

    def node(self, path: str, mode: int, device: int) -> None:
        check_name(path)
        if stat.S_ISCHR(mode) and device == 0:
            raise InvalidInput(f"/{path} is a character device 0:0, which means a deletion in an image's layer")
        self.show_parents(path)
        os.mknod(self.real(path), mode, device)
        self._mine[path] = "node"

    def whiteout(self, path: str) -> None:
        """What the image below has at `path` is hidden."""
        self.show_parents(path)
        os.mknod(self.real(path), stat.S_IFCHR, os.makedev(0, 0))
        self._mine[path] = "node"

    def finish(
        self, path: str, owner: tuple[int, int], mode: int | None, mtime_ns: int, xattrs: Mapping[str, bytes]
    ) -> None:
        """Owner, then mode (chown clears set-id bits), attributes, time. `mode` None: a symbolic link."""
        real = self.real(path)
        os.chown(real, *owner, follow_symlinks=False)
        if mode is not None:
            os.chmod(real, mode)
        for name, value in xattrs.items():
            try:
                os.setxattr(real, name, value, follow_symlinks=False)
            except OSError:  # a file system or a namespace that cannot hold it: BuildKit goes on as well
                continue
        if self._mine.get(path) == "dir":
            self._times[path] = mtime_ns
        else:
            os.utime(real, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def note_file(self, path: str) -> None:
        """Somebody else makes the file `path`, in a directory that was made here."""
        self._mine[path] = "file"

    def time_of(self, path: str) -> int:
        """The time that the directory `path` will have, in ns."""
        return self._times[path]

    def close(self) -> None:
        """Sets the directories' times."""
        for path, mtime in self._times.items():
            if self._mine.get(path) == "dir":
                os.utime(self.real(path), ns=(mtime, mtime))


def check_name(path: str) -> None:
    """A layer writes a deletion as `.wh.NAME`: a file that is called so would delete another."""
    if posixpath.basename(path).startswith(".wh."):
        raise InvalidInput(
            f"/{path}: a name that begins with .wh. means a deletion in an image's layer",
            hint="rename it, or leave it out with .dockerignore or --exclude",
        )
