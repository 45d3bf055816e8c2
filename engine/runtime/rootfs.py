"""The container's file system, put together in its own mount namespace before anything of the image runs.

Every target is resolved once, inside the root (`open_in_root`), and mounted upon through that descriptor. The host's
/proc is still at /proc here, so `/proc/self/fd/N` means what it says.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from engine.linux import idmap
from engine.linux import mount as m
from engine.linux.cgroup import Cgroup
from engine.linux.openat2 import mkdirs_in_root, open_in_root
from engine.linux.overlay import mount_overlay
from engine.runtime import binds
from engine.runtime.init_userns import Remap
from engine.runtime.rootfs_devices import SetupError, make_device, make_standard_devices

_HANDLE = os.O_PATH | os.O_CLOEXEC
_INERT = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
KERNEL_DIRS = ("/proc", "/sys", "/dev")
# What may be covered by a file of the user's that stands for it, as lxcfs has them (runc's list, checkProcMount).
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "uptime",
                 "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled")
)  # fmt: skip
# These two the engine fills or sizes itself; any other tmpfs is the user's.
_OWN_TMPFS = ("/dev", "/dev/shm")


def mount_root(spec: dict[str, Any], bundle: str, remap: Remap | None = None) -> int:
    """Mounts the overlay at the bundle's `rootfs`; returns the root (O_PATH)."""
    extra = spec["workbench"]
    target = os.path.join(bundle, spec["root"]["path"])
    os.makedirs(target, exist_ok=True)
    lowers = extra["lowers"]
    if not lowers:  # FROM scratch: overlayfs wants one lower directory
        empty = os.path.join(bundle, "empty")
        os.makedirs(empty, exist_ok=True)
        lowers = [empty]
    upper, work = extra["upper"], extra["work"]
    if remap is not None:
        lowers, upper, work = remap.layers(os.path.join(bundle, "mapped"), lowers, upper, work)
    mount_overlay(lowers, upper, work, target, volatile=extra["volatile"])
    return os.open(target, _HANDLE | os.O_DIRECTORY)


class Rootfs:
    """One root being furnished. `stubs` and `copied` tell what that left in the upper directory (see `stubs.py`)."""

    def __init__(self, root_fd: int, upper: str = "", *, track: bool = False, remap: Remap | None = None) -> None:
        self.root = root_fd
        self.remap = remap
        self.stubs: list[tuple[str, bool]] = []  # path, is a directory
        self.copied: dict[str, tuple[int, int, int]] = {}  # directory that was only in a lower: mode, uid, gid
        self._device = os.fstat(root_fd).st_dev
        self._prefix = os.readlink(f"/proc/self/fd/{root_fd}")
        self._upper = os.open(upper, _HANDLE | os.O_DIRECTORY) if track and upper else -1

    @property
    def path(self) -> str:
        """Where the root is mounted, on the host."""
        return self._prefix

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
                uid, gid = (status.st_uid, status.st_gid) if self.remap is None else self.remap.inside(status)
                self.copied[path] = (status.st_mode, uid, gid)
            path = os.path.dirname(path)

    def marks(self) -> None:
        """What Docker puts into every root: `/.dockerenv`, by which programs see that they are in a container, and
        `/etc/mtab` where the image has none."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(".dockerenv", flags, 0o755, dir_fd=self.root))
        except FileExistsError:
            pass
        try:
            os.mkdir("etc", 0o755, dir_fd=self.root)
        except FileExistsError:
            pass
        try:
            etc = open_in_root(self.root, "/etc", _HANDLE | os.O_DIRECTORY | os.O_NOFOLLOW, no_symlinks=True)
        except OSError:  # a link or a file: the image's affair
            return
        try:
            os.symlink("/proc/mounts", "mtab", dir_fd=etc)
        except FileExistsError:
            pass
        finally:
            os.close(etc)

    # --- mounts --------------------------------------------------------------------------------------

    def mount_all(self, spec: dict[str, Any], held: dict[str, int], proc: int = -1) -> None:
        """Docker's mounts but for the cgroups, then the user's. `held` is what `binds.hold_sources` gave, `proc` a detached tree for /proc
        (closed)."""
        for entry in spec["mounts"]:
            if entry["type"] == "bind":
                binds.mount_bind(self, entry, held)
            elif entry["type"] == "overlay":
                binds.mount_image(self, entry)
            elif entry["type"] == "tmpfs" and entry["destination"] not in _OWN_TMPFS:
                self._tmpfs(entry)
            elif entry["type"] == "proc" and proc >= 0:
                target = self.ordinary(entry["destination"])
                m.attach_with(proc, target, self._options(entry["options"])[0])
                os.close(target)
                os.close(proc)
            elif (
                entry["type"] == "proc"
                and idmap.inside()
                and not any(each["type"] == "pid" for each in spec["linux"]["namespaces"])
            ):
                self._host_tree("/proc", entry)
            elif entry["type"] != "cgroup":
                self._kernel(entry)
                if entry["destination"] == "/dev":
                    there = {entry["destination"] for entry in spec["mounts"]}
                    names = (
                        ("pts", "shm", "mqueue") if "/dev/shm" in there else ("pts", "mqueue")
                    )  # --ipc none has none
                    make_standard_devices(self.root, names)
        for node in spec["linux"].get("devices", ()):
            make_device(self, node)

    def ordinary(self, path: str) -> int:
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

    def _options(self, options: list[str]) -> tuple[int, str]:
        """`split_options`, with the ids among them as the host's."""
        flags, data = split_options(options)
        if self.remap is None:
            return flags, data
        words = [word.partition("=") for word in data.split(",") if word]
        ids = {"uid": self.remap.uid, "gid": self.remap.gid}
        return flags, ",".join(
            f"{name}={ids[name](int(value))}" if name in ids and value.isdigit() else f"{name}{equals}{value}"
            for name, equals, value in words
        )

    def _kernel(self, entry: dict[str, Any]) -> None:
        flags, data = self._options(entry["options"])
        where = entry["destination"]
        fd = self.ordinary(where) if where in KERNEL_DIRS else self.target(where, directory=True)
        try:
            if entry["type"] == "devpts" and not idmap.exists(5, "/proc/self/gid_map"):
                data = data.replace(",gid=5", "")  # no group tty in this user namespace
            m.mount_at(entry["source"], fd, entry["type"], flags, data)
        except OSError as error:
            if entry["type"] == "sysfs" and error.errno == errno.EPERM and idmap.inside():
                self._host_sys(fd, flags)
            # A kernel without mqueue: the container is better off without than not at all.
            elif entry["type"] != "mqueue":
                raise SetupError(str(error)) from None
        finally:
            os.close(fd)

    def _host_tree(self, path: str, entry: dict[str, Any]) -> None:
        """The host's own: a new proc of its processes is not an ordinary user's to mount (mount_namespaces(7), restrictions)."""
        origin, target = os.open(path, _HANDLE | os.O_DIRECTORY), self.ordinary(entry["destination"])
        try:
            m.bind(origin, target, self._options(entry["options"])[0], recursive=True)
        except OSError as error:
            raise SetupError(f"{entry['destination']}: {error.strerror}") from None
        finally:
            os.close(origin)
            os.close(target)

    def _host_sys(self, target: int, flags: int) -> None:
        """sysfs belongs to whom the network namespace does: on the host's network an ordinary user gets the host's own,
        which is none of its to write to, and read-only at that."""
        origin = os.open("/sys", _HANDLE | os.O_DIRECTORY)
        try:
            m.bind(origin, target, flags | m.MS_RDONLY, recursive=True)
        finally:
            os.close(origin)

    def free_target(self, where: str, *, directory: bool) -> int:
        """`target`, which a mount of the user's may cover: not the root, and nothing of /proc (CVE-2019-16884)."""
        target = self.target(where, directory=directory)
        path = self.real_path(target)
        covers = not directory and path in _PROC_FILES
        if path == "/" or path == "/proc" or (path.startswith("/proc/") and not covers):
            os.close(target)
            reason = "the container's root" if path == "/" else "inside /proc"
            raise SetupError(f"{where} cannot be mounted upon: it is {reason}")
        return target

    def _tmpfs(self, entry: dict[str, Any]) -> None:
        """A tmpfs of the user's; over a directory of the image it has that one's mode unless told otherwise (as runc)."""
        where = entry["destination"]
        flags, data = self._options(entry["options"])
        try:
            os.close(open_in_root(self.root, where, _HANDLE))
            made = False
        except FileNotFoundError:
            made = True
        target = self.free_target(where, directory=True)
        try:
            status = os.fstat(target)
            if not stat.S_ISDIR(status.st_mode):
                raise SetupError(f"mount of a tmpfs at {where}: a directory onto a file")
            if not made:
                data = ",".join(filter(None, (f"mode={stat.S_IMODE(status.st_mode):o}", data)))  # the last one counts
            m.mount_at("tmpfs", target, "tmpfs", flags, data)
        except OSError as error:
            raise SetupError(f"tmpfs at {where}: {error}") from None
        finally:
            os.close(target)

    def attach(self, where: str, tree: int) -> None:
        """Mounts a detached tree, and closes it."""
        target = self.target(where, directory=True)
        m.attach_tree(tree, target)
        os.close(target)
        os.close(tree)

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
            for name, directory in cgroup.visible().items():
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


def split_options(options: list[str]) -> tuple[int, str]:
    """Mount flags, and the rest as the file system's data."""
    flags, data = 0, []
    for option in options:
        if option in m.FLAGS:
            sets, clears = m.FLAGS[option]
            flags = (flags & ~clears) | sets
        elif option not in m.NOT_DATA:
            data.append(option)
    return flags, ",".join(data)
