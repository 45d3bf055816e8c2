"""`--change` of import and commit: Dockerfile instructions that touch the image's config alone."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from engine.build import metadata
from engine.build.dockerfile.ast import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Onbuild,
    Stopsignal,
    Volume,
    Workdir,
)
from engine.build.dockerfile.ast import User as UserInstruction
from engine.build.dockerfile.parser import parse
from engine.build.state import State, env_map
from engine.errors import InvalidInput
from engine.oci.config import ImageConfig

_ALLOWED = (Cmd, Entrypoint, Env, Expose, Healthcheck, Label, Onbuild, Stopsignal, UserInstruction, Volume, Workdir)


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """`config` after `changes` (`CMD ["sh"]`, `ENV A=b`). Raises `InvalidInput`, `DockerfileError`."""
    state = State(config, variables=env_map(config.env))
    for line in changes:
        stages = parse(f"FROM scratch\n{line}\n", "--change").stages
        for instruction in stages[0].instructions or (None,):
            if not isinstance(instruction, _ALLOWED) or len(stages) > 1:
                word = line.split()[0].upper() if line.split() else line
                raise InvalidInput(
                    f"{word} is not a valid change command",
                    hint="CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR are",
                )
            if isinstance(instruction, Workdir):
                path = posixpath.join("/", state.config.working_dir, instruction.path)
                state.config = state.config.with_config(WorkingDir=posixpath.normpath(path))
            else:
                metadata.apply(state, instruction, "\\")
    return state.config
