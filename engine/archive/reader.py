"""Applying a layer to a directory that a hostile tar cannot leave.

Every entry is made relative to a descriptor of its parent directory, which is opened below the destination's descriptor with
openat2 `RESOLVE_IN_ROOT`; the last component is never followed. Whiteouts (image-spec, layer.md) become what overlayfs wants
in a lower layer (a character device 0:0, `trusted.overlay.opaque`), or are carried out at once when merging into one tree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.archive.tarstream import Member, TarStream
from engine.archive.writer import CHUNK
from engine.base.cancel import CancelToken
from engine.base.units import human_size
from engine.errors import HostileArchive, StorageFull, from_os_error, storage_full
from engine.linux.idmap import inside
from engine.linux.openat2 import mkdirs_in_root, open_in_root, resolve_in_root
from engine.oci.digest import Digest

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
RESERVE = 64 << 20  # bytes kept free for the database and the logs
OPEN_FOLDERS = 64
_MAX_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may hold. `size` None is the free space less a reserve."""

    entries: int = 2_000_000
    depth: int = 512
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """`size` is the sum of the regular files' bytes."""

    diff_id: Digest
    size: int
    entries: int


def apply_layer(
    stream: BinaryIO,
    dest: Path,
    *,
    overlay: bool = True,
    literal: bool = False,
    limits: Limits = Limits(),
    progress: Callable[[int], None] | None = None,
    cancel: CancelToken | None = None,
) -> Applied:
    """Unpacks the plain tar `stream` into `dest`. `literal`: no name means a whiteout. Raises `HostileArchive`, `Corrupt`, `StorageFull`, `Cancelled`."""
    root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    unpacker = _Unpacker(root, overlay, literal, limits, cancel or CancelToken(), progress)
    tar = TarStream(stream)
    try:
        for member in tar.members():
            unpacker.apply(member, tar)
        unpacker.finish()
    except OSError as error:
        raise from_os_error(error, "unpacking a layer") from error
    finally:
        unpacker.close()
        os.close(root)
    return Applied(Digest(f"sha256:{tar.hash.hexdigest()}"), unpacker.size, unpacker.entries)


class _Unpacker:
    def __init__(
        self,
        root: int,
        overlay: bool,
        literal: bool,
        limits: Limits,
        cancel: CancelToken,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._root, self._overlay, self._limits, self._cancel, self._progress = root, overlay, limits, cancel, progress
        self._literal = literal
        self._folders: OrderedDict[str, int] = OrderedDict()
        self._times: dict[str, int] = {}
        self._seen: set[str] = set()
        free = os.statvfs(root)
        self._budget = limits.size if limits.size is not None else max(0, free.f_bavail * free.f_frsize - RESERVE)
        self._root_user = os.geteuid() == 0 and not inside()
        self.size = self.entries = 0

    # --- folders --------------------------------------------------------------------------------------

    def _folder(self, path: str) -> int:
        """A descriptor of the directory `path`, made where missing. A cache: consecutive entries share their folder."""
        if path in self._folders:
            self._folders.move_to_end(path)
            return self._folders[path]
        found = os.dup(self._root) if not path else mkdirs_in_root(self._root, path)
        try:
            # fsetxattr(2) and listing need more than an O_PATH descriptor.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found)
        finally:
            os.close(found)
        self._folders[path] = fd
        if len(self._folders) > OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return fd

    def _forget(self, path: str) -> None:
        """A directory was replaced or removed: no descriptor of it, or of what was below, may be used again."""
        for known in [name for name in self._folders if name == path or name.startswith(f"{path}/")]:
            os.close(self._folders.pop(known))
        self._times = {
            name: when for name, when in self._times.items() if name != path and not name.startswith(f"{path}/")
        }

    def close(self) -> None:
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    # --- entries --------------------------------------------------------------------------------------

    def apply(self, member: Member, tar: TarStream) -> None:
        self._cancel.check()
        self.entries += 1
        if self.entries > self._limits.entries:
            raise HostileArchive(f"the layer has more than {self._limits.entries:,} entries")
        path = self._clean(member.name)
        if not path:
            if member.kind != "dir":
                return  # the root can be nothing else: containerd passes over such an entry, too
            os.fchmod(self._root, member.mode)
            self._own(member, "", self._root)
            return
        parent, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT) and not self._literal:
            self._whiteout(parent, name, path)
            return
        folder = self._folder(parent)
        self._replace(folder, name, path, member.kind == "dir")
        self._seen.add(path)
        getattr(self, f"_{member.kind}")(member, folder, name, path, tar)
        self._finish_entry(member, folder, name, path)

    def _clean(self, name: str, *, clamp: bool = False) -> str:
        """`name` without `.` and `..`; with `clamp` what climbs above the root stays at it, as in a chroot."""
        parts: list[str] = []
        for part in name.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                # "a/../b" stays inside; a path that climbs above the root is not one a tool writes by mistake.
                if not parts and not clamp:
                    raise HostileArchive(f"the entry {name!r} would leave the image's root")
                del parts[-1:]
                continue
            if len(os.fsencode(part)) > 255:
                raise HostileArchive(f"the entry {name[:60]!r}… has a component longer than 255 bytes")
            parts.append(part)
        if len(parts) > self._limits.depth:
            raise HostileArchive(f"the entry {name[:60]!r}… is more than {self._limits.depth} directories deep")
        return "/".join(parts)

    def _replace(self, folder: int, name: str, path: str, is_dir: bool) -> None:
        """Clears the way: anything there goes, but a directory that a directory entry describes stays."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            if not is_dir:
                self._remove_tree(folder, name, path)
        else:
            os.unlink(name, dir_fd=folder)
            self._forget(path)

    def _remove_tree(self, folder: int, name: str, path: str) -> None:
        self._forget(path)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            for child in os.listdir(inner):
                self._remove(inner, child, f"{path}/{child}")
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=folder)

    def _remove(self, folder: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._remove_tree(folder, name, path)
        else:
            os.unlink(name, dir_fd=folder)

    def _whiteout(self, parent: str, name: str, path: str) -> None:
        hidden = name.removeprefix(WHITEOUT)
        if name == OPAQUE:
            folder = self._folder(parent)
            if self._overlay:
                self._opaque(folder)
            else:
                self._empty(folder, parent)
            return
        if name.startswith(f"{WHITEOUT}{WHITEOUT}"):
            return  # aufs's own marker files mean nothing in a layer
        if hidden in ("", ".", ".."):
            raise HostileArchive(f"the whiteout {path!r} names no file")
        folder = self._folder(parent)
        target = f"{parent}/{hidden}" if parent else hidden
        if target in self._seen:
            return  # a layer's whiteout hides lower layers, never what the same layer holds
        with contextlib.suppress(FileNotFoundError):
            self._remove(folder, hidden, target)
        if self._overlay:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=folder)

    def _opaque(self, folder: int) -> None:
        try:
            os.setxattr(folder, "trusted.overlay.opaque", b"y")
        except PermissionError:
            os.setxattr(folder, "user.overlay.opaque", b"y")

    def _empty(self, folder: int, parent: str) -> None:
        for child in os.listdir(folder):
            target = f"{parent}/{child}" if parent else child
            if not any(seen == target or seen.startswith(f"{target}/") for seen in self._seen):
                self._remove(folder, child, target)

    # --- kinds ----------------------------------------------------------------------------------------

    def _dir(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)

    def _file(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        if member.size > self._budget - self.size and member.sparse is None:
            raise self._too_large(path, member.size)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            if member.sparse is None:
                while data := tar.read(CHUNK):
                    self._write(fd, data)
            else:
                self._write_sparse(fd, member, tar)
        finally:
            os.close(fd)

    def _write(self, fd: int, data: bytes) -> None:
        done = os.write(fd, data)
        while done < len(data):
            done += os.write(fd, data[done:])
        self.size += len(data)
        if self.size > self._budget:
            raise self._too_large("a file", len(data))
        if self._progress:
            self._progress(self.size)
        self._cancel.check()

    def _too_large(self, path: str, size: int) -> StorageFull:
        free = human_size(max(0, self._budget - self.size))
        return storage_full(
            f"no room for the layer: {path} needs {human_size(size)} and {free} are free beside the {human_size(RESERVE)} "
            "kept for the database and the logs"
        )

    def _write_sparse(self, fd: int, member: Member, tar: TarStream) -> None:
        for offset, size in member.sparse or ():
            os.lseek(fd, offset, os.SEEK_SET)
            while size:
                data = tar.read(min(size, CHUNK))
                if not data:
                    raise HostileArchive(f"{member.name}: its sparse map holds more than the archive")
                self._write(fd, data)
                size -= len(data)
        os.ftruncate(fd, member.size)

    def _symlink(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        if not member.link:
            raise HostileArchive(f"the symbolic link {path!r} has no target")
        os.symlink(member.link, name, dir_fd=folder)

    def _hardlink(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        target = self._clean(member.link, clamp=True)
        parent, _, base = target.rpartition("/")
        if not base:
            raise HostileArchive(f"the hard link {path!r} has no target")
        missing = f"the hard link {path!r} points at {member.link!r}, which is not in this layer"
        try:
            folders = "/".join(resolve_in_root(self._root, parent))
            source = open_in_root(self._root, folders, os.O_PATH | os.O_DIRECTORY, no_symlinks=True)
        except FileNotFoundError:
            raise HostileArchive(missing) from None
        try:
            os.link(base, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise HostileArchive(missing) from None
        except PermissionError as error:
            raise HostileArchive(
                f"the hard link {path!r} points at {member.link!r}, which cannot be linked: {error.strerror}"
            ) from None
        finally:
            os.close(source)

    def _char(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        self._device(stat.S_IFCHR, member, folder, name, path)

    def _block(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        self._device(stat.S_IFBLK, member, folder, name, path)

    def _device(self, kind: int, member: Member, folder: int, name: str, path: str) -> None:
        major, minor = member.dev
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise HostileArchive(f"the device {path!r} has the numbers {major}:{minor}, which Linux does not have")
        if kind == stat.S_IFCHR and (major, minor) == (0, 0):
            raise HostileArchive(f"{path!r} is a forged overlay whiteout (character device 0:0)")
        try:
            os.mknod(name, kind | 0o600, os.makedev(major, minor), dir_fd=folder)
        except PermissionError:
            if self._root_user:
                raise
            # In a user namespace there are no devices to make. An empty file stands there, as in Docker's rootless mode.
            fd = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            os.close(fd)

    def _fifo(self, member: Member, folder: int, name: str, path: str, tar: TarStream) -> None:
        os.mkfifo(name, 0o600, dir_fd=folder)

    # --- metadata -------------------------------------------------------------------------------------

    def _own(self, member: Member, name: str, folder: int) -> None:
        if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
            raise HostileArchive(f"{member.name}: owner {member.uid}:{member.gid} is out of range")
        try:
            if name:
                os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
            else:
                os.fchown(folder, member.uid, member.gid)
        except PermissionError:
            if self._root_user:
                raise

    def _finish_entry(self, member: Member, folder: int, name: str, path: str) -> None:
        """Owner first: chown(2) clears the set-user-ID bits that chmod sets."""
        self._own(member, name, folder)
        link = member.kind == "hardlink" and stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        if member.kind != "symlink" and not link:
            # fchmodat follows links, but this name was made just now by us in a directory that only we write.
            os.chmod(name, member.mode, dir_fd=folder)
        if member.xattrs:
            self._xattrs(member, folder, name)
        when = min(max(member.mtime, -(2**33)), 2**33)
        if member.kind == "dir":
            self._times[path] = when
        else:
            os.utime(name, (when, when), dir_fd=folder, follow_symlinks=False)

    def _xattrs(self, member: Member, folder: int, name: str) -> None:
        path = f"/proc/self/fd/{folder}/{name}"
        for key, value in member.xattrs.items():
            if key.startswith(("trusted.overlay.", "user.overlay.", "security.selinux")):
                continue  # the engine's own bookkeeping is never taken from an image
            try:
                os.setxattr(path, key, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM) or (
                    self._root_user and error.errno == errno.EPERM and not key.startswith("user.")
                ):
                    raise

    def finish(self) -> None:
        """Directory times last: making their entries changed them."""
        for path, when in self._times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    os.utime(fd, (when, when))
                finally:
                    os.close(fd)
