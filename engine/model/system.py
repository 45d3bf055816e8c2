"""Events, and what the whole engine holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.model.files import VolumeInfo
from engine.model.images import ImageSummary
from engine.model.summaries import ContainerSummary


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """What happened to an object: Docker's type and action ("container", "start"), readable by every process."""

    seq: int
    time: int
    type: Literal["container", "image", "build", "volume", "network"]
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One damaged, missing or foreign thing that `check` found in the store."""

    kind: str  # "blob", "layer", "record", "foreign"
    path: str
    problem: str
    mended: bool = False  # by a repair
    why: str = ""  # why a repair could not mend it


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """`shared` bytes are in other images too; what is left of `size` goes when this image goes."""

    image: ImageSummary
    shared: int


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """One entry of the build cache. `in_use`: an image has its layer, so that removing it frees nothing."""

    id: str
    size: int
    last_used: int
    in_use: bool


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What `system df` shows. `containers` and `volumes` pair a name with bytes, and say whether it is in use."""

    images: tuple[ImageUsage, ...]
    layers_size: int  # bytes of all images' layers, each once
    containers: tuple[tuple[ContainerSummary, int], ...]
    volumes: tuple[VolumeInfo, ...]
    cache: tuple[CacheUsage, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed, or with a dry run would remove: names in Docker's words, by kind, and bytes."""

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # "untagged: NAME", "deleted: sha256:…"
    volumes: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    reclaimed: int = 0


@dataclass(frozen=True, slots=True)
class SystemInfo:
    version: str
    root: str
    kernel: str
    cgroup: str  # "v1", "v2", "hybrid", "none"
    images: int
    containers: int
    running: int
    notes: tuple[str, ...] = ()  # limits that do not hold here, each in one sentence
    runtimes: Mapping[str, str] = field(default_factory=dict)  # name to path; "" is this engine's own launcher
    default_runtime: str = "native"
    paused: int = 0
    document: Mapping[str, object] = field(default_factory=dict)  # of an engine behind `--host`: what its `/info` says
