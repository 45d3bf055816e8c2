"""Files of containers, running and stopped: stat, copy out, copy in, export.

The container's root is had as a detached mount (`runtime.viewer`); everything here is done below its descriptor, in this
process, with openat2(RESOLVE_IN_ROOT). Archives are decompressed before any path of the container's is looked at.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from engine.archive.extract import Rules, extract
from engine.archive.wrapping import unwrap
from engine.archive.writer import Sink
from engine.base.cancel import CancelToken
from engine.errors import Conflict, Corrupt, EngineError, InvalidInput, NotFound, from_os_error
from engine.linux.openat2 import open_in_root
from engine.model import PathStat
from engine.runtime.client import Runtime
from engine.runtime.spec_mounts import BindMount, user_entries
from engine.runtime.users import identify
from engine.service import remapped
from engine.service.container_tar import pack
from engine.service.mounts import Mounts, in_order
from engine.service.points import points_of
from engine.store.store import Store

_HANDLE = os.O_PATH | os.O_CLOEXEC
_MAX_LINKS = 40
_BLOCK = 512
_CHUNK = 1 << 18
_FILES = ("hosts", "hostname", "resolv.conf")


class Containers(Protocol):
    """What is needed of the container service."""

    def bundle(self, container_id: str) -> Path: ...
    def resolve(self, name: str) -> tuple[str, dict[str, Any]]: ...
    def lowers(self, container_id: str) -> Sequence[Path]: ...
    def runs_with(self, volume: str) -> bool: ...
    def event(self, action: str, container_id: str, record: dict[str, Any], **more: str) -> None: ...


def clean(path: str) -> str:
    """`path` as an absolute one, cleaned; a trailing "/" or "/." stays, for it says that a directory is meant."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    base = posixpath.basename(path.rstrip("/"))
    if base == ".":
        cleaned = cleaned.rstrip("/") + "/."
    return cleaned + "/" if path.endswith("/") and not cleaned.endswith("/") else cleaned


@dataclass(frozen=True, slots=True)
class Root:
    """A container's merged root (O_PATH), and the user namespace that its files are to be read and written in (-1: this)."""

    fd: int
    users: int = -1


class FileService:
    def __init__(self, store: Store, runtime: Runtime, containers: Containers) -> None:
        self._store, self._runtime, self._containers = store, runtime, containers
        self._mounts = Mounts(store)

    # --- the root -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def root(self, name: str, *, write: bool = False, mounts: bool = True) -> Iterator[int]:
        """The container's merged root (O_PATH), with its volumes and binds on it unless `mounts` is False. Raises EngineError
        for one that runs in a user namespace of its own: its owners are not those that are seen here."""
        with self._root(name, write=write, mounts=mounts) as root:
            if root.users >= 0:
                raise EngineError(
                    f"container {name} runs in a user namespace of its own", hint="stop it, or use `workbench cp`"
                )
            yield root.fd

    @contextlib.contextmanager
    def _root(self, name: str, *, write: bool = False, mounts: bool = True) -> Iterator[Root]:
        container_id, record = self._containers.resolve(name)
        fds, running = self._view(container_id, record, write=write, mounts=mounts)
        try:
            yield Root(fds[0], fds[1] if running and len(fds) > 1 else -1)
        finally:
            for fd in fds:
                os.close(fd)
            if mounts:
                self._mounts.release(points_of(record), self._containers.runs_with)

    def _view(self, container_id: str, record: dict[str, Any], *, write: bool, mounts: bool) -> tuple[list[int], bool]:
        """What `Runtime.view` gives, and whether the container runs."""
        bundle = self._containers.bundle(container_id)
        end = time.monotonic() + 30
        while True:
            state = self._runtime.state(bundle)
            running = bool(state.pid) and state.status in ("running", "paused")
            request: dict[str, Any] = {
                "bundle": str(bundle),
                "pid": state.pid if running else 0,
                "pid_start": state.pid_start,
                "monitor": state.monitor_pid,
                "monitor_start": state.monitor_start,
                "mounts_fd": state.mounts if running else 0,
                "write": write,
                "read_only": bool(record["spec"].get("read_only")),
                "mounts": self._entries(container_id, record, running=running) if mounts else [],
                "lowers": [str(path) for path in self._containers.lowers(container_id)],
                "upper": str(bundle / "upper"),
                "work": str(bundle / "work"),
            }
            fds = self._runtime.view(request)
            if fds:
                return fds, running
            if time.monotonic() > end:
                raise Conflict(
                    f"container {record['name']} is starting, ending or being copied", hint="try again in a moment"
                )
            time.sleep(0.01)

    def _entries(self, container_id: str, record: dict[str, Any], *, running: bool) -> list[dict[str, Any]]:
        """The user's mounts as in the runtime configuration: that of the running container, or what a start would have."""
        bundle = self._containers.bundle(container_id)
        if running:
            found = json.loads((bundle / "config.json").read_bytes())["mounts"]
            kinds = ("bind", "overlay", "tmpfs")
            own = ("/dev", "/dev/shm", "/proc", "/sys")
            return [entry for entry in found if entry["type"] in kinds and entry["destination"] not in own]
        ours = [BindMount(str(bundle / name), f"/etc/{name}") for name in _FILES if (bundle / name).exists()]
        points = [point for point in points_of(record) if point.type != "tmpfs"]
        return user_entries(in_order((*self._mounts.for_runtime(points), *ours)))

    # --- stat -----------------------------------------------------------------------------------------

    def stat(self, name: str, path: str) -> PathStat:
        with self._root(name) as root:
            return self._stat(root.fd, name, path)

    def _stat(self, root: int, name: str, path: str) -> PathStat:
        if not path:
            raise InvalidInput("bad parameter: path cannot be empty")
        where = clean(path)
        fd = self._open(root, name, where, path)
        try:
            status = os.fstat(fd)
            link = follow(root, where) if stat.S_ISLNK(status.st_mode) else ""
        finally:
            os.close(fd)
        base = posixpath.basename(where.rstrip("/")) or "/"
        return PathStat(base, status.st_size, status.st_mode, status.st_mtime_ns, link)

    def _open(self, root: int, name: str, where: str, shown: str) -> int:
        """O_PATH of `where`; its last part is not followed unless a slash ends it."""
        try:
            return open_in_root(root, where, _HANDLE | (0 if where.endswith("/") else os.O_NOFOLLOW))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise NotFound(f"Could not find the file {shown} in container {name}") from None
            if error.errno == errno.ELOOP:
                raise InvalidInput(f"{shown} in container {name}: too many levels of symbolic links") from None
            raise from_os_error(error, f"looking at {shown} in container {name}") from error

    # --- out ------------------------------------------------------------------------------------------

    def get(
        self,
        name: str,
        path: str,
        out: Sink,
        started: Callable[[PathStat], None] | None = None,
        cancel: CancelToken | None = None,
    ) -> PathStat:
        """Writes what is at `path` into `out` as a tar; `started` hears what it is before the first byte."""
        with self._root(name) as root:
            found = self._stat(root.fd, name, path)
            if started:
                started(found)
            where = clean(path)
            try:
                if root.users >= 0:
                    remapped.pack(root.fd, root.users, where, out, cancel)
                else:
                    pack(root.fd, where, out, cancel)
            except OSError as error:
                raise from_os_error(error, f"reading {path} in container {name}") from error
        self._event(name, "archive-path")
        return found

    def export(self, name: str, out: Sink, cancel: CancelToken | None = None) -> None:
        """The whole root as a tar, without what is mounted on it."""
        with self._root(name, mounts=False) as root:
            try:
                if root.users >= 0:
                    remapped.pack(root.fd, root.users, "", out, cancel)
                else:
                    pack(root.fd, "", out, cancel)
            except OSError as error:
                raise from_os_error(error, f"reading container {name}") from error
        self._event(name, "export")

    # --- in -------------------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        path: str,
        source: BinaryIO,
        *,
        keep_kinds: bool = False,
        copy_owner: bool = False,
        cancel: CancelToken | None = None,
    ) -> None:
        """Unpacks the tar `source` (plain, or compressed by gzip, bzip2, xz, zstd) into the directory `path`.

        `keep_kinds` is Docker's noOverwriteDirNonDir, `copy_owner` its copyUIDGID: all belongs to the container's user.
        """
        if not path:
            raise InvalidInput("bad parameter: path cannot be empty")
        tar = checked_tar(source)
        where = clean(path)
        _, record = self._containers.resolve(name)
        with self._root(name, write=True) as view:
            root = view.fd
            self._directory(root, name, where, path)
            owner: tuple[int, int] | str = "keep"
            if copy_owner and record.get("user"):
                who = identify(root, record["user"])
                owner = who.uid, who.gid
            try:
                if view.users >= 0:
                    remapped.unpack(root, view.users, tar, where, owner, keep_kinds, cancel)
                else:
                    extract(tar, root, Rules(where.strip("/"), owner=owner, keep_kinds=keep_kinds), cancel)
            except OSError as error:
                raise self._refusal(error, root, name, where, path) from error
        self._event(name, "extract-to-dir")

    def _directory(self, root: int, name: str, where: str, shown: str) -> None:
        try:
            os.close(open_in_root(root, where, _HANDLE | os.O_DIRECTORY))
        except FileNotFoundError:
            raise NotFound(f"Could not find the file {shown} in container {name}") from None
        except NotADirectoryError:
            raise InvalidInput("extraction point is not a directory") from None
        except OSError as error:
            raise from_os_error(error, f"looking at {shown} in container {name}") from error

    def _refusal(self, error: OSError, root: int, name: str, where: str, shown: str) -> EngineError:
        if error.errno == errno.EROFS:
            _, record = self._containers.resolve(name)
            if record["spec"].get("read_only") and not _in_a_mount(root, where):
                return InvalidInput("container rootfs is marked read-only")
            return InvalidInput("mounted volume is marked read-only")
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST):
            at = f" at {error.filename!r}" if error.filename else ""
            return Conflict(
                f"writing to {shown} in container {name}: {error.strerror}{at}",
                hint="something that is no folder is in the way, or the container changed it meanwhile",
            )
        return from_os_error(error, f"writing to {shown} in container {name}")

    def _event(self, name: str, action: str) -> None:
        with contextlib.suppress(EngineError):
            self._containers.event(action, *self._containers.resolve(name))


def _in_a_mount(root: int, where: str) -> bool:
    fd = open_in_root(root, where, _HANDLE)
    try:
        return _mount_id(fd) != _mount_id(root)
    finally:
        os.close(fd)


def _mount_id(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next((line for line in file if line.startswith("mnt_id:")), "")


def checked_tar(source: BinaryIO) -> BinaryIO:
    """The plain tar in `source`. Raises `InvalidInput` before anything is done when there is none."""
    tar = unwrap(source)
    buffered = tar if hasattr(tar, "peek") else cast(BinaryIO, io.BufferedReader(cast(Any, tar), _CHUNK))
    wrong = InvalidInput(
        "the archive is no tar", hint="a tar is wanted, plain or compressed by gzip, bzip2, xz or zstd"
    )
    try:
        head = bytes(cast(Any, buffered).peek(_BLOCK)[:_BLOCK])
    except Corrupt as error:
        raise InvalidInput(str(error)) from error
    if not head:
        raise InvalidInput("the archive is empty")
    if len(head) == _BLOCK and head != b"\0" * _BLOCK:
        digits = head[148:156].strip(b"\0 ")
        total = sum(head) - sum(head[148:156]) + 256
        if not digits or any(c not in b"01234567" for c in digits) or int(digits, 8) != total:
            raise wrong
    elif len(head) < _BLOCK:
        raise wrong
    return buffered


def follow(root: int, where: str) -> str:
    """Where the link `where` leads inside the root, as far as it exists (Docker's linkTarget)."""
    path, seen = where, 0
    while seen < _MAX_LINKS:
        try:
            fd = open_in_root(root, path, _HANDLE | os.O_NOFOLLOW)
        except OSError:
            return path
        try:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                return _real(root, path, fd)
            target = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        seen += 1
    return path


def _real(root: int, path: str, fd: int) -> str:
    """`path` with the links in its directories followed: the descriptor's name below the root's."""
    top, real = os.readlink(f"/proc/self/fd/{root}"), os.readlink(f"/proc/self/fd/{fd}")
    top = top.rstrip("/")
    return real[len(top) :] or "/" if real.startswith(f"{top}/") or real == top else path
