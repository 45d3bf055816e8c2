"""The records that a pull and a build report: what front ends draw. `engine.api` re-exports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class PullProgress:
    """State of one blob. `phase` runs waiting, downloading, extracting, done (or exists)."""

    reference: str
    layer: str  # short digest; "" speaks of the whole image
    phase: Literal["resolving", "waiting", "downloading", "extracting", "exists", "done"]
    current: int = 0
    total: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    context: Path
    dockerfile: Path | None = None  # default: context/Dockerfile
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One instruction that the target needs. `number` counts from 1 within the stage; `key` is unique in the build."""

    key: str  # "stage-0/3"
    stage: str  # name, or its index
    number: int
    total: int
    instruction: str  # "COPY . ."
    line: int


@dataclass(frozen=True, slots=True)
class BuildStarted:
    dockerfile: str
    steps: tuple[StepInfo, ...]


@dataclass(frozen=True, slots=True)
class StepStarted:
    step: StepInfo
    reason: str  # why it runs: "app.py content changed", "never built"


@dataclass(frozen=True, slots=True)
class StepOutput:
    key: str
    stream: Literal["stdout", "stderr"]
    text: str  # whole lines, control characters as the program wrote them


@dataclass(frozen=True, slots=True)
class StepFinished:
    step: StepInfo
    cached: bool
    seconds: float
    size: int  # bytes the layer adds, 0 for an empty layer
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildNotice:
    """Something the user should know that is not an error: a huge context, an unreadable ignore file."""

    text: str


@dataclass(frozen=True, slots=True)
class BuildFinished:
    image_id: str  # config digest
    digest: str  # manifest digest
    tags: tuple[str, ...]
    seconds: float
    first_changed: StepInfo | None = None  # the first step that ran; None when all was cached
    reason: str = ""


BuildEvent = (
    PullProgress | BuildStarted | StepStarted | StepOutput | StepFinished | BuildNotice | BuildFinished
)
