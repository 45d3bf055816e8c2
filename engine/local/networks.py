"""Networks and volumes of the in-process engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine import model
from engine.local.base import Services

if TYPE_CHECKING:
    from engine.model import EndpointSettings, NetworkInfo, NetworkSpec, VolumeInfo


class NetworksPart(Services):
    """What containers are connected to."""

    async def networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[NetworkInfo]:
        return await self._do(self._containers.networks.list, filters)

    async def network(self, name: str) -> NetworkInfo:
        return await self._do(self._containers.networks.info, name)

    async def create_network(self, spec: NetworkSpec) -> str:
        return await self._do(self._containers.networks.create, spec)

    async def remove_network(self, name: str) -> None:
        await self._do(self._containers.networks.remove, name)

    async def prune_networks(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[str]:
        return await self._do(self._containers.networks.prune, filters)

    async def connect_network(self, network: str, container: str, settings: EndpointSettings | None = None) -> None:
        await self._do(self._containers.connect, network, container, settings or model.EndpointSettings())

    async def disconnect_network(self, network: str, container: str, *, force: bool = False) -> None:
        await self._do(self._containers.disconnect, network, container, force=force)

    async def volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[VolumeInfo]:
        return await self._do(self._volumes.list, filters)

    async def volume(self, name: str) -> VolumeInfo:
        return await self._do(self._volumes.get, name)

    async def create_volume(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        return await self._do(self._volumes.create, name, driver, labels, options)

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        await self._do(self._volumes.remove, name, force=force)

    async def prune_volumes(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[Sequence[str], int]:
        return await self._do(self._volumes.prune, filters)
