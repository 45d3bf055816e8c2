"""Unpacking a tar into a tree that others may be changing: a container's root, or a folder of the user's.

Layers are unpacked by `reader` into a directory that nobody else sees. Here a directory can be exchanged for a link
between any two steps, so a name is used once: what is made is opened below its directory's descriptor, and owner, mode,
attributes and times are set through that descriptor (CVE-2021-41089: chmod through an exchanged link).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from engine.archive.tarstream import Member, TarStream
from engine.archive.writer import CHUNK
from engine.base.cancel import CancelToken
from engine.errors import Corrupt, HostileArchive, InvalidInput
from engine.linux.openat2 import mkdirs_in_root, open_in_root

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FOLDERS = 32
_DEPTH = 512
_MAX_ID = 2**32 - 2
_SKIPPED = ("trusted.overlay.", "user.overlay.", "security.selinux")


@dataclass(frozen=True, slots=True)
class Rules:
    """How to unpack. `below` is where, under the root; `links`: directories on the way may be links (resolved inside the
    root). `owner`: "keep" the archive's, "none" (those of this process), or a uid and gid for everything.
    `keep_kinds`: a directory is not replaced by something else, nor something else by one. `rename` maps names."""

    below: str = ""
    links: bool = True
    owner: tuple[int, int] | str = "keep"
    keep_kinds: bool = False
    rename: Callable[[str], str] = lambda name: name


class _NoHash:
    def update(self, data: bytes) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


def extract(stream: BinaryIO, root: int, rules: Rules = Rules(), cancel: CancelToken | None = None) -> int:
    """Unpacks the plain tar `stream` below the directory `root` (a descriptor); returns the bytes of its files.

    Raises `InvalidInput` for what is no tar or does not fit what is there, `HostileArchive`, `OSError`, `Cancelled`.
    """
    tar = TarStream(stream)
    tar.hash = _NoHash()  # type: ignore[assignment]
    extractor = _Extractor(root, rules, cancel or CancelToken())
    try:
        for member in tar.members():
            extractor.add(member, tar)
        extractor.finish()
    except HostileArchive:
        raise
    except Corrupt as error:
        raise InvalidInput(
            f"Error processing tar file: {error}",
            hint="a tar is wanted, plain or compressed by gzip, bzip2, xz or zstd",
        ) from error
    finally:
        extractor.close()
    return extractor.size


class _Extractor:
    def __init__(self, root: int, rules: Rules, cancel: CancelToken) -> None:
        self._root, self._rules, self._cancel = root, rules, cancel
        self._folders: OrderedDict[str, int] = OrderedDict()
        self._late: dict[str, int] = {}
        self.size = 0

    # --- folders --------------------------------------------------------------------------------------

    def _where(self, path: str) -> str:
        return f"{self._rules.below}/{path}" if self._rules.below else path

    def _folder(self, path: str) -> int:
        """A descriptor of the directory `path`, made where missing."""
        if path in self._folders:
            self._folders.move_to_end(path)
            return self._folders[path]
        where = self._where(path)
        if not where.strip("/"):
            found = os.dup(self._root)
        elif self._rules.links:
            found = mkdirs_in_root(self._root, where, 0o755)
        else:
            found = self._strict(where)
        try:
            fd = os.open(".", _DIR & ~os.O_NOFOLLOW, dir_fd=found)
        finally:
            os.close(found)
        self._folders[path] = fd
        if len(self._folders) > _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return fd

    def _strict(self, where: str) -> int:
        """The directory `where`, every part of it a real one."""
        fd = os.dup(self._root)
        for part in (part for part in where.split("/") if part):
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise HostileArchive(f"{where} leads through a link or a file that is no folder") from None
                raise
            finally:
                os.close(fd)
            fd = below
        return fd

    def close(self) -> None:
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    # --- entries --------------------------------------------------------------------------------------

    def add(self, member: Member, tar: TarStream) -> None:
        self._cancel.check()
        path = _clean(self._rules.rename(member.name))
        if not path:
            if member.kind != "dir":
                raise InvalidInput(f"the archive's entry {member.name!r} names the folder that it is unpacked into")
            return  # "./": the folder is there already, and stays as it is
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent)
        self._clear(folder, name, path, member)
        self._late.pop(path, None)
        kind = member.kind
        if kind == "file":
            self._file(member, folder, name, tar)
        elif kind == "dir":
            self._dir(member, folder, name, path)
        elif kind == "symlink":
            self._symlink(member, folder, name)
        elif kind == "hardlink":
            self._hardlink(member, folder, name)
        else:
            self._node(member, folder, name)

    def _clear(self, folder: int, name: str, path: str, member: Member) -> None:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        there, wanted = stat.S_ISDIR(status.st_mode), member.kind == "dir"
        if there and wanted:
            return
        if self._rules.keep_kinds and there != wanted:
            first, second = ("directory", "non-directory") if there else ("non-directory", "directory")
            raise InvalidInput(
                f'cannot overwrite {first} "/{self._where(path).strip("/")}" with {second} "{member.name}"'
            )
        if there:
            self._forget(path)
            _remove_tree(folder, name)
        else:
            os.unlink(name, dir_fd=folder)

    def _forget(self, path: str) -> None:
        for known in [name for name in self._folders if name == path or name.startswith(f"{path}/")]:
            os.close(self._folders.pop(known))
        for known in [name for name in self._late if name.startswith(f"{path}/")]:
            del self._late[known]

    # --- kinds ----------------------------------------------------------------------------------------

    def _file(self, member: Member, folder: int, name: str, tar: TarStream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            if member.sparse is None:
                while data := tar.read(CHUNK):
                    self._write(fd, data)
            else:
                self._write_sparse(fd, member, tar)
            self._describe(member, fd)
            os.utime(fd, (_time(member), _time(member)))
        finally:
            os.close(fd)

    def _write(self, fd: int, data: bytes) -> None:
        self._cancel.check()
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

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

    def _dir(self, member: Member, folder: int, name: str, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
        fd = os.open(name, _DIR, dir_fd=folder)
        try:
            self._describe(member, fd)
        finally:
            os.close(fd)
        self._late[path] = _time(member)

    def _symlink(self, member: Member, folder: int, name: str) -> None:
        if not member.link:
            raise HostileArchive(f"the symbolic link {member.name!r} has no target")
        os.symlink(member.link, name, dir_fd=folder)
        owner = self._owner(member)
        if owner is not None:
            os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        os.utime(name, (_time(member), _time(member)), dir_fd=folder, follow_symlinks=False)

    def _hardlink(self, member: Member, folder: int, name: str) -> None:
        target = _clean(self._rules.rename(member.link))
        parent, _, base = target.rpartition("/")
        try:
            source = self._existing(parent)
            try:
                os.link(base, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(source)
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidInput(f"the hard link {member.name!r} points at {member.link!r}, which is not there") from None

    def _existing(self, path: str) -> int:
        where = self._where(path)
        if not where.strip("/"):
            return os.dup(self._root)
        flags = os.O_PATH | os.O_DIRECTORY
        return open_in_root(self._root, where, flags, no_symlinks=not self._rules.links)

    def _node(self, member: Member, folder: int, name: str) -> None:
        kind = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}[member.kind]
        major, minor = member.dev
        if kind != stat.S_IFIFO and not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise HostileArchive(
                f"the device {member.name!r} has the numbers {major}:{minor}, which Linux does not have"
            )
        if kind == stat.S_IFCHR and member.dev == (0, 0):
            raise HostileArchive(f"{member.name!r} is a forged overlay whiteout (character device 0:0)")
        device = 0 if kind == stat.S_IFIFO else os.makedev(major, minor)
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=folder)
        except PermissionError:
            if kind == stat.S_IFIFO:
                raise
            return  # in a user namespace there are no devices to make: left out, as Docker does
        fd = os.open(name, _PATH, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if stat.S_IFMT(status.st_mode) != kind or status.st_rdev != device:
                raise OSError(errno.EEXIST, "was exchanged while it was made", name)
            self._describe(member, fd, path=f"/proc/self/fd/{fd}")
            os.utime(f"/proc/self/fd/{fd}", (_time(member), _time(member)))
        finally:
            os.close(fd)

    # --- metadata -------------------------------------------------------------------------------------

    def _owner(self, member: Member) -> tuple[int, int] | None:
        wanted = self._rules.owner
        if isinstance(wanted, tuple):
            return wanted
        if wanted == "none":
            return None
        if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
            raise HostileArchive(f"{member.name}: owner {member.uid}:{member.gid} is out of range")
        return member.uid, member.gid

    def _describe(self, member: Member, fd: int, *, path: str = "") -> None:
        """Owner, mode, attributes, of what the descriptor is. `path` is its magic link where it is an O_PATH one."""
        owner = self._owner(member)
        if owner is not None:
            os.chown(path or fd, *owner)
        os.chmod(path or fd, member.mode)
        for key, value in member.xattrs.items():
            if key.startswith(_SKIPPED):
                continue
            try:
                os.setxattr(path or fd, key, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise

    def finish(self) -> None:
        """Directory times last: making their entries changed them."""
        for path, when in self._late.items():
            with contextlib.suppress(OSError):
                parent, _, name = path.rpartition("/")
                fd = os.open(name, _DIR, dir_fd=self._folder(parent))
                try:
                    os.utime(fd, (when, when))
                finally:
                    os.close(fd)


def _time(member: Member) -> int:
    """Within what every file system holds."""
    return min(max(member.mtime, -(2**31)), 2**33)


def _clean(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise HostileArchive(f"the entry {name!r} would leave the folder that it is unpacked into")
            parts.pop()
            continue
        parts.append(part)
    if len(parts) > _DEPTH:
        raise HostileArchive(f"the entry {name[:60]!r}… is more than {_DEPTH} directories deep")
    return "/".join(parts)


def _remove_tree(folder: int, name: str) -> None:
    inner = os.open(name, _DIR, dir_fd=folder)
    try:
        for child in os.listdir(inner):
            status = os.stat(child, dir_fd=inner, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                _remove_tree(inner, child)
            else:
                os.unlink(child, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)
