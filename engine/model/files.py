"""Volumes, mounts as they are, and files of containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.model.host import MountType


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A mount of a container as it is: what `inspect` lists under Mounts."""

    type: MountType
    destination: str
    name: str = ""  # of a volume
    source: str = ""  # host path; for an image its name
    driver: str = ""
    mode: str = ""
    read_write: bool = True
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    name: str
    driver: str
    mountpoint: str
    labels: Mapping[str, str]
    options: Mapping[str, str]
    created: int
    scope: str = "local"
    used_by: tuple[str, ...] = ()  # names of containers
    size: int = -1  # bytes; -1 when it was not asked for

    @property
    def anonymous(self) -> bool:
        return "com.docker.volume.anonymous" in self.labels


@dataclass(frozen=True, slots=True)
class PathStat:
    """What a path in a container is (the header X-Docker-Container-Path-Stat). `mode` is st_mode of stat(2)."""

    name: str
    size: int
    mode: int
    mtime: int  # ns
    link_target: str = ""  # of a symbolic link: followed inside the container as far as it goes


@dataclass(frozen=True, slots=True)
class Change:
    """One path that a container's root differs in from its image: "A" added, "C" changed, "D" deleted."""

    kind: Literal["A", "C", "D"]
    path: str


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """`changes` are Dockerfile instructions ("ENV A=1"); `reference` "" leaves the image without a tag."""

    reference: str = ""
    comment: str = ""
    author: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True
