"""Another engine as this one: `engine.api.Engine` over Docker's API (Docker, Podman, or another workbench).

Reached over a unix socket, TCP with TLS, or the system's ssh; nothing here needs Linux. What the API has no words for (the
history of builds, why, generations' files, handing ports over) raises `Unsupported` with what to do instead.
"""

from __future__ import annotations

from engine.remote.builds import BuildsPart
from engine.remote.hosts import Target
from engine.remote.logs import LogsPart
from engine.remote.system import SystemPart


class RemoteEngine(SystemPart, BuildsPart, LogsPart):
    """An engine somewhere else. `version` and `server` of `client` say what it is."""


async def open_remote(target: Target) -> RemoteEngine:
    """Connects, and agrees on a version of the API. Raises `Unavailable`, `Unauthorized`, `Unsupported`, `InvalidInput`."""
    engine = RemoteEngine(target)
    try:
        await engine._client.negotiate()
    except BaseException:
        await engine.close()
        raise
    return engine
