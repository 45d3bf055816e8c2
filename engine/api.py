"""The engine's face: what every front end (app, command line, REST, Python) sees.

`Engine` is a protocol; `engine.local.LocalEngine` implements it in this process. All records are frozen.
Long work is an async iterator of events that ends normally or raises an `EngineError`; closing the iterator
(`aclose`, or cancelling the task that reads it) cancels the work. Times are nanoseconds since the epoch,
sizes bytes, durations seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from engine.progress import (
    BuildEvent as BuildEvent,
    BuildFinished as BuildFinished,
    BuildNotice as BuildNotice,
    BuildRequest as BuildRequest,
    BuildStarted as BuildStarted,
    PullProgress as PullProgress,
    StepFinished as StepFinished,
    StepInfo as StepInfo,
    StepOutput as StepOutput,
    StepStarted as StepStarted,
)

# --- images ---------------------------------------------------------------------------------------


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
    author_build: str = ""


@dataclass(frozen=True, slots=True)
class ImageDetail:
    summary: ImageSummary
    layers: tuple[LayerInfo, ...]
    config: Mapping[str, object]  # the raw image config document
    manifest: Mapping[str, object]
    repo_digests: tuple[str, ...] = ()


# --- containers -----------------------------------------------------------------------------------

Status = Literal["created", "running", "exited", "dead"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount. `source` is an absolute host path."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to run. None means "as the image says"."""

    image: str
    name: str = ""  # "" picks one
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()  # "K=V", over the image's
    user: str | None = None
    working_dir: str | None = None
    hostname: str = ""  # "" is the short id
    tty: bool = False
    open_stdin: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    ports: tuple[str, ...] = ()  # "8000/tcp": what the user asked to publish (host network: same port)
    read_only: bool = False
    no_new_privileges: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    memory: int = 0  # bytes, 0 no limit
    cpus: float = 0.0
    pids_limit: int = 0
    stop_signal: str = ""
    stop_timeout: int | None = None
    auto_remove: bool = False
    log_path: str = ""  # "" is the container's own file; a service's containers share one


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    id: str
    name: str
    image: str  # as the user named it
    image_id: str
    command: str
    status: Status
    created: int
    started: int = 0
    finished: int = 0
    exit_code: int | None = None
    pid: int = 0
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    error: str = ""  # why it did not start, or what happened to its monitor
    oom_killed: bool = False
    network: str = "host"

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class ContainerDetail:
    summary: ContainerSummary
    spec: ContainerSpec
    config: Mapping[str, object]  # what `docker inspect` prints
    log_path: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a container's log without its newline.

    `stream` "workbench" marks a rule that the inner loop wrote between two generations of a service.
    `offset` is the byte offset in the log file just behind this line's record.
    """

    text: str
    stream: Literal["stdout", "stderr", "workbench"]
    time: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ExecSpec:
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    tty: bool = False
    privileged: bool = False


class Stream(Protocol):
    """A running exec or an attached container: bytes both ways. Close it to let go (the process goes on)."""

    async def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        """Next chunk, None at the end."""

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, rows: int, columns: int) -> None: ...

    async def wait(self) -> int:
        """The exit code, once output has ended."""

    async def close(self) -> None: ...


# --- engine events --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """What happened to an object: Docker's type and action ("container", "start"), readable by every process."""

    seq: int
    time: int
    type: Literal["container", "image", "build"]
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One damaged, missing or foreign thing that `check` found in the store."""

    kind: str  # "blob", "layer", "record", "foreign"
    path: str
    problem: str


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


class Engine(Protocol):
    """One container engine. Names and ids are accepted where Docker accepts them (unique id prefixes too)."""

    async def info(self) -> SystemInfo: ...

    async def check(self) -> Sequence[CheckFinding]: ...

    # images
    async def images(self, *, all: bool = False) -> Sequence[ImageSummary]: ...

    async def image(self, name: str) -> ImageDetail: ...

    async def tag(self, source: str, target: str) -> None: ...

    async def remove_image(self, name: str, *, force: bool = False) -> Sequence[str]:
        """Untags, and deletes when no tag is left. Returns Docker's lines ("Untagged: …", "Deleted: …")."""

    def pull(self, reference: str) -> AsyncIterator[PullProgress]: ...

    def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]: ...

    async def ensure_base(self) -> str:
        """Makes `workbench/base` from this host's own files if it is missing or stale; returns its name."""

    # containers
    async def containers(self, *, all: bool = False) -> Sequence[ContainerSummary]: ...

    async def container(self, name: str) -> ContainerDetail: ...

    async def create(self, spec: ContainerSpec) -> str: ...

    async def start(self, name: str) -> None: ...

    async def attach(self, name: str) -> Stream:
        """Output from now on, and stdin where the container has it open. Attach before `start` to miss nothing."""

    async def stop(self, name: str, *, timeout: int | None = None) -> None: ...

    async def kill(self, name: str, signal: str = "KILL") -> None: ...

    async def remove(self, name: str, *, force: bool = False) -> None: ...

    async def rename(self, name: str, new_name: str) -> None: ...

    async def wait(self, name: str) -> int: ...

    async def exec(self, name: str, spec: ExecSpec) -> Stream: ...

    def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: int = 0
    ) -> AsyncIterator[LogLine]: ...

    async def write_rule(self, log_path: str, text: str) -> None:
        """Appends a "workbench" line to a service's log: what changed between two generations."""

    def events(self, *, since: int | None = None) -> AsyncIterator[EngineEvent]:
        """Events after sequence number `since` (None: from now on), of every process on this data root."""

    async def close(self) -> None: ...


# --- projects (implemented by engine.project over an Engine) -----------------------------------------


@dataclass(frozen=True, slots=True)
class ProjectFound:
    name: str
    path: str
    file: str
    services: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what the file says that is not supported yet, each with file and line


@dataclass(frozen=True, slots=True)
class ServiceState:
    """`phase`: waiting, pulling, building, starting, running, exited, failed (build or start; the old one keeps running)."""

    service: str
    phase: Literal["waiting", "pulling", "building", "starting", "running", "exited", "failed"]
    container: str = ""
    image: str = ""
    generation: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class ServiceBuild:
    service: str
    event: BuildEvent


@dataclass(frozen=True, slots=True)
class ServiceBuildFailed:
    """The build of a service failed; what ran before goes on."""

    service: str
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class ChangeSeen:
    """Files changed; a rebuild follows unless their content is what it was."""

    service: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A new generation runs. `rule` is the text written into the log."""

    service: str
    container: str
    generation: int
    rule: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LoopNotice:
    """Anything else worth a line: overtaken builds, polling instead of inotify, another workbench on this project."""

    text: str
    service: str = ""


LoopEvent = ProjectFound | ServiceState | ServiceBuild | ServiceBuildFailed | ChangeSeen | Replaced | LoopNotice
