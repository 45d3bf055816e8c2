"""The container's mounts, in the order in which they are made: Docker's own, then the user's by depth. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from engine.errors import InvalidInput
from engine.model import HostConfig

SHM_SIZE = 64 << 20

_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
# What moby's mount validation takes (moby/sys/mount, flags of tmpfs(5)).
_TMPFS_FLAGS = frozenset(
    "ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime"
    " bind rbind unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime strictatime"
    " nostrictatime".split()
)
_TMPFS_VALUES = frozenset(("mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"))
_NEGATED = {"suid": "nosuid", "dev": "nodev", "exec": "noexec"}


@dataclass(frozen=True, slots=True)
class BindMount:
    """A host path shown in the container. `recursive` takes the mounts below it along; `subpath` is a path inside it.

    `read_only_below` says what a read-only one means for those: "try" where the kernel can (Linux 5.12), "no", or "must".
    """

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    propagation: str = "rprivate"
    read_only_below: Literal["try", "no", "must"] = "try"
    subpath: str = ""
    mapped: bool = False  # the engine's own: in a user namespace its files belong to the users they say


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """`options` as for mount(8), later ones over earlier: "size=1m", "exec"."""

    target: str
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImageMount:
    """The tree of an image, read-only. `lowers` has the topmost layer first.

    With `upper` and `work` (empty folders) it can be written to: what is written goes to `upper`.
    """

    target: str
    image: str
    lowers: Sequence[str]
    subpath: str = ""
    upper: str = ""
    work: str = ""


UserMount = BindMount | TmpfsMount | ImageMount


def mounts(host: HostConfig, users: Sequence[UserMount]) -> list[dict[str, Any]]:
    """OCI's `mounts`. A mount of the user's replaces Docker's at the same place."""
    theirs = [_users(mount) for mount in users]
    theirs += [tmpfs_mount(target, options) for target, options in host.tmpfs.items()]
    theirs.sort(key=lambda entry: len(PurePosixPath(entry["destination"]).parts))
    taken = {entry["destination"] for entry in theirs}
    # A tmpfs of the user's at /dev still gets the devices: it only says how large it is.
    own = {entry["destination"]: entry for entry in theirs if entry["type"] == "tmpfs"}
    first = []
    for entry in _kernel_mounts(host):
        where = entry["destination"]
        if where == "/dev" and where in own:
            theirs.remove(own[where])
            options = own[where]["options"]
            mode = () if any(option.startswith("mode=") for option in options) else ("mode=755",)
            first.append({**own[where], "options": [*options, *mode]})
        elif where not in taken:
            first.append(entry)
    return first + theirs


def _kernel_mounts(host: HostConfig) -> list[dict[str, Any]]:
    quiet = ("nosuid", "noexec", "nodev")
    read_only = () if host.privileged else ("ro",)
    result = [
        _entry("/proc", "proc", *quiet),
        _entry("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _entry("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _entry("/sys", "sysfs", *quiet, *read_only),
        _entry("/sys/fs/cgroup", "cgroup", *quiet, *read_only),
    ]
    result.append(_entry("/dev/mqueue", "mqueue", *quiet))  # shows the queues of the IPC namespace, whosever that is
    if host.ipc_mode == "host":
        result.append(_entry("/dev/shm", "bind", "rbind", *quiet, source="/dev/shm"))
    elif host.ipc_mode != "none" and not host.ipc_mode.startswith("container:"):  # there: the other container's
        size = f"size={host.shm_size or SHM_SIZE}"
        result.append(_entry("/dev/shm", "tmpfs", *quiet, "mode=1777", size, source="shm"))
    return result


def _entry(target: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def _target(text: str) -> str:
    if any(c in text for c in "\0\n\r"):
        raise InvalidInput(f"mount target {text!r} holds a control character")
    if not text.startswith("/"):
        raise InvalidInput(f"mount target {text!r} is not an absolute path")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        raise InvalidInput("invalid mount target: it can't be '/'")
    return "/" + "/".join(parts)


def user_entries(users: Sequence[UserMount]) -> list[dict[str, Any]]:
    """The entries of these mounts alone, in the order given."""
    return [_users(mount) for mount in users]


def _users(mount: UserMount) -> dict[str, Any]:
    if isinstance(mount, TmpfsMount):
        return tmpfs_mount(mount.target, ",".join(mount.options))
    if isinstance(mount, ImageMount):
        extra = {"lowers": list(mount.lowers), "subpath": mount.subpath, "upper": mount.upper, "work": mount.work}
        access = "rw" if mount.upper else "ro"
        return _entry(_target(mount.target), "overlay", access, source=mount.image) | {"workbench": extra}
    access = ("rro" if mount.read_only_below == "must" else "ro") if mount.read_only else "rw"
    recursion = "rbind" if mount.recursive else "bind"
    entry = _entry(_target(mount.target), "bind", recursion, mount.propagation, access, source=mount.source)
    if mount.subpath or mount.read_only_below == "no":
        entry["workbench"] = {"subpath": mount.subpath, "read_only": "top" if mount.read_only_below == "no" else "try"}
    if mount.mapped:
        entry["workbench"] = {**entry.get("workbench", {}), "mapped": True}
    return entry


def tmpfs_mount(target: str, options: str = "") -> dict[str, Any]:
    """The entry of `--tmpfs TARGET:OPTIONS` (and of `--mount type=tmpfs`). Raises InvalidInput."""
    merged = list(_TMPFS_DEFAULTS)
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not (key in _TMPFS_VALUES and value if equals else key in _TMPFS_FLAGS):
            raise InvalidInput(f'invalid tmpfs option ["{option}"]', hint="size=64m, mode=1777, exec, ro and their kin")
        if equals:
            merged = [kept for kept in merged if not kept.startswith(f"{key}=")]
        elif _NEGATED.get(option) in merged:
            merged.remove(_NEGATED[option])
            continue
        if option not in merged:
            merged.append(option)
    return _entry(_target(target), "tmpfs", *merged)
