"""The API's containers and execs."""

from __future__ import annotations

from engine.api import Engine
from engine.rest.http import Answer, Request, json_response
from engine.rest.router import Router


class ContainerRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("GET", "/containers/{name}/json", self.inspect)

    async def inspect(self, request: Request) -> Answer:
        return json_response((await self._engine.container(request.params["name"])).config)
