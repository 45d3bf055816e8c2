"""What the services of a running project share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from engine.api import Engine, LoopEvent
from engine.base.settings import ProjectSettings
from engine.project.model import Project
from engine.project.plan import SyncMode


@dataclass(slots=True)
class Shared:
    """`replaced` hears which service has a new container, and whether its image is new. `project` is another one when its files were
    read again."""

    engine: Engine
    project: Project
    state: Path  # the project's folder in the engine's data root
    say: Callable[[LoopEvent], None]
    spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]  # cancelled when the loop closes
    finish: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]  # waited for when the loop closes
    replaced: Callable[[str, bool], None]
    sync: SyncMode = ""
    stop_first: bool = False
    force: bool = False  # at the start every container is a new one
    adopt: bool = False  # at the start what has ended is left so: another process of ours started it
    keep: ProjectSettings = field(default_factory=ProjectSettings)
