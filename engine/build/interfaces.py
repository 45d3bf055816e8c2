"""What the builder is given: something that runs commands, something that has images. It imports neither the runtime nor the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from engine.base.cancel import CancelToken
from engine.model import BuildEvent, SshAgent
from engine.oci.platform import Platform
from engine.store.images import Image

Emit = Callable[[BuildEvent], None]


@dataclass(frozen=True, slots=True)
class StepMount:
    """One mount of a RUN step at `target` (absolute, in the image).

    "tree" shows `source` below the merged `lowers` (topmost first); what is written there is dropped.
    "bind" shows `source` below the folder `folder`, which belongs to the engine; "" is the folder itself.
    "file" is a file of `data`, kept in memory. "ssh" is the socket of `agent`. "tmpfs" is empty.
    `source` is resolved inside its root when it is mounted, never as a path of the host.
    """

    kind: Literal["tree", "bind", "tmpfs", "file", "ssh"]
    target: str
    read_only: bool = True
    lowers: tuple[Path, ...] = ()
    folder: Path | None = None
    source: str = ""
    shown: str = ""  # what messages call it
    size: int = 0  # bytes of a tmpfs, 0 no limit
    data: bytes = field(default=b"", repr=False)
    agent: SshAgent | None = None
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class RunStep:
    """One RUN: `upper` receives what it writes over `lowers` (topmost first)."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    args: tuple[str, ...]
    env: tuple[str, ...] = field(repr=False)
    cwd: str
    user: str
    network: str
    mounts: tuple[StepMount, ...] = ()
    privileged: bool = False
    hostname: str = "buildkitsandbox"


class Runner(Protocol):
    """Runs a command in a container."""

    def run(self, step: RunStep, output: Callable[[str, bytes], None], cancel: CancelToken) -> int:
        """The exit code. Raises `StartFailed`, `Cancelled`."""


class ImageSource(Protocol):
    def base(
        self, name: str, *, pull: bool, emit: Emit, cancel: CancelToken, platform: Platform | None = None
    ) -> Image:
        """The image that a FROM names, pulled when it is not here (or not for `platform`; None is this host's)."""

    def layout(self, path: Path, reference: str, *, cancel: CancelToken, platform: Platform | None = None) -> Image:
        """An image of an OCI layout: a folder or a tar. `reference` is a tag or a digest, "" the only one."""
