"""The user's mounts: host paths and volumes with their propagation, and the trees of images.

Sources are opened while the host's mounts are still in sight; a source that shares its mounts with the host (`rshared`,
`rslave`) is cloned before the rest of this mount namespace is cut off from it, because the clone keeps the ties.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from engine.linux import mount as m
from engine.linux.openat2 import open_in_root
from engine.linux.overlay import mount_overlay
from engine.runtime.rootfs_devices import SetupError

if TYPE_CHECKING:
    from engine.runtime.init_userns import Remap
    from engine.runtime.rootfs import Rootfs

_HANDLE = os.O_PATH | os.O_CLOEXEC
_PROPAGATION = {"private": m.MS_PRIVATE, "slave": m.MS_SLAVE, "shared": m.MS_SHARED}


def propagation(entry: dict[str, Any]) -> str:
    """ "rprivate", "rshared", …"""
    return next((option for option in entry["options"] if option.removeprefix("r") in _PROPAGATION), "rprivate")


def hold_sources(spec: dict[str, Any]) -> dict[str, int]:
    """Clones of the sources that stay tied to the host's mounts, by destination. Call in the new mount namespace before
    anything there is made private."""
    held = {}
    for entry in spec["mounts"]:
        kind = propagation(entry).removeprefix("r")
        if entry["type"] == "bind" and kind != "private":
            source = open_source(entry)
            try:
                _check_shared(entry, source, kind)
                tree = m.clone_tree(source, recursive="rbind" in entry["options"])
            finally:
                os.close(source)
            held[entry["destination"]] = tree
    return held


def _check_shared(entry: dict[str, Any], source: int, kind: str) -> None:
    """Docker's rule: `shared` needs a source on a shared mount, `slave` one on a shared or a slave mount."""
    with open(f"/proc/self/fdinfo/{source}", encoding="ascii") as file:
        number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = next((line.split(" ") for line in file if line.startswith(f"{number} ")), [])
    ties = fields[6 : fields.index("-")] if "-" in fields else []
    wanted = ("shared:",) if kind == "shared" else ("shared:", "master:")
    if not any(tie.startswith(wanted) for tie in ties):
        where = fields[4] if fields else "/"
        what = "a shared mount" if kind == "shared" else "a shared or slave mount"
        raise SetupError(f"path {entry['source']} is mounted on {where} but it is not {what}")


def open_source(entry: dict[str, Any]) -> int:
    """O_PATH of a bind's source; of a path inside it where the entry names one (never out of it: RESOLVE_IN_ROOT)."""
    source, subpath = entry["source"], (entry.get("workbench") or {}).get("subpath", "")
    try:
        fd = os.open(source, _HANDLE)
    except OSError as error:
        raise SetupError(f"bind source {source}: {error.strerror}") from None
    return _below(fd, subpath, source)


def _below(fd: int, subpath: str, source: str) -> int:
    if not subpath:
        return fd
    try:
        return open_in_root(fd, subpath, _HANDLE)
    except OSError as error:
        raise SetupError(f"cannot access subpath {subpath!r} of {source}: {error.strerror}") from None
    finally:
        os.close(fd)


def _target(rootfs: Rootfs, entry: dict[str, Any], *, directory: bool) -> int:
    target = rootfs.free_target(entry["destination"], directory=directory)
    if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
        os.close(target)
        kind = "directory onto a file" if directory else "file onto a directory"
        raise SetupError(f"mount of {entry['source']} at {entry['destination']}: a {kind}")
    return target


def mount_bind(rootfs: Rootfs, entry: dict[str, Any], held: dict[str, int]) -> None:
    """A host path or a volume, put in its place in the container's root."""
    tree = held.pop(entry["destination"], -1)
    source = tree if tree >= 0 else open_source(entry)
    try:
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = _target(rootfs, entry, directory=directory)
        try:
            if tree < 0:
                tree = m.clone_tree(source, recursive="rbind" in entry["options"])
            else:
                source = -1
            if rootfs.remap is not None and (entry.get("workbench") or {}).get("mapped"):
                rootfs.remap.map_tree(tree, entry["source"])
            _attach(entry, tree, target)
        finally:
            os.close(target)
    finally:
        for fd in {source, tree} - {-1}:
            os.close(fd)


def protect_below(entry: dict[str, Any], tree: int) -> None:
    """Makes the mounts below a read-only detached tree read-only too, where the entry asks for it; for an OCI runtime, which
    sees to the topmost one itself. Raises SetupError on Linux before 5.12 when it must be."""
    options = entry["options"]
    below = (entry.get("workbench") or {}).get("read_only", "try") != "top"
    if "rbind" not in options or not below or not {"ro", "rro"} & set(options):
        return
    try:
        m.set_attributes(tree, m.MS_RDONLY, recursive=True)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        if "rro" in options:
            raise _cannot_protect(entry) from None


def _cannot_protect(entry: dict[str, Any]) -> SetupError:
    return SetupError(
        f"mount at {entry['destination']}: this kernel cannot make the mounts below read-only (it takes Linux 5.12)"
    )


def _attach(entry: dict[str, Any], tree: int, target: int) -> None:
    options, kind = entry["options"], propagation(entry)
    flags = m.MS_RDONLY if "rro" in options else 0
    for option in options:
        flags |= m.FLAGS[option][0] if option in m.FLAGS else 0
    below = "rbind" in options and (entry.get("workbench") or {}).get("read_only", "try") != "top"
    try:
        if kind.removeprefix("r") == "slave":
            m.set_attributes(tree, propagation=m.MS_SLAVE, recursive=kind.startswith("r"))
        if flags:
            m.set_attributes(tree, flags, recursive=below)
        m.attach_tree(tree, target)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # Linux before 5.12
            raise
        if "rro" in options:
            raise _cannot_protect(entry) from None
        m.attach_tree(tree, target)
        if kind.removeprefix("r") == "slave":
            m.mount("", f"/proc/self/fd/{tree}", "", m.MS_SLAVE | (m.MS_REC if kind.startswith("r") else 0))
        if flags:
            m.mount("", f"/proc/self/fd/{tree}", "", m.MS_REMOUNT | m.MS_BIND | flags)


def mount_image(rootfs: Rootfs, entry: dict[str, Any]) -> None:
    """The tree of another image: read-only, or with an upper directory for what is written."""
    extra = entry["workbench"]
    tree = clone_image(extra, f"image {entry['source']}", rootfs.path, rootfs.remap)
    try:
        target = _target(rootfs, entry, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        try:
            _attach({**entry, "options": [] if extra.get("upper") else ["ro"]}, tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def clone_image(extra: dict[str, Any], shown: str, scratch: str, remap: Remap | None = None) -> int:
    """A detached mount of the merged layers, or of one path in them. `scratch` (a host path) is mounted upon meanwhile. In
    a user namespace its files belong to the users they say."""
    lowers, subpath, upper, work = (
        extra["lowers"],
        extra.get("subpath", ""),
        extra.get("upper", ""),
        extra.get("work", ""),
    )
    if remap is not None:
        lowers, upper, work = remap.layers(f"{scratch}-images/{os.urandom(4).hex()}", lowers, upper, work)
    if len(lowers) == 1 and not upper:  # overlayfs wants two layers where there is no upper one
        inside = _below(os.open(lowers[0], _HANDLE | os.O_DIRECTORY), subpath, shown)
        try:
            return m.clone_tree(inside)
        finally:
            os.close(inside)
    mount_overlay(lowers, upper, work, scratch)
    try:
        inside = _below(os.open(scratch, _HANDLE | os.O_DIRECTORY), subpath, shown)
        try:
            return m.clone_tree(inside)
        finally:
            os.close(inside)
    finally:
        m.unmount(scratch)
