"""The host, the store's health, what takes space and what may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine import model
from engine.local.containers import ContainersPart
from engine.local.images import ImagesPart

if TYPE_CHECKING:
    from engine.model import CacheUsage, CheckFinding, DiskUsage, Pruned, SystemInfo


class SystemPart(ImagesPart, ContainersPart):
    """The engine as a whole."""

    async def info(self) -> SystemInfo:
        import os

        from engine.service import oci_runtimes
        from engine.service.system import describe_host

        cgroup, notes = await self._do(describe_host)
        runtimes = await self._do(oci_runtimes.available, self.root)
        containers = await self.containers(all=True)
        return model.SystemInfo(
            "0.1.0",
            str(self.root),
            os.uname().release,
            cgroup,
            len(await self.images(all=True)),
            len(containers),
            sum(container.running and container.status != "paused" for container in containers),
            tuple(notes),
            {oci_runtimes.NATIVE: "", **{name: one.path for name, one in runtimes.items()}},
            await self._do(oci_runtimes.default, self.root),
            sum(container.status == "paused" for container in containers),
        )

    async def check(self, *, repair: bool = False, files: bool = False) -> Sequence[CheckFinding]:
        from engine.service.repair import RepairService

        service = RepairService(self._store)
        work = service.repair if repair else service.check
        return await self._cancellable(lambda cancel: work(cancel, files=files))

    async def prune_images(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, dry_run: bool = False
    ) -> Pruned:
        return await self._do(self._upkeep.prune_images, filters or {}, dry_run=dry_run)

    async def prune_containers(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, dry_run: bool = False
    ) -> Pruned:
        return await self._do(self._upkeep.prune_containers, filters or {}, dry_run=dry_run)

    async def prune_system(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        all: bool = False,
        volumes: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        return await self._do(self._upkeep.prune_system, filters or {}, all=all, volumes=volumes, dry_run=dry_run)

    async def build_cache(self) -> Sequence[CacheUsage]:
        from engine.service.build_cache import BuildCache

        return await self._do(BuildCache(self._store).usage)

    async def prune_build_cache(
        self,
        filters: Mapping[str, Sequence[str]] | None = None,
        *,
        all: bool = False,
        keep_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        from engine.service.build_cache import BuildCache

        cache = BuildCache(self._store)
        return await self._do(cache.prune, filters or {}, everything=all, keep_bytes=keep_bytes, dry_run=dry_run)

    async def disk_usage(self) -> DiskUsage:
        return await self._do(self._upkeep.disk_usage)
