"""What the API describes and this engine has not: Swarm and plugins. Answered as a Docker daemon without them does."""

from __future__ import annotations

from engine.api import Engine
from engine.errors import NotFound, Unavailable, Unsupported
from engine.rest.http import Answer, Request, json_response
from engine.rest.router import Router

_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)


class AbsentRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        router.add("POST", "/swarm/leave", self.no_member)
        router.add("POST", "/swarm/init", self.no_swarm)
        router.add("POST", "/swarm/join", self.no_swarm)
        for path in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"):
            for method, below in (("GET", ""), ("GET", "/{rest*}"), ("POST", "/{rest*}"), ("DELETE", "/{rest*}")):
                router.add(method, path + below, self.no_manager)
        router.add("PUT", "/volumes/{name}", self.no_manager)  # cluster volumes alone are changed so
        router.add("GET", "/plugins", self.no_plugins)
        for method, path in (("GET", "privileges"), ("POST", "pull"), ("POST", "create")):
            router.add(method, f"/plugins/{path}", self.no_plugin_support)
        router.add("DELETE", "/plugins/{name*}", self.no_plugin)
        router.add("GET", "/plugins/{name*}/json", self.no_plugin)
        for verb in ("enable", "disable", "upgrade", "push", "set"):
            router.add("POST", f"/plugins/{{name*}}/{verb}", self.no_plugin)

    async def no_manager(self, request: Request) -> Answer:
        raise Unavailable(_NO_MANAGER)

    async def no_member(self, request: Request) -> Answer:
        raise Unavailable("This node is not part of a swarm")

    async def no_swarm(self, request: Request) -> Answer:
        raise Unsupported("swarm mode is not supported by this engine")

    async def no_plugins(self, request: Request) -> Answer:
        return json_response([])

    async def no_plugin(self, request: Request) -> Answer:
        raise NotFound(f'plugin "{request.params["name"]}" not found')

    async def no_plugin_support(self, request: Request) -> Answer:
        raise Unsupported("plugins are not supported by this engine")
