"""Images and their layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """One image: its manifest digest is its identity here; `id` is the config digest, as in Docker."""

    id: str  # "sha256:…" of the config
    digest: str  # "sha256:…" of the manifest
    tags: tuple[str, ...]  # familiar form: "python:3.11-slim", "workbench/base:latest"
    created: int
    size: int  # unpacked bytes of all layers
    used_by: tuple[str, ...] = ()  # names of containers
    dangling: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    repo_digests: tuple[str, ...] = ()  # "python@sha256:…", what registries are known to call it


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One line of an image's history, newest last; an instruction without a layer has `diff_id == ""`."""

    index: int
    instruction: str  # "COPY . ." or the created_by text, cleaned
    created_by: str  # as written in the config
    diff_id: str
    size: int
    created: int
    empty: bool
    cached: bool | None = None  # from the last build here; None when it was pulled
    seconds: float | None = None  # what the step cost when it last ran
    reason: str = ""  # why it ran ("app.py content changed") or "" when cached or unknown
    line: int = 0  # Dockerfile line, 0 unknown
    comment: str = ""  # what `commit -m` and `import -m` said


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One manifest of what stands under an image's name: of an index one for each platform, else the image's own."""

    media_type: str
    digest: str
    size: int  # bytes of the manifest
    platform: str  # "linux/arm64/v8", "" where nothing says it
    kind: str  # "image", "attestation", "unknown"
    available: bool  # all of it is here
    content: int = 0  # bytes of its blobs that are here, the manifest with them
    unpacked: int = 0  # bytes of its unpacked layers
    used_by: tuple[str, ...] = ()  # names of containers
    subject: str = ""  # what an attestation is about


@dataclass(frozen=True, slots=True)
class ImageDetail:
    summary: ImageSummary
    layers: tuple[LayerInfo, ...]
    config: Mapping[str, object]  # the raw image config document
    manifest: Mapping[str, object]
    repo_digests: tuple[str, ...] = ()
    parent: str = ""  # the image whose container was committed
