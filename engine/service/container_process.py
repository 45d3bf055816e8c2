"""What runs in a container: the image's config and the user's words, by Docker's merge rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import InvalidInput

if TYPE_CHECKING:
    from engine.model import ContainerSpec
    from engine.oci.config import ImageConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SIGNAL = "SIGTERM"


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """What the image and the user say together (Docker's merge rules)."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    cwd: str
    stop_signal: str
    entrypoint: tuple[str, ...] = ()  # the two parts of `args`
    command: tuple[str, ...] = ()


def merge(spec: ContainerSpec, config: ImageConfig) -> Process:
    """A given entrypoint drops the image's CMD; a given command replaces it; variables of the user win."""
    entrypoint = spec.entrypoint if spec.entrypoint is not None else (config.entrypoint or ())
    image_command = () if spec.entrypoint is not None else (config.cmd or ())
    command = spec.command if spec.command is not None else image_command
    args = (*entrypoint, *command)
    if not args:
        raise InvalidInput(
            f"no command specified for {spec.image}", hint=f"the image names none: workbench run {spec.image} COMMAND"
        )
    env = _merge_env(spec.env, config.env, (DEFAULT_PATH,), ("TERM=xterm",) if spec.tty else ())
    for entry in spec.env:
        if not entry.partition("=")[0]:
            raise InvalidInput(f"invalid environment variable: {entry}")
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise InvalidInput(
            f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path", hint="-w /PATH"
        )
    for value in (*args, *env, spec.user or "", spec.working_dir or "", spec.hostname):
        if "\0" in value:
            raise InvalidInput("a NUL byte in a command, variable, user or path")
    for value in (spec.user or "", spec.working_dir or "", spec.hostname):
        if "\n" in value or "\r" in value:
            raise InvalidInput("a line break in a user, path or host name")
    return Process(
        args,
        env,
        spec.user if spec.user is not None else config.user,
        spec.working_dir or config.working_dir or "/",
        spec.stop_signal or config.stop_signal or STOP_SIGNAL,
        tuple(entrypoint),
        tuple(command),
    )


def _merge_env(*sources: Sequence[str]) -> tuple[str, ...]:
    """The first source that has a variable decides, its last entry within it. One without `=` is kept: it takes the variable away
    when the container starts. The order is Docker's: what the user gave, then what the image adds."""
    merged: dict[str, str] = {}
    for source in sources:
        own = {name: entry for entry in source if (name := entry.partition("=")[0])}
        merged |= {name: entry for name, entry in own.items() if name not in merged}
    return tuple(merged.values())
