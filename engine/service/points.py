"""A container's mounts as its record keeps them. How they come about is in `mounts`, which a list of containers does without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from engine.model import Mount, MountPoint, MountType


@dataclass(frozen=True, slots=True)
class Point:
    """One mount of a container as its record keeps it. `anonymous`: the volume has no name that somebody chose."""

    type: MountType
    destination: str
    name: str = ""
    source: str = ""
    driver: str = ""
    mode: str = ""
    read_write: bool = True
    propagation: str = ""
    anonymous: bool = False
    no_copy: bool = False
    subpath: str = ""
    recursive: bool = True
    read_only_below: Literal["try", "no", "must"] = "try"
    create_source: bool = False
    options: tuple[str, ...] = ()  # of a tmpfs
    image: str = ""  # manifest digest of an image that is mounted

    def shown(self) -> MountPoint:
        from engine.model import MountPoint

        return MountPoint(
            self.type,
            self.destination,
            self.name,
            self.source,
            self.driver,
            self.mode,
            self.read_write,
            self.propagation,
        )

    def inspected(self) -> dict[str, object]:
        """As `docker inspect` has it under Mounts."""
        document: dict[str, object] = {"Type": self.type}
        if self.type == "volume":
            document["Name"] = self.name
        document |= {"Source": self.source, "Destination": self.destination}
        if self.driver:
            document["Driver"] = self.driver
        return document | {"Mode": self.mode, "RW": self.read_write, "Propagation": self.propagation}


def points_of(record: dict[str, Any]) -> list[Point]:
    """The points of a container's record; a record from before there were volumes has binds only."""
    if "points" in record:
        return [Point(**{**entry, "options": tuple(entry["options"])}) for entry in record["points"]]
    from engine.model import Mount

    binds = [Mount(**entry) for entry in record["spec"]["mounts"]]
    return [point_of(mount) for mount in binds]


def point_of(mount: Mount) -> Point:
    from engine.service.mount_specs import clean_path, tmpfs_options

    below: Literal["try", "no", "must"] = "try"
    if mount.read_only_force_recursive:
        below = "must"
    elif mount.read_only_non_recursive:
        below = "no"
    return Point(
        mount.type,
        clean_path(mount.target),
        name=mount.source if mount.type == "volume" else "",
        source=clean_path(mount.source) if mount.type == "bind" else mount.source if mount.type == "image" else "",
        driver=mount.driver,
        # A volume that --mount makes has the mode that Docker gives it.
        mode=mount.mode or ("z" if mount.type == "volume" and not mount.bind else ""),
        read_write=not mount.read_only and mount.type != "image",
        propagation=(mount.propagation or "rprivate") if mount.type == "bind" else "",
        anonymous=mount.type == "volume" and not mount.source,
        no_copy=mount.no_copy or bool(mount.subpath),
        subpath=mount.subpath,
        recursive=not mount.non_recursive,
        read_only_below=below,
        create_source=mount.create_source,
        options=tuple(tmpfs_options(mount)) if mount.type == "tmpfs" else (),
    )
