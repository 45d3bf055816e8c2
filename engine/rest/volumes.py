"""The API's volumes."""

from __future__ import annotations

from typing import Any

from engine.api import Engine, VolumeInfo
from engine.base.clock import rfc3339
from engine.errors import InvalidInput
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.router import Router


class VolumeRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("GET", "/volumes", self.list)
        router.add("POST", "/volumes/create", self.create)
        router.add("POST", "/volumes/prune", self.prune)
        router.add("GET", "/volumes/{name}", self.inspect)
        router.add("DELETE", "/volumes/{name}", self.remove)

    async def list(self, request: Request) -> Answer:
        volumes = await self._engine.volumes(request.query.filters())
        return json_response({"Volumes": [document(volume) for volume in volumes], "Warnings": None})

    async def inspect(self, request: Request) -> Answer:
        return json_response(document(await self._engine.volume(request.params["name"])))

    async def create(self, request: Request) -> Answer:
        body = await request.json()
        if body.get("ClusterVolumeSpec"):
            raise InvalidInput("cluster volumes need a swarm; this engine has none")
        volume = await self._engine.create_volume(
            str(body.get("Name") or ""),
            driver=str(body.get("Driver") or ""),
            labels=texts(body.get("Labels"), "Labels"),
            options=texts(body.get("DriverOpts"), "DriverOpts"),
        )
        return json_response(document(volume), 201)

    async def remove(self, request: Request) -> Answer:
        await self._engine.remove_volume(request.params["name"], force=request.query.flag("force"))
        return Response(204)

    async def prune(self, request: Request) -> Answer:
        filters = request.query.filters()
        if request.version < (1, 42):  # named ones went too before
            filters.setdefault("all", ["true"])
        names, size = await self._engine.prune_volumes(filters)
        return json_response({"VolumesDeleted": list(names), "SpaceReclaimed": size})


def texts(value: Any, what: str) -> dict[str, str]:
    """A JSON object of strings, or nothing. Raises `InvalidInput`."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidInput(f"{what} must be an object of strings")
    return dict(value)


def document(volume: VolumeInfo) -> dict[str, Any]:
    result: dict[str, Any] = {
        "CreatedAt": rfc3339(volume.created),
        "Driver": volume.driver,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": volume.scope,
    }
    if volume.size >= 0:
        result["UsageData"] = {"Size": volume.size, "RefCount": len(volume.used_by)}
    return result
