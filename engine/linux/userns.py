"""An ordinary user's own user and mount namespace, in which the whole engine runs: root there, nobody else outside.

Design: a front end that is started by an ordinary user enters the namespace before anything else (before there is a second
thread: unshare(2) refuses one then), and all it starts (the supervisor, monitors, containers, programs) is inside. So no
other part of the engine has to ask who it works for: unpacking, overlay mounts, copy-up and removal of files of mapped ids
are done by "root". The alternative, a helper for each of these in a namespace of its own, would split every one of them
in two. The first front end makes the namespace; later ones join it through the supervisor or a monitor, so that all
see the same mounts and may signal and enter each other's containers.

With newuidmap(1), newgidmap(1) and ranges in /etc/subuid and /etc/subgid all ids of an image exist; without, only the
user's own, as 0 (user_namespaces(7)): files of other owners then belong to it, and programs cannot change user.
"""

from __future__ import annotations

import errno
import functools
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.lazy import lazy
from engine.errors import Unsupported
from engine.linux import libc
from engine.linux.idmap import inside, read_map, single

if TYPE_CHECKING:
    import shutil
    import subprocess

    from engine.linux import delegation, mount, namespace
else:
    shutil = lazy("shutil")
    subprocess = lazy("subprocess")
    delegation = lazy("engine.linux.delegation")
    mount = lazy("engine.linux.mount")
    namespace = lazy("engine.linux.namespace")

MARK = "WORKBENCH_USERNS"  # in the environment of everything inside: the user's id outside
NETWORK = "WORKBENCH_ROOTLESS_NETWORK"
HELPERS = ("pasta", "slirp4netns")
_NEEDED = 65536  # ids that images may use


def entered_by() -> int | None:
    """The ordinary user's id (outside) when this process runs in the namespace made here; None otherwise."""
    text = os.environ.get(MARK, "")
    return int(text) if text.isdigit() and os.geteuid() == 0 and inside() else None


def enter(relatives: Iterator[int]) -> None:
    """Enters the namespace: that of the first of `relatives` (process ids) that is alive and the user's, or a new one.

    Call before there is a second thread; does nothing for root. Raises `Unsupported` where the host does not allow it.
    """
    uid = os.geteuid()
    if uid == 0 or os.environ.get(MARK):
        return
    for pid in relatives:
        if _join(pid, uid):
            break
    else:
        _make(uid)
    os.environ[MARK] = str(uid)
    if single():
        _forgive_owners()


def _forgive_owners() -> None:
    """With one id, an image's other owners do not exist: what would be given to them stays the user's. Put into `os`
    itself, so that it holds wherever files are unpacked, copied and made; `notes` says it."""
    for name in ("chown", "fchown", "lchown"):
        setattr(os, name, _forgiving(getattr(os, name)))


def _forgiving(change: Callable[..., None]) -> Callable[..., None]:
    def forgiving(*arguments: Any, **more: Any) -> None:
        try:
            change(*arguments, **more)
        except OSError as error:
            if error.errno != errno.EINVAL:  # an id that is not mapped
                raise

    return forgiving


def _join(pid: int, uid: int) -> bool:
    try:
        if os.stat(f"/proc/{pid}").st_uid not in (uid, 0):
            return False
        if os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino:
            return False
        files = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("user", "mnt")]
    except OSError:
        return False
    try:
        folder = os.getcwd()
        namespace.setns(files[0], namespace.NEWUSER)
        namespace.setns(files[1], namespace.NEWNS)
        os.chdir(folder)  # joining a mount namespace leads to its root
        return True
    except OSError:
        return False
    finally:
        for fd in files:
            os.close(fd)


def _make(uid: int) -> None:
    gid = os.getegid()
    ranges = id_ranges(uid)
    helper = _mapper(uid, gid, ranges) if ranges else None
    try:
        namespace.unshare(namespace.NEWUSER | namespace.NEWNS)
    except OSError as error:
        raise _refused(error) from error
    if helper is not None and helper.release():
        pass
    else:
        _map_one(uid, gid)
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        mount.mount("", "/", "", mount.MS_REC | mount.MS_SLAVE)
    except OSError as error:
        raise _refused(error) from error


def _map_one(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1\n"), ("gid_map", f"0 {gid} 1\n")):
        try:
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            if name != "setgroups":
                raise _refused(error) from error


def _refused(error: OSError) -> Unsupported:
    hint = "run it with sudo, or let an administrator allow unprivileged user namespaces"
    if error.errno == errno.ENOSPC:
        hint = "sysctl user.max_user_namespaces is used up or 0: let an administrator raise it"
    elif error.errno == errno.EINVAL:
        hint = "enter the namespace (engine.linux.userns.enter) before any thread is started"
    elif Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
        hint = "AppArmor restricts user namespaces here: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or sudo"
    elif Path("/proc/sys/kernel/unprivileged_userns_clone").exists():
        hint = "sysctl kernel.unprivileged_userns_clone=1 allows it, or use sudo"
    return Unsupported(f"this host does not let an ordinary user make a user namespace: {error.strerror}", hint=hint)


def network_helpers() -> tuple[str, ...]:
    """The programs that can lead out of a network namespace of an ordinary user's, best first: those that are installed,
    or the one that WORKBENCH_ROOTLESS_NETWORK names ("host": none, containers share the host's network)."""
    return _helpers(os.environ.get(NETWORK, ""))


@functools.cache
def _helpers(chosen: str) -> tuple[str, ...]:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return ()
    names = [name for name in HELPERS if chosen in ("", name)]
    return tuple(found for name in names if (found := shutil.which(name, path=_PATH)))


def network_note() -> str:
    """Why containers have no network of their own, "" where they have."""
    if network_helpers():
        return ""
    chosen = os.environ.get(NETWORK, "")
    if chosen == "host":
        why = f"{NETWORK}=host"
    elif not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        why = "/dev/net/tun cannot be opened here; chmod 666 /dev/net/tun is the usual mode"
    else:
        why = f"install {chosen}" if chosen in HELPERS else "install pasta (package passt) or slirp4netns"
    return f"containers share this host's network, their ports are not published apart ({why})"


# --- ranges -----------------------------------------------------------------------------------------


def id_ranges(uid: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]] | None:
    """The user's subordinate ids (first, count) for users and groups; None where they or the helpers are missing."""
    if not shutil.which("newuidmap", path=_PATH) or not shutil.which("newgidmap", path=_PATH):
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    users, groups = (_ranges(path, name, uid) for path in ("/etc/subuid", "/etc/subgid"))
    return (users, groups) if users and groups else None


_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def _ranges(path: str, name: str, uid: int) -> list[tuple[int, int]]:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        who, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if who in (name, str(uid)) and first.isdigit() and count.isdigit() and int(count):
            found.append((int(first), int(count)))
    return found


class _mapper:
    """A child that stays outside and, once this process is in its new namespace, has its ids mapped there."""

    def __init__(self, uid: int, gid: int, ranges: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self._child = os.fork()
        if self._child:
            os.close(self._read)
            return
        status = 1
        try:
            os.close(self._write)
            os.read(self._read, 1)
            libc.prctl(libc.PR_SET_PDEATHSIG, 9)
            plans = (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1]))
            done = [subprocess.run(_command(*plan, parent), capture_output=True, check=False) for plan in plans]
            status = 0 if all(each.returncode == 0 for each in done) else 1
        finally:
            os._exit(status)

    def release(self) -> bool:
        os.close(self._write)
        _pid, status = os.waitpid(self._child, 0)
        return status == 0


def _command(program: str, own: int, ranges: list[tuple[int, int]], pid: int) -> list[str]:
    words, inner = [str(pid), "0", str(own), "1"], 1
    for first, count in ranges:
        words += [str(inner), str(first), str(count)]
        inner += count
    return [shutil.which(program, path=_PATH) or program, *words]


def _lingers(uid: int) -> bool:
    """Whether logind keeps the user's services when no session is left (loginctl(1), enable-linger)."""
    try:
        return Path("/var/lib/systemd/linger", pwd.getpwuid(uid).pw_name).exists()
    except KeyError:
        return False


def notes() -> list[str]:
    """What does not hold in this namespace, each in one sentence; for `info`, and once at first use."""
    uid = entered_by()
    if uid is None:
        return []
    said = [note] if (note := network_note()) else []
    if Path("/run/systemd/system").exists() and not _lingers(uid):
        said.append("containers end with your last session on this host: `loginctl enable-linger` keeps them running")
    if limits := delegation.note(uid):
        said.append(limits)
    if single():
        said.append(
            "only one user id: files of an image belong to its root, and programs cannot change user; "
            f"install uidmap and give user {uid} a range in /etc/subuid and /etc/subgid for all of them"
        )
    elif sum(count for _, _, count in read_map()) < _NEEDED:
        said.append("fewer than 65536 user ids: images that use higher ones cannot be unpacked")
    return said
