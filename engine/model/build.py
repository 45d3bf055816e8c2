"""Builds: what is asked for, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.model.host import HostConfig
from engine.model.transfers import PullProgress, RegistryAuth


@dataclass(frozen=True, slots=True)
class BuildSecret:
    """A secret that `RUN --mount=type=secret,id=ID` may ask for. Its value enters neither the image nor a cache key.

    One of `path` (a file on this host), `variable` (of the caller's environment) and `value` is set.
    """

    id: str
    path: Path | None = None
    variable: str = ""
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class SshAgent:
    """What `RUN --mount=type=ssh,id=ID` forwards: an agent's socket, or an agent made of private key files."""

    id: str = "default"
    socket: Path | None = None
    keys: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """Where a result goes (`--output`). `image` is this engine's store; `path` is a folder (local) or a file ("-" is stdout)."""

    type: Literal["image", "local", "tar", "oci", "docker", "registry", "cacheonly"]
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # name, push, tar, compression, …


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build. Fields bear the names of Docker's flags; empty means "not given"."""

    context: Path
    dockerfile: Path | None = None  # default: context/Dockerfile
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    no_cache_filter: tuple[str, ...] = ()  # stages whose steps run again
    dockerfile_text: str | None = None  # the Dockerfile itself, where it is no file (`-f -`, the API)
    contexts: Mapping[str, str] = field(
        default_factory=dict
    )  # named contexts: a folder, URL, docker-image://…, oci-layout://…
    platforms: tuple[str, ...] = ()  # "linux/arm64"; several give an index
    secrets: tuple[BuildSecret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    network: str = ""  # of RUN steps: "default", "none", "host"
    add_hosts: tuple[str, ...] = ()  # "name:address"
    ulimits: tuple[str, ...] = ()  # "nofile=1024:2048"
    shm_size: int = 0  # bytes; 0 is 64 MiB
    memory: int = 0  # bytes; 0 no limit
    limits: HostConfig = field(default_factory=HostConfig)  # of RUN steps: their other limits and their control group
    allow: tuple[str, ...] = ()  # entitlements: "network.host", "security.insecure"
    cache_from: tuple[str, ...] = ()  # "type=registry,ref=…", "type=local,src=…"
    cache_to: tuple[str, ...] = ()
    outputs: tuple[BuildOutput, ...] = ()  # none: the image goes into the store
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the manifest
    host_ca: bool | None = None  # RUN steps trust the host's CA bundle and use its proxies; None: as the setting says
    keep_failed: bool = False  # a RUN that fails leaves an image of its files, environment, user and directory
    remote: str = ""  # where `context` was fetched from: messages and the history name this, not the temporary folder
    passing: bool = False  # `context` is a temporary folder: what is known of it goes with the build
    auths: tuple[RegistryAuth, ...] = field(default=(), repr=False)  # for FROM and COPY --from; never recorded
    allow_metadata: bool = False  # RUN steps may reach the cloud's metadata addresses


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
    number: int = 0  # in the history: `workbench builds show NUMBER`


@dataclass(frozen=True, slots=True)
class StepStarted:
    step: StepInfo
    reason: str  # why it runs: "app.py content changed", "never built"
    causes: tuple[str, ...] = ()  # all of them, where `reason` names the first two


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
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far a long step is, in bytes. `total` 0: not known."""

    key: str
    current: int
    total: int = 0


@dataclass(frozen=True, slots=True)
class BuildNotice:
    """Something the user should know that is not an error: a huge context, an unreadable ignore file."""

    text: str


@dataclass(frozen=True, slots=True)
class BuildFinished:
    """`phases` says where the time went, in seconds: `scan` (looking at the contexts), `run` (RUN, and copying), `commit` (layers made
    of what was written), `tag` (the image recorded), and `solve`, which is the rest. Stages beside each other may sum to more
    than the build took."""

    image_id: str  # config digest
    digest: str  # manifest digest
    tags: tuple[str, ...]
    seconds: float
    first_changed: StepInfo | None = None  # the first step that ran; None when all was cached
    reason: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)


BuildEvent = (
    PullProgress | BuildStarted | StepStarted | StepOutput | StepProgress | StepFinished | BuildNotice | BuildFinished
)
