"""Builds that were, and what a change would build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.model.build import StepInfo

BuildStatus = Literal["running", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One line of the history. `interrupted`: the process that built ended without saying how (killed, power cut)."""

    number: int
    status: BuildStatus
    started: int
    seconds: float
    name: str  # first tag, or the folder's name
    context: str
    dockerfile: str
    target: str = ""
    tags: tuple[str, ...] = ()
    image_id: str = ""  # config digest, "" when there is no result
    digest: str = ""
    steps: int = 0
    cached: int = 0
    reason: str = ""  # why its first step that ran did so
    error: str = ""

    @property
    def cache_share(self) -> float:
        """Part of its finished steps that came from the cache, 0 to 1."""
        return self.cached / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class BuildStepRecord:
    """A step as it went. `state` "waiting" was never reached; `at` is seconds after the build's start."""

    step: StepInfo
    state: Literal["waiting", "running", "cached", "done", "failed"]
    at: float = 0.0
    seconds: float = 0.0
    size: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildOutputLine:
    """Output of one step, or of the build itself (`key` ""): whole lines."""

    key: str
    stream: Literal["stdout", "stderr", "note"]
    text: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class BuildDetail:
    record: BuildRecord
    steps: tuple[BuildStepRecord, ...]
    output: tuple[BuildOutputLine, ...]
    args: Mapping[str, str]
    hint: str = ""
    truncated: bool = False  # output beyond the limit was not kept


@dataclass(frozen=True, slots=True)
class FileDifference:
    """One path that two results do not share. Sizes are None where it does not exist; `what` names the difference."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before: int | None
    after: int | None
    what: str = ""


@dataclass(frozen=True, slots=True)
class WhyStep:
    """A step that a change would make run, why, and what it cost when it last did (None: it never ran here)."""

    step: StepInfo
    cause: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WhyReport:
    """What a change of `path` would invalidate. `note` says why nothing is, when nothing is."""

    path: str
    steps: tuple[WhyStep, ...] = ()
    stages: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # tags that builds of this Dockerfile made
    containers: tuple[str, ...] = ()  # names of those that run on such an image
    seconds: float = 0.0  # the steps' costs together
    note: str = ""
