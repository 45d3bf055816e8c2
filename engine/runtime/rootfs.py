"""The container's file system, put together in its own mount namespace before anything of the image runs.

Every target is resolved once, inside the root (`open_in_root`), and mounted upon through that descriptor. The host's
/proc is still at /proc here, so `/proc/self/fd/N` means what it says.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from engine.linux import mount as m
from engine.linux.cgroup import Cgroup
from engine.linux.openat2 import mkdirs_in_root, open_in_root
from engine.linux.overlay import mount_overlay

_HANDLE = os.O_PATH | os.O_CLOEXEC
_INERT = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
_KERNEL_DIRS = ("/proc", "/sys", "/dev")
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}


class SetupError(Exception):
    """A root that cannot be set up, in words for the user."""


def mount_root(spec: dict[str, Any], bundle: str) -> int:
    """Mounts the overlay at the bundle's `rootfs`; returns the root (O_PATH)."""
    extra = spec["workbench"]
    target = os.path.join(bundle, spec["root"]["path"])
    os.makedirs(target, exist_ok=True)
    lowers = extra["lowers"]
    if not lowers:  # FROM scratch: overlayfs wants one lower directory
        empty = os.path.join(bundle, "empty")
        os.makedirs(empty, exist_ok=True)
        lowers = [empty]
    mount_overlay(lowers, extra["upper"], extra["work"], target, volatile=extra["volatile"])
    return os.open(target, _HANDLE | os.O_DIRECTORY)


class Rootfs:
    """One root being furnished. `stubs` and `copied` tell what that left in the upper directory (see `stubs.py`)."""

    def __init__(self, root_fd: int, upper: str = "", *, track: bool = False) -> None:
        self.root = root_fd
        self.stubs: list[tuple[str, bool]] = []  # path, is a directory
        self.copied: dict[str, tuple[int, int, int]] = {}  # directory that was only in a lower: mode, uid, gid
        self._device = os.fstat(root_fd).st_dev
        self._prefix = os.readlink(f"/proc/self/fd/{root_fd}")
        self._upper = os.open(upper, _HANDLE | os.O_DIRECTORY) if track and upper else -1

    def real_path(self, fd: int) -> str:
        """The path of `fd` inside the root, symbolic links resolved."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        return path[len(self._prefix) :] or "/"

    def target(self, path: str, *, directory: bool, depth: int = 0) -> int:
        """O_PATH of `path`, made as an empty directory or file where it is missing (0755, as Docker)."""
        try:
            return open_in_root(self.root, path, _HANDLE)
        except FileNotFoundError:
            if depth > 10:
                raise
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise SetupError(f"mount target {path!r} holds '..'")
        parent = os.dup(self.root)
        try:
            for index, name in enumerate(parts):
                last = index == len(parts) - 1
                so_far = "/" + "/".join(parts[: index + 1])
                try:
                    child = open_in_root(self.root, so_far, _HANDLE)
                except FileNotFoundError:
                    link = self._make(parent, name, directory=directory or not last)
                    if link is not None:  # a symbolic link to nowhere: make what it points to
                        base = link if link.startswith("/") else f"{self.real_path(parent)}/{link}"
                        there = os.path.normpath("/".join([base, *parts[index + 1 :]]))
                        return self.target(there, directory=directory, depth=depth + 1)
                    child = open_in_root(parent, name, _HANDLE | os.O_NOFOLLOW)
                os.close(parent)
                parent = child
            return os.dup(parent)
        finally:
            os.close(parent)

    def _make(self, parent: int, name: str, *, directory: bool) -> str | None:
        """Makes `name`; or, where a symbolic link has that name, returns where it points."""
        before = os.stat(f"/proc/self/fd/{parent}")
        in_overlay = before.st_dev == self._device and self._upper >= 0
        folder = self.real_path(parent)
        if in_overlay:
            self._note_copied(folder)
        try:
            if directory:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o755, dir_fd=parent))
        except FileExistsError:
            return os.readlink(name, dir_fd=parent)
        if in_overlay:
            self.stubs.append((f"{folder.rstrip('/')}/{name}", directory))
            os.utime(f"/proc/self/fd/{parent}", ns=(before.st_atime_ns, before.st_mtime_ns))
        return None

    def _note_copied(self, folder: str) -> None:
        """Notes which of the directories down to `folder` are about to be copied up."""
        path = folder
        while path != "/" and path not in self.copied:
            try:
                os.close(open_in_root(self._upper, path, _HANDLE | os.O_NOFOLLOW, no_symlinks=True))
                return
            except OSError:
                fd = open_in_root(self.root, path, _HANDLE | os.O_NOFOLLOW)
                status = os.fstat(fd)
                os.close(fd)
                self.copied[path] = (status.st_mode, status.st_uid, status.st_gid)
            path = os.path.dirname(path)

    # --- mounts --------------------------------------------------------------------------------------

    def mount_all(self, spec: dict[str, Any]) -> None:
        """Docker's mounts but for the cgroups, then the user's."""
        theirs = {os.path.normpath(e["destination"]) for e in spec["mounts"] if e["type"] == "bind"}
        for entry in spec["mounts"]:
            where = entry["destination"]
            if entry["type"] == "bind":
                self._bind(entry)
            elif where not in theirs and entry["type"] != "cgroup":
                self._kernel(entry)
                if where == "/dev":
                    self._devices()

    def _ordinary(self, path: str) -> int:
        """`path` as a plain directory, not through any symbolic link: else labels, masks and device nodes would
        land in a decoy (CVE-2019-19921, CVE-2023-28642)."""
        try:
            fd = open_in_root(self.root, path, _HANDLE | os.O_NOFOLLOW, no_symlinks=True)
        except FileNotFoundError:
            return self.target(path, directory=True)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise SetupError(f"{path} in the image must be an ordinary directory") from None
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise SetupError(f"{path} in the image must be an ordinary directory")
        return fd

    def _kernel(self, entry: dict[str, Any]) -> None:
        flags, data = split_options(entry["options"])
        where = entry["destination"]
        fd = self._ordinary(where) if where in _KERNEL_DIRS else self.target(where, directory=True)
        try:
            m.mount_at(entry["source"], fd, entry["type"], flags, data)
        except OSError as error:
            # No group 5, or a kernel without mqueue: the container is better off without than not at all.
            if entry["type"] != "mqueue":
                raise SetupError(str(error)) from None
        finally:
            os.close(fd)

    def _devices(self) -> None:
        dev = open_in_root(self.root, "/dev", _HANDLE | os.O_DIRECTORY)
        before = os.umask(0)
        try:
            for name, (major, minor) in _DEVICES.items():
                try:
                    os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(major, minor), dir_fd=dev)
                except PermissionError:  # a nested container: bind the host's
                    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=dev))
                    self._bind_device(f"/dev/{name}", dev, name)
            for name, where in _LINKS.items():
                os.symlink(where, name, dir_fd=dev)
            for name in ("pts", "shm", "mqueue"):
                os.mkdir(name, 0o755, dir_fd=dev)
        finally:
            os.umask(before)
            os.close(dev)

    def _bind_device(self, source: str, dev: int, name: str) -> None:
        origin = os.open(source, _HANDLE)
        target = open_in_root(dev, name, _HANDLE | os.O_NOFOLLOW)
        try:
            m.bind(origin, target)
        finally:
            os.close(origin)
            os.close(target)

    def console(self, slave: int) -> None:
        """/dev/console is the container's terminal."""
        dev = open_in_root(self.root, "/dev", _HANDLE | os.O_DIRECTORY)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                os.close(os.open("console", flags, 0o600, dir_fd=dev))
            except FileExistsError:
                return
            target = open_in_root(dev, "console", _HANDLE | os.O_NOFOLLOW)
            try:
                m.bind(slave, target)
            finally:
                os.close(target)
        finally:
            os.close(dev)

    def _bind(self, entry: dict[str, Any]) -> None:
        where, source = entry["destination"], entry["source"]
        try:
            origin = os.open(source, _HANDLE)
        except OSError as error:
            raise SetupError(f"bind source {source}: {error.strerror}") from None
        try:
            directory = stat.S_ISDIR(os.fstat(origin).st_mode)
            target = self.target(where, directory=directory)
            try:
                path = self.real_path(target)
                if path == "/proc" or path.startswith("/proc/"):
                    raise SetupError(f"{where} cannot be mounted upon: it is inside /proc")
                if path == "/":
                    raise SetupError(f"{where} cannot be mounted upon: it is the container's root")
                if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
                    kind = "directory onto a file" if directory else "file onto a directory"
                    raise SetupError(f"mount of {source} at {where}: a {kind}")
                flags = m.MS_RDONLY if "ro" in entry["options"] else 0
                m.bind(origin, target, flags, recursive="rbind" in entry["options"])
            finally:
                os.close(target)
        finally:
            os.close(origin)

    def mount_cgroup(self, spec: dict[str, Any], cgroup: Cgroup) -> None:
        """v2: the group's own tree; v1: a tmpfs with the container's own directory of each controller.

        On v2 only after the cgroup namespace is made: the mount shows that namespace's root.
        """
        entry = next((e for e in spec["mounts"] if e["type"] == "cgroup"), None)
        theirs = {os.path.normpath(e["destination"]) for e in spec["mounts"] if e["type"] == "bind"}
        if entry is None or entry["destination"] in theirs:
            return
        flags, _data = split_options(entry["options"])
        try:
            fd = open_in_root(self.root, entry["destination"], _HANDLE | os.O_DIRECTORY)
        except FileNotFoundError:  # a kernel without cgroups
            return
        try:
            if cgroup.layout.version == "v2":
                try:
                    m.mount_at("cgroup", fd, "cgroup2", flags)
                except PermissionError:
                    return
            elif cgroup.directories:
                self._cgroup_v1(entry["destination"], fd, flags, cgroup)
        finally:
            os.close(fd)

    def _cgroup_v1(self, where: str, fd: int, flags: int, cgroup: Cgroup) -> None:
        m.mount_at("tmpfs", fd, "tmpfs", flags & ~m.MS_RDONLY, "mode=755,size=64k")
        top = open_in_root(self.root, where, _HANDLE | os.O_DIRECTORY)
        try:
            for name, directory in cgroup.directories.items():
                os.mkdir(name, 0o755, dir_fd=top)
                origin = os.open(directory, _HANDLE)
                target = open_in_root(top, name, _HANDLE)
                m.bind(origin, target, flags)
                os.close(origin)
                os.close(target)
            if flags & m.MS_RDONLY:
                m.mount("", f"/proc/self/fd/{top}", "", m.MS_REMOUNT | m.MS_BIND | flags)
        finally:
            os.close(top)

    # --- what is hidden ------------------------------------------------------------------------------

    def protect(self, spec: dict[str, Any]) -> None:
        """Masked paths, read-only paths, and the read-only root."""
        for path in spec["linux"]["readonlyPaths"]:
            fd = self._existing(path)
            if fd >= 0:
                m.bind(fd, fd, m.MS_RDONLY | _INERT, recursive=True)
                os.close(fd)
        null, empty = null_device(), -1
        for path in [*spec["linux"]["maskedPaths"], *_thermal(spec["linux"]["maskedPaths"])]:
            fd = self._existing(path)
            if fd < 0:
                continue
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                m.bind(null, fd)
            elif empty >= 0:
                m.bind(empty, fd)
            else:
                m.mount_at("tmpfs", fd, "tmpfs", m.MS_RDONLY | _INERT, "nr_inodes=1")
                empty = self._existing(path)
            os.close(fd)
        os.close(null)
        if empty >= 0:
            os.close(empty)
        if spec["root"]["readonly"]:
            m.mount("", f"/proc/self/fd/{self.root}", "", m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY)

    def _existing(self, path: str) -> int:
        try:
            return open_in_root(self.root, path, _HANDLE)
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def make_cwd(self, path: str) -> None:
        """Docker makes a missing working directory: 0755, root's. Inside the root, through no magic link."""
        try:
            os.close(open_in_root(self.root, path, _HANDLE))
        except FileNotFoundError:
            try:
                os.close(mkdirs_in_root(self.root, path, 0o755))
            except OSError as error:
                raise SetupError(f"working directory {path}: {error.strerror}") from None
        except OSError:
            pass  # chdir(2) will say what is wrong with it


def _thermal(masked: list[str]) -> list[str]:
    """Each CPU's thermal_throttle, as Docker masks beside its list."""
    root = "/sys/devices/system/cpu"
    if not masked or not os.path.isdir(f"{root}/cpu0/thermal_throttle"):
        return []
    return [f"{root}/{name}/thermal_throttle" for name in os.listdir(root) if name[:3] == "cpu" and name[3:].isdigit()]


def null_device() -> int:
    """The host's /dev/null, verified: the thing that hides files must not be a link to a file (CVE-2025-31133)."""
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise SetupError("/dev/null of this host is not the null device")
    return fd


def split_options(options: list[str]) -> tuple[int, str]:
    """Mount flags, and the rest as the file system's data."""
    flags, data = 0, []
    for option in options:
        if option in m.FLAGS:
            flags |= m.FLAGS[option]
        else:
            data.append(option)
    return flags, ",".join(data)
