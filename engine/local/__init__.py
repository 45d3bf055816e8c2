"""The engine in this process: `engine.api.Engine` over the services, blocking work on threads.

One class of methods for each noun; together they are `LocalEngine`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.local.hosts import HostsPart
from engine.local.layers import LayersPart
from engine.local.logs import LogsPart
from engine.local.networks import NetworksPart
from engine.local.system import SystemPart
from engine.runtime.places import runtime_dir as runtime_dir

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = lazy("asyncio")


class LocalEngine(SystemPart, LayersPart, NetworksPart, LogsPart, HostsPart):
    """The engine on a data root. Any number of processes may have one at the same time."""


async def open_engine(root: Path) -> LocalEngine:
    """Opens the engine on a data root. Raises `AccessDenied`, `StorageFull`, `Unsupported`, `Corrupt`."""
    return await asyncio.to_thread(LocalEngine, root)


def reconcile(root: str) -> None:
    """Opens the engine, does what monitors have left to it (see `service.life`), and goes."""
    from engine.errors import EngineError

    if not os.path.isdir(root):  # it was removed meanwhile, with all that there was to do
        return
    with contextlib.suppress(EngineError, OSError):
        engine = LocalEngine(Path(root))
        engine._containers.life.reconcile()
