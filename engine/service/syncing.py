"""Files brought into a container without a program of its own: written straight into its root, below a descriptor of it.

Of a running container that is the root of its first process as that process sees it (`/proc/PID/root`, taken through a
descriptor of `/proc/PID`, so that a number given to another process leads nowhere): its mounts are in it, and what is written
raises the events inside that a reloading program waits for. Of a stopped one it is a mount of its own (`runtime.viewer`). Paths are
resolved once, with openat2(RESOLVE_IN_ROOT); a file is written beside its place and renamed, so that nobody inside sees half of it,
and nothing that stands there (a device, a FIFO, a file of /proc) is ever opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.base import procfs
from engine.base.cancel import CancelToken
from engine.build.dockerfile.mode import parse_chmod
from engine.errors import Conflict, InvalidInput, from_os_error
from engine.linux import capability, libc
from engine.linux.mount import filesystem
from engine.linux.openat2 import open_in_root, resolve_in_root
from engine.model import Drift, SyncEntry, SyncResult
from engine.runtime.client import Runtime
from engine.runtime.users import UserError, identify
from engine.service.files import FileService
from engine.service.points import points_of
from engine.store.changes import find_changes
from engine.store.store import Store
from engine.store.view import Entry, LayerView

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 20
# statfs(2) f_type of what the kernel makes up: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, pstore.
_MADE_UP = {
    0x9FA0,
    0x62656572,
    0x27E0EB,
    0x63677270,
    0x1CD1,
    0x64626720,
    0x74726163,
    0x73636673,
    0xCAFE4A11,
    0x6165676C,
}


class Containers(Protocol):
    """What is needed of the container service."""

    def bundle(self, container_id: str) -> Path: ...
    def resolve(self, name: str) -> tuple[str, dict[str, Any]]: ...
    def lowers(self, container_id: str) -> Sequence[Path]: ...


class SyncService:
    def __init__(self, store: Store, runtime: Runtime, containers: Containers, files: FileService) -> None:
        self._store, self._runtime, self._containers, self._files = store, runtime, containers, files

    def sync(self, name: str, entries: Sequence[SyncEntry], cancel: CancelToken | None = None) -> SyncResult:
        """Raises `NotFound`, `Conflict`, `InvalidInput`, `StorageFull`; what was done by then stays, and may be done again."""
        container_id, record = self._containers.resolve(name)
        binds = [p.destination.rstrip("/") for p in points_of(record) if p.type == "bind"]
        with self._root(container_id, record) as (root, ids), _its_root(ids):
            writer = _Writer(root, ids, str(record["name"]), cancel or CancelToken())
            skipped: list[str] = []
            for entry in sorted(entries, key=lambda entry: entry.target):
                target = posixpath.normpath("/" + entry.target.lstrip("/"))
                if any(target == bind or target.startswith(bind + "/") for bind in binds):
                    skipped.append(target)
                    continue
                writer.put(entry, target)
        attributes = {"name": record["name"], "image": record["spec"]["image"]}
        self._store.records.event("container", "sync", container_id, attributes, durable=False)
        return SyncResult(tuple(writer.written), tuple(writer.removed), tuple(skipped))

    @contextlib.contextmanager
    def _root(self, container_id: str, record: dict[str, Any]) -> Iterator[tuple[int, _Ids]]:
        """The root (O_PATH), and how its users are numbered here."""
        state = self._runtime.state(self._containers.bundle(container_id))
        if state.status not in ("running", "paused"):
            with self._files.root(container_id, write=True) as root:
                yield root, _Ids("")
            return
        try:
            process = os.open(f"/proc/{state.pid}", _FOLDER)
            try:
                root = os.open("root", _FOLDER, dir_fd=process)
                try:
                    # The process was this one when its root was taken: a number is not given again while its folder is held.
                    if _started(process) != state.pid_start:
                        raise ProcessLookupError
                    yield root, _Ids(_read(process, "uid_map"), _read(process, "gid_map"))
                finally:
                    os.close(root)
            finally:
                os.close(process)
        except (FileNotFoundError, ProcessLookupError):
            raise Conflict(f"container {record['name']} has just ended") from None

    def listening(self, name: str) -> frozenset[int]:
        """The TCP ports that something listens on in its network, also on its loopback alone. None when it does not run."""
        container_id, _record = self._containers.resolve(name)
        state = self._runtime.state(self._containers.bundle(container_id))
        found: set[int] = set()
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError), open(f"/proc/{state.pid}/net/{table}", encoding="ascii") as file:
                found |= procfs.listening_ports(file.read())
        return frozenset(found)

    # --- drift ----------------------------------------------------------------------------------------

    def drift(self, name: str, image: str = "") -> list[Drift]:
        """What its root differs in from its own image, and whether `image` (a name; none: the one it was made of by name) has
        it so. Directories that only lead to a change are left out."""
        container_id, record = self._containers.resolve(name)
        newest = self._store.images.find(image or str(record["spec"]["image"]))
        view = LayerView(self._store.lowers(newest)) if newest else LayerView(())
        upper = os.open(self._containers.bundle(container_id) / "upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            changes = find_changes(upper, LayerView(self._containers.lowers(container_id)))
            found = []
            for change in changes:
                new = view.lookup(change.path, follow=False)
                if change.kind == "D":
                    found.append(Drift("D", change.path, new is None))
                    continue
                try:
                    fd = open_in_root(upper, change.path, os.O_PATH | os.O_NOFOLLOW)
                except OSError:  # gone meanwhile
                    continue
                try:
                    leads = stat.S_ISDIR(os.fstat(fd).st_mode) and change.kind == "C"
                    if not leads:
                        found.append(Drift(change.kind, change.path, new is not None and _same(fd, new)))
                finally:
                    os.close(fd)
            return found
        finally:
            os.close(upper)


def _same(fd: int, other: Entry) -> bool:
    """Type, mode, owner and content; times do not count, as in a build."""
    mine, theirs = os.fstat(fd), other.status
    if (mine.st_mode, mine.st_uid, mine.st_gid) != (theirs.st_mode, theirs.st_uid, theirs.st_gid):
        return False
    if stat.S_ISLNK(mine.st_mode):
        return os.readlink("", dir_fd=fd) == os.readlink(other.real)
    if not stat.S_ISREG(mine.st_mode):
        return True
    if mine.st_size != theirs.st_size:
        return False
    with open(f"/proc/self/fd/{fd}", "rb") as one, open(other.real, "rb") as two:
        while block := one.read(_CHUNK):
            if block != two.read(_CHUNK):
                return False
    return True


def _read(folder: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(fd, encoding="ascii", errors="replace") as file:
        return file.read()


def _started(process: int) -> int:
    """Start time of the process whose /proc folder this is, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    return int(_read(process, "stat").rpartition(")")[2].split()[19])


class _Ids:
    """A user namespace's ids as they are here: `uid_map` and `gid_map` (user_namespaces(7)); "" maps each to itself."""

    def __init__(self, uids: str, gids: str = "") -> None:
        self._uids, self._gids = _ranges(uids), _ranges(gids)

    def here(self, uid: int, gid: int) -> tuple[int, int]:
        return _mapped(self._uids, uid), _mapped(self._gids, gid)


@contextlib.contextmanager
def _its_root(ids: _Ids) -> Iterator[None]:
    """This thread makes files as the container's root: on a mount with mapped ids (mount_setattr(2), MOUNT_ATTR_IDMAP) a user
    outside the map can make none. setfsuid(2) speaks of one thread, and drops capabilities that are then raised again."""
    uid, gid = ids.here(0, 0)
    if not uid:
        yield
        return
    try:
        libc.call("setfsgid", gid)
        libc.call("setfsuid", uid)
        capability.raise_permitted()
        yield
    finally:
        libc.call("setfsuid", 0)
        libc.call("setfsgid", 0)


def _ranges(text: str) -> list[tuple[int, int, int]]:
    rows = [tuple(map(int, line.split())) for line in text.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows]


def _mapped(ranges: list[tuple[int, int, int]], number: int) -> int:
    for inside, here, count in ranges:
        if inside <= number < inside + count:
            return here + number - inside
    if ranges:
        raise InvalidInput(f"id {number} does not exist in the container's user namespace", hint="choose another owner")
    return number


class _Writer:
    def __init__(self, root: int, ids: _Ids, container: str, cancel: CancelToken) -> None:
        self._root, self._ids, self._container, self._cancel = root, ids, container, cancel
        self.written: list[str] = []
        self.removed: list[str] = []

    def put(self, entry: SyncEntry, target: str) -> None:
        self._cancel.check()
        try:
            try:
                source = os.open(entry.source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                self._remove(target)
                return
            try:
                self._make(entry, target, source)
            finally:
                os.close(source)
        except OSError as error:
            what = f"syncing {entry.source} to {target} in container {self._container}"
            if error.errno == errno.EROFS:
                raise InvalidInput(f"{what}: it is read-only there", hint="a rebuild brings it in") from error
            raise from_os_error(error, what) from error

    def _make(self, entry: SyncEntry, target: str, source: int) -> None:
        status = os.fstat(source)
        if entry.maybe_folder and not stat.S_ISDIR(status.st_mode) and self._is_folder(target):
            target = posixpath.join(target, entry.source.name)
        if target == "/":
            return  # the root itself is there
        owner = self._owner(entry.owner)
        above, name = posixpath.split(target)
        folder = self._folder(above, owner)
        try:
            if filesystem(folder) in _MADE_UP:
                raise InvalidInput(f"{target} lies in a file system of the kernel's: nothing is synced there")
            self._place(folder, name, entry, source, owner)
        finally:
            os.close(folder)
        self.written.append(target)

    def _is_folder(self, target: str) -> bool:
        try:
            os.close(open_in_root(self._root, target, _FOLDER))
        except OSError:
            return False
        return True

    def _owner(self, text: str) -> tuple[int, int] | None:
        """`--chown` against the container's own files: a number alone is user and group."""
        if not text:
            return None
        if text.isascii() and text.isdigit():
            return self._ids.here(int(text), int(text))
        try:
            found = identify(self._root, text)
        except UserError as error:
            raise InvalidInput(f"container {self._container}: {error}") from None
        return self._ids.here(found.uid, found.gid)

    def _folder(self, path: str, owner: tuple[int, int] | None) -> int:
        """The directory at `path`, made with its parents where it is missing. Links are followed inside the root."""
        try:
            return open_in_root(self._root, path, _FOLDER)
        except FileNotFoundError:
            pass
        folder = os.dup(self._root)
        try:
            for name in resolve_in_root(self._root, path):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=folder)
                    uid, gid = owner or _owner_of(folder)
                    os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
                below = open_in_root(folder, name, _FOLDER, no_symlinks=True)
                os.close(folder)
                folder = below
            return folder
        except BaseException:
            os.close(folder)
            raise

    def _place(self, folder: int, name: str, entry: SyncEntry, source: int, owner: tuple[int, int] | None) -> None:
        status = os.fstat(source)
        before = _stat(folder, name)
        uid, gid = owner or ((before.st_uid, before.st_gid) if before else _owner_of(folder))
        directory = stat.S_ISDIR(status.st_mode)
        chmod = parse_chmod(entry.mode)
        mode = chmod.apply(status.st_mode, directory=directory) if chmod else stat.S_IMODE(status.st_mode)
        if before is not None and stat.S_ISDIR(before.st_mode) != directory:
            _remove_tree(folder, name, self._cancel.check)
            before = None
        if directory:
            if before is None:
                os.mkdir(name, 0o700, dir_fd=folder)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
            return
        temporary = f".workbench-{secrets.token_hex(6)}"
        try:
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink("", dir_fd=source), temporary, dir_fd=folder)
                os.chown(temporary, uid, gid, dir_fd=folder, follow_symlinks=False)
            elif stat.S_ISREG(status.st_mode):
                self._copy(folder, temporary, source, (uid, gid), mode)
            else:
                raise InvalidInput(f"{entry.source} is neither a file, a folder nor a link: it is not synced")
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def _copy(self, folder: int, name: str, source: int, owner: tuple[int, int], mode: int) -> None:
        reading = os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            out = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                while block := os.read(reading, _CHUNK):
                    self._cancel.check()
                    view = memoryview(block)
                    while view:
                        view = view[os.write(out, view) :]
                os.fchown(out, *owner)
                os.fchmod(out, mode)
                times = os.fstat(reading)
                os.utime(out, ns=(times.st_atime_ns, times.st_mtime_ns))
            finally:
                os.close(out)
        finally:
            os.close(reading)

    def _remove(self, target: str) -> None:
        above, name = posixpath.split(target)
        if not name:
            raise InvalidInput(f"container {self._container}: the root itself is not removed")
        try:
            folder = open_in_root(self._root, above, _FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if filesystem(folder) in _MADE_UP or _stat(folder, name) is None:
                return
            _remove_tree(folder, name, self._cancel.check)
        finally:
            os.close(folder)
        self.removed.append(target)


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _owner_of(folder: int) -> tuple[int, int]:
    status = os.fstat(folder)
    return status.st_uid, status.st_gid


def _remove_tree(folder: int, name: str, check: Callable[[], None]) -> None:
    """What is at `name`, with all that is below it; no link is followed."""
    check()
    try:
        os.unlink(name, dir_fd=folder)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        for inner in os.listdir(fd):
            _remove_tree(fd, inner, check)
    finally:
        os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=folder)
