"""The API's networks."""

from __future__ import annotations

from engine.api import Engine
from engine.errors import InvalidInput, NotFound, Unsupported
from engine.model import EndpointSettings, IpamConfig, NetworkSpec
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.router import Router
from engine.service.wire import Fields, endpoint


class NetworkRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("GET", "/networks", self.list)
        router.add("POST", "/networks/create", self.create)
        router.add("POST", "/networks/prune", self.prune)
        router.add("GET", "/networks/{name}", self.inspect)
        router.add("DELETE", "/networks/{name}", self.remove)
        router.add("POST", "/networks/{name}/connect", self.connect)
        router.add("POST", "/networks/{name}/disconnect", self.disconnect)

    async def list(self, request: Request) -> Answer:
        found = await self._engine.networks(request.query.filters())
        return json_response([dict(network.config) for network in found])

    async def inspect(self, request: Request) -> Answer:
        """`verbose` tells more of swarm's networks alone."""
        name, query = request.params["name"], request.query
        if query.text("verbose").lower() not in ("", "1", "t", "true", "0", "f", "false"):
            raise InvalidInput(f"invalid value for verbose: {query.text('verbose')}")
        found = await self._engine.network(name)
        if query.text("scope") not in ("", found.scope):
            raise NotFound(f"network {name} not found")
        return json_response(dict(found.config))

    async def create(self, request: Request) -> Answer:
        body = Fields(await request.json())
        identity = await self._engine.create_network(_spec(body))
        return json_response({"Id": identity, "Warning": ""}, 201)

    async def remove(self, request: Request) -> Answer:
        await self._engine.remove_network(request.params["name"])
        return Response(204)

    async def prune(self, request: Request) -> Answer:
        names = await self._engine.prune_networks(request.query.filters())
        return json_response({"NetworksDeleted": list(names) or None})

    async def connect(self, request: Request) -> Answer:
        body = Fields(await request.json())
        settings: EndpointSettings | None = None
        if body.raw("EndpointConfig"):
            settings = endpoint(body.object("EndpointConfig"))
        await self._engine.connect_network(request.params["name"], _container(body), settings)
        return Response(200, b"", "text/plain; charset=utf-8")

    async def disconnect(self, request: Request) -> Answer:
        body = Fields(await request.json())
        await self._engine.disconnect_network(request.params["name"], _container(body), force=body.flag("Force"))
        return Response(200, b"", "text/plain; charset=utf-8")


def _container(body: Fields) -> str:
    name = body.text("Container")
    if not name:
        raise InvalidInput("Container is needed: its name or id")
    return name


def _spec(body: Fields) -> NetworkSpec:
    if not body.text("Name"):
        raise InvalidInput("Name is needed")
    if body.flag("ConfigOnly") or body.raw("ConfigFrom"):
        raise Unsupported("config-only networks are not supported")
    if body.flag("Ingress") or body.text("Scope") == "swarm":
        raise Unsupported("swarm networks are not supported: this engine has no swarm")
    if body.object("IPAM").text("Driver") not in ("", "default"):
        raise NotFound(f'plugin "{body.object("IPAM").text("Driver")}" not found', hint="the IPAM driver is `default`")
    pools = tuple(_ipam(config) for config in body.object("IPAM").objects("Config"))
    return NetworkSpec(
        body.text("Name"),
        body.text("Driver") or "bridge",
        body.flag("Internal"),
        body.flag("Attachable"),
        body.flag("EnableIPv6") or (body.raw("EnableIPv6") is None and any(":" in pool.subnet for pool in pools)),
        pools,
        body.mapping("Options"),
        body.mapping("Labels"),
    )


def _ipam(config: Fields) -> IpamConfig:
    auxiliary = config.mapping("AuxiliaryAddresses")
    return IpamConfig(config.text("Subnet"), config.text("Gateway"), config.text("IPRange"), auxiliary)
