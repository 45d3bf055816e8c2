"""All that clients of BuildKit talk to, for one engine."""

from __future__ import annotations

from pathlib import Path

from engine.api import Engine
from engine.rest.buildkit.builds import Builds
from engine.rest.buildkit.channel import serve
from engine.rest.buildkit.classic import ClassicBuilds
from engine.rest.buildkit.control import Control
from engine.rest.buildkit.jobs import Jobs
from engine.rest.buildkit.sessions import Sessions
from engine.rest.duplex import Duplex


class Service:
    def __init__(self, engine: Engine, scratch: Path | None) -> None:
        self.sessions = Sessions()
        self.builds = Builds(engine, self.sessions, scratch)
        jobs = Jobs()
        self.classic = ClassicBuilds(self.builds, jobs)
        self._methods = Control(engine, self.builds, jobs).methods()

    async def answer(self, duplex: Duplex) -> None:
        await serve(duplex, self._methods)

    def close(self) -> None:
        self.builds.close()
