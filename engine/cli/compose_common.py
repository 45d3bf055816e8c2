"""What the verbs of `compose` share: their flags, the containers that they speak of, and how they tell of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.cli.common import read
from engine.cli.flags import Flag, Parsed
from engine.cli.project_flags import PROJECT_FLAGS, Choice
from engine.errors import NotFound
from engine.model import ContainerSummary
from engine.project.control import project_containers, service_of

if TYPE_CHECKING:
    from engine.api import Engine


def say(what: str, how: str) -> None:
    print(f" {what}  {how}", file=sys.stderr, flush=True)


def read_verb(
    args: list[str], choice: Choice, usage: str, summary: str, flags: Sequence[Flag], **more: Any
) -> Parsed | None:
    """The verb's own flags and the project's, which may stand behind the verb too."""
    taken = {flag.short for flag in flags if flag.short} | {flag.name for flag in flags}
    project = [
        Flag(f.name, f.help, "" if f.short in taken else f.short, f.kind) for f in PROJECT_FLAGS if f.name not in taken
    ]
    parsed = read(args, usage, summary, [*flags, *project], **more)
    if parsed is not None:
        choice.add(parsed)
    return parsed


async def find_containers(
    engine: Engine, choice: Choice, services: Sequence[str], **more: Any
) -> list[ContainerSummary]:
    """Raises `NotFound` for a service that neither the files nor the engine know."""
    name, project, _ = choice.load_or_none()
    found = await project_containers(engine, name, services, **more)
    known = {service_of(c) for c in await project_containers(engine, name)}
    known |= {service.name for service in (*project.services, *project.others)} if project else set()
    for service in services:
        if service not in known:
            raise NotFound(f"no such service: {service}", hint=f"services: {', '.join(sorted(known)) or 'none'}")
    return found
