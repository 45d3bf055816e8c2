"""Networks and volumes of another engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from engine.model import EndpointSettings, NetworkInfo, NetworkSpec, VolumeInfo
from engine.remote import read, write
from engine.remote.base import Remote


class NetworksPart(Remote):
    """What containers are connected to."""

    async def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[NetworkInfo]:
        found = await self._client.get("/networks", {"filters": write.filters(filters)})
        return sorted((read.network(row) for row in read.rows(found)), key=lambda network: network.name)

    async def network(self, name: str) -> NetworkInfo:
        return read.network(read.mapping(await self._client.get(f"/networks/{_quoted(name)}")))

    async def create_network(self, spec: NetworkSpec) -> str:
        found = read.mapping(await self._client.post("/networks/create", body=write.network_body(spec)))
        return str(found.get("Id"))

    async def remove_network(self, name: str) -> None:
        await self._client.json("DELETE", f"/networks/{_quoted(name)}")

    async def prune_networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[str]:
        found = await self._client.post("/networks/prune", {"filters": write.filters(filters)})
        return read.texts(read.mapping(found).get("NetworksDeleted"))

    async def connect_network(self, network: str, container: str, settings: EndpointSettings | None = None) -> None:
        body: dict[str, Any] = {"Container": container}
        if settings is not None:
            body["EndpointConfig"] = write.endpoint(settings)
        await self._client.post(f"/networks/{_quoted(network)}/connect", body=body)

    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None:
        body = {"Container": container, "Force": force}
        await self._client.post(f"/networks/{_quoted(network)}/disconnect", body=body)

    # --- volumes ----------------------------------------------------------------------------------------

    async def volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[VolumeInfo]:
        found = read.mapping(await self._client.get("/volumes", {"filters": write.filters(filters)}))
        return sorted((read.volume(row) for row in read.rows(found.get("Volumes"))), key=lambda volume: volume.name)

    async def volume(self, name: str) -> VolumeInfo:
        return read.volume(read.mapping(await self._client.get(f"/volumes/{_quoted(name)}")))

    async def create_volume(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        body = {"Name": name, "Driver": driver, "Labels": dict(labels or {}), "DriverOpts": dict(options or {})}
        return read.volume(read.mapping(await self._client.post("/volumes/create", body=body)))

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        await self._client.json("DELETE", f"/volumes/{_quoted(name)}", {"force": force})

    async def prune_volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[str], int]:
        wanted = dict(filters or {})
        # Before 1.42 named ones went too, and the filter `all` was not known.
        if self._client.version < (1, 42) and "true" not in wanted.pop("all", ()):
            wanted["label"] = [*wanted.get("label", ()), "com.docker.volume.anonymous"]
        found = read.mapping(await self._client.post("/volumes/prune", {"filters": write.filters(wanted)}))
        return read.texts(found.get("VolumesDeleted")), int(found.get("SpaceReclaimed") or 0)


def _quoted(name: str) -> str:
    return quote(name, safe="")
