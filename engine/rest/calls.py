"""`POST /workbench/call/METHOD`: for another workbench (`engine.calls`)."""

from __future__ import annotations

from engine.api import Engine
from engine.calls import PATH, arguments_of, encode, hints
from engine.errors import InvalidInput
from engine.rest.http import Answer, Request, json_response
from engine.rest.router import Router


class CallRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("POST", PATH + "/{method}", self.call)

    async def call(self, request: Request) -> Answer:
        method = request.params["method"]
        hints(method)  # only what may be called is looked up below
        arguments = arguments_of(method, await request.json())
        try:
            result = await getattr(self._engine, method)(**arguments)
        except TypeError as error:  # an argument that it needs is missing
            raise InvalidInput(f"{method}: {error}") from error
        return json_response({"result": encode(result)})
