"""The mounts of a container, from what was asked for to what the runtime is told.

At creation the requests (`-v`, `--mount`, `--volumes-from`, the image's VOLUMEs) become points, by Docker's order of
precedence; named and anonymous volumes are made and filled from the image. The points stand in the container's record.
At each start they become the runtime's mounts, and volumes that are file systems of their own are mounted.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.atomic import locked
from engine.errors import Conflict, InvalidInput, StartFailed, from_os_error
from engine.linux import mount as m
from engine.model import ContainerSpec, Mount
from engine.runtime.spec_mounts import BindMount, ImageMount, TmpfsMount, UserMount
from engine.service.mount_specs import absolute, clean_path, split_volumes_from, validate
from engine.service.points import Point, point_of
from engine.store.copyup import copy_up
from engine.store.view import LayerView
from engine.store.volumes import DRIVER, Volume

if TYPE_CHECKING:
    from engine.oci.config import ImageConfig
    from engine.store.images import Image
    from engine.store.store import Store


def plan(
    spec: ContainerSpec,
    config: ImageConfig,
    others: Callable[[str], Sequence[Point]],
    taken: Iterable[str] = (),
) -> list[tuple[Point, Mount | None]]:
    """Every mount the container gets, and what asked for it. `others` gives another container's points; `taken` are
    destinations that something else (--tmpfs) has. Raises `InvalidInput`."""
    points: dict[str, tuple[Point, Mount | None]] = {}
    for text in spec.volumes_from:
        name, mode = split_volumes_from(text)
        for point in others(name):
            writable = point.read_write and "ro" not in mode.split(",")
            points[point.destination] = (dataclasses.replace(point, read_write=writable, no_copy=True, mode=""), None)
    own = set(map(clean_path, taken))
    for mount in sorted(map(absolute, spec.mounts), key=lambda mount: not mount.bind):
        validate(mount)
        if mount.target in own:
            raise InvalidInput(f"Duplicate mount point: {mount.target}", hint="mount one thing at a place")
        own.add(mount.target)
        if mount.type == "volume" and not mount.driver and spec.volume_driver:
            mount = dataclasses.replace(mount, driver=spec.volume_driver)
        points[mount.target] = (point_of(mount), mount)
    for path in (*spec.volumes, *config.volumes):
        target = clean_path(path if path.startswith("/") else f"/{path}")
        if target == "/":
            raise InvalidInput(f"invalid volume {path!r}: destination can't be '/'")
        if target not in points and target not in own:
            driver = spec.volume_driver or DRIVER
            points[target] = (Point("volume", target, driver=driver, anonymous=True), None)
    return list(points.values())


def in_order(mounts: Iterable[UserMount]) -> list[UserMount]:
    """Outer before inner, and the first of two at one place alone (the engine's own files come last)."""
    seen: dict[str, UserMount] = {}
    for mount in mounts:
        seen.setdefault(clean_path(mount.target), mount)
    return sorted(seen.values(), key=lambda mount: clean_path(mount.target).count("/"))


class Mounts:
    """Makes, fills and mounts what points name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- creation -------------------------------------------------------------------------------------

    def create(
        self, spec: ContainerSpec, image: Image, others: Callable[[str], Sequence[Point]], taken: Iterable[str] = ()
    ) -> list[Point]:
        """The container's points; volumes that were not there are made, empty ones filled from the image.

        Call while holding `store.volumes.using()`. What was made goes again when something fails.
        """
        made: list[Volume] = []
        view: LayerView | None = None
        try:
            points = []
            for point, mount in plan(spec, self._store.images.config(image), others, taken):
                if point.type == "volume":
                    volume, new = self._volume(point, mount)
                    if new:
                        made.append(volume)
                    point = dataclasses.replace(point, name=volume.name, source=str(volume.data), driver=volume.driver)
                    if not point.no_copy:
                        view = view or LayerView(self._store.lowers(image))
                        self._fill(volume, view, point.destination)
                elif point.type == "image":
                    found = self._store.images.get(point.source)
                    point = dataclasses.replace(point, image=found.digest)
                points.append(point)
            return points
        except BaseException:
            for volume in made:
                self._store.volumes.remove(volume)
            raise

    def _volume(self, point: Point, mount: Mount | None) -> tuple[Volume, bool]:
        labels = mount.labels if mount else {}
        options = mount.driver_options if mount else {}
        volume, new = self._store.volumes.create(point.name, point.driver, labels, options)
        if new:
            self._store.records.event("volume", "create", volume.name, {"driver": volume.driver})
        return volume, new

    def _fill(self, volume: Volume, view: LayerView, destination: str) -> None:
        if volume.options.get("type") == "tmpfs":
            return  # it would be gone before the container starts
        with locked(volume.lock):
            mounted = bool(volume.options) and not is_mounted(volume.data)
            if mounted:
                mount_volume(volume)
            try:
                fd = os.open(volume.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    copy_up(view, destination, fd)
                finally:
                    os.close(fd)
            finally:
                if mounted:
                    m.unmount(str(volume.data))

    # --- start and end --------------------------------------------------------------------------------

    def for_runtime(self, points: Sequence[Point]) -> list[UserMount]:
        """What the runtime is to mount. Missing sources of `-v` are made here; volumes with options are mounted."""
        return [self._runtime_mount(point) for point in points]

    def _runtime_mount(self, point: Point) -> UserMount:
        if point.type == "tmpfs":
            return TmpfsMount(point.destination, point.options)
        if point.type == "image":
            image = self._store.images.get(point.image)
            return ImageMount(point.destination, point.source, list(map(str, self._store.lowers(image))), point.subpath)
        source = point.source
        if point.type == "volume":
            volume = self._store.volumes.get(point.name)
            source = str(volume.data)
            if volume.options:
                with locked(volume.lock):
                    if not is_mounted(volume.data):
                        mount_volume(volume)
        elif point.create_source:
            make_source(source)
        return BindMount(
            source,
            point.destination,
            not point.read_write,
            point.recursive,
            point.propagation or "rprivate",
            point.read_only_below,
            point.subpath,
            mapped=point.type == "volume",
        )

    def release(self, points: Sequence[Point], in_use: Callable[[str], bool]) -> None:
        """Takes volumes with options off that no running container uses any more."""
        for point in points:
            volume = self._store.volumes.find(point.name) if point.type == "volume" else None
            if volume is not None and volume.options:
                with locked(volume.lock):
                    if not in_use(volume.name) and is_mounted(volume.data):
                        m.unmount(str(volume.data))

    def remove_anonymous(self, points: Sequence[Point], used_by: Callable[[str], Sequence[str]]) -> None:
        """`rm -v`: the volumes that nobody named, unless another container has them too."""
        for point in points:
            if point.type == "volume" and point.anonymous:
                with self._store.volumes.removing():
                    volume = self._store.volumes.find(point.name)
                    if volume is None or used_by(volume.name):
                        continue
                    discard(self._store, volume)


def discard(store: Store, volume: Volume) -> None:
    """Removes a volume that nobody uses (the caller holds `removing`)."""
    if volume.options and is_mounted(volume.data):
        m.unmount(str(volume.data))
    store.volumes.remove(volume)
    store.records.event("volume", "destroy", volume.name, {"driver": volume.driver})


def make_source(source: str) -> None:
    """Docker makes a missing source folder of `-v` (0755)."""
    if os.path.lexists(source):
        return
    try:
        os.makedirs(source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, f"error while creating mount source path '{source}'") from error


# --- volumes that are file systems of their own -----------------------------------------------------


def is_mounted(path: Path) -> bool:
    """Whether something is mounted on `path` in this mount namespace (a mount id of its own: proc(5), mountinfo)."""
    wanted = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(_unescape(line.split(" ", 5)[4]) == wanted for line in file)


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


_BINDS = {"bind": m.MS_BIND, "rbind": m.MS_BIND | m.MS_REC}
_IGNORED = frozenset(("defaults", "auto", "noauto", "nofail", "_netdev"))


def mount_volume(volume: Volume) -> None:
    """mount(2) with the volume's type, device and options. Raises `StartFailed`."""
    kind, device = volume.options.get("type", ""), volume.options.get("device", "")
    flags, data = 0, []
    for option in filter(None, volume.options.get("o", "").split(",")):
        if option in _BINDS:
            flags |= _BINDS[option]
        elif option in m.FLAGS:
            sets, clears = m.FLAGS[option]
            flags = (flags & ~clears) | sets
        elif option not in _IGNORED:
            data.append(_resolved(option) if kind in ("nfs", "nfs4", "cifs") else option)
    try:
        if flags & m.MS_BIND:
            m.mount(device, str(volume.data), "", flags & (m.MS_BIND | m.MS_REC))
            if flags & ~(m.MS_BIND | m.MS_REC):
                m.mount("", str(volume.data), "", m.MS_REMOUNT | flags & ~m.MS_REC)
        else:
            m.mount(device, str(volume.data), kind, flags, ",".join(data))
    except OSError as error:
        text = f"mount {device}:{volume.data}, data: {','.join(data)}: {error.strerror}"
        raise StartFailed(
            f"failed to mount local volume {volume.name}: {text}",
            hint="look at its options: `workbench volume inspect " + volume.name + "`",
        ) from error


def _resolved(option: str) -> str:
    """The kernel wants an address where people write `addr=nas.example`."""
    key, _, value = option.partition("=")
    if key != "addr" or not value:
        return option
    try:
        return f"addr={socket.getaddrinfo(value, None, proto=socket.IPPROTO_TCP)[0][4][0]}"
    except OSError as error:
        raise StartFailed(f"cannot resolve the volume's server {value}: {error.strerror}") from error


def refuse_in_use(name: str, users: Sequence[str]) -> None:
    if users:
        raise Conflict(
            f"remove {name}: volume is in use - [{', '.join(users)}]", hint="remove the containers first: workbench rm"
        )
