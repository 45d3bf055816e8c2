"""Another engine as this one: `engine.api.Engine` over Docker's API (Docker, Podman, or another workbench).

Reached over a unix socket, TCP with TLS, or the system's ssh; nothing here needs Linux. What the API has no words for (the
history of builds, why, generations' files, handing ports over) raises `Unsupported` with what to do instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from engine.remote.builds import BuildsPart
from engine.remote.hosts import Target
from engine.remote.layers import LayersPart
from engine.remote.logs import LogsPart
from engine.remote.system import SystemPart

if TYPE_CHECKING:
    from pathlib import Path

    from engine.api import Engine


class RemoteEngine(SystemPart, BuildsPart, LogsPart, LayersPart):
    """An engine somewhere else. `version` and `server` of `client` say what it is."""


async def open_remote(target: Target, nearby: Callable[[Path], Awaitable[Engine]] | None = None) -> RemoteEngine:
    """Connects, and agrees on a version of the API. `nearby` opens an engine of this machine on a folder: for images that are looked
    into. Raises `Unavailable`, `Unauthorized`, `Unsupported`, `InvalidInput`."""
    engine = RemoteEngine(target)
    if nearby is not None:
        engine.look_nearby(nearby)
    try:
        await engine._client.negotiate()
    except BaseException:
        await engine.close()
        raise
    return engine
