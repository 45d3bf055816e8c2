"""Another engine as a whole: what it is, what takes space there and what may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.model import CacheUsage, CheckFinding, DiskUsage, ImageUsage, Pruned, SystemInfo
from engine.remote import read, write
from engine.remote.containers import ContainersPart
from engine.remote.image_records import summary
from engine.remote.images import ImagesPart
from engine.remote.networks import NetworksPart

Filters = Mapping[str, Sequence[str]]


class SystemPart(ContainersPart, ImagesPart, NetworksPart):
    """The engine as a whole."""

    async def info(self) -> SystemInfo:
        found = read.mapping(await self._client.get("/info"))
        version = str(found.get("CgroupVersion") or "1")
        runtimes = {
            name: str(read.mapping(each).get("path") or "")
            for name, each in read.mapping(found.get("Runtimes")).items()
        }
        return SystemInfo(
            str(found.get("ServerVersion") or ""),
            str(found.get("DockerRootDir") or ""),
            str(found.get("KernelVersion") or ""),
            f"v{version}",
            int(found.get("Images") or 0),
            int(found.get("Containers") or 0),
            int(found.get("ContainersRunning") or 0),
            read.texts(found.get("Warnings")),
            runtimes,
            str(found.get("DefaultRuntime") or ""),
            int(found.get("ContainersPaused") or 0),
            found,
        )

    async def check(self, *, repair: bool = False, files: bool = False) -> Sequence[CheckFinding]:
        found: Sequence[CheckFinding] = await self._own("check", "checking the store", repair=repair, files=files)
        return found

    # --- disk -------------------------------------------------------------------------------------------

    async def _df(self) -> Mapping[str, Any]:
        return read.mapping(await self._client.get("/system/df"))

    async def disk_usage(self) -> DiskUsage:
        found = await self._df()
        containers = [(read.list_row(row), int(row.get("SizeRw") or 0)) for row in read.rows(found.get("Containers"))]
        users: dict[str, list[str]] = {}
        holders: dict[str, list[str]] = {}
        for (one, _), row in zip(containers, read.rows(found.get("Containers")), strict=True):
            users.setdefault(one.image_id, []).append(one.name)
            for mount in read.rows(row.get("Mounts")):
                if mount.get("Type") == "volume":
                    holders.setdefault(str(mount.get("Name")), []).append(one.name)
        images = []
        for row in read.rows(found.get("Images")):
            shared = int(row.get("SharedSize") or 0)
            images.append(ImageUsage(summary(row, users.get(str(row.get("Id")), ())), max(shared, 0)))
        volumes = [read.volume(row, holders.get(str(row.get("Name")), ())) for row in read.rows(found.get("Volumes"))]
        return DiskUsage(
            tuple(images), int(found.get("LayersSize") or 0), tuple(containers), tuple(volumes), _cache(found)
        )

    async def build_cache(self) -> Sequence[CacheUsage]:
        return sorted(_cache(await self._df()), key=lambda entry: -entry.last_used)

    async def prune_build_cache(
        self,
        filters: Filters | None = None,
        *,
        all: bool = False,
        keep_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        if dry_run:
            return await self._dry("prune_build_cache", filters=filters, all=all, keep_bytes=keep_bytes)
        params: dict[str, str | int | bool] = {"all": all, "filters": write.filters(filters)}
        if keep_bytes is not None:
            params["keep-storage"] = params["reserved-space"] = keep_bytes
        found = read.mapping(await self._client.post("/build/prune", params))
        return Pruned(cache=read.texts(found.get("CachesDeleted")), reclaimed=int(found.get("SpaceReclaimed") or 0))

    async def _dry(self, method: str, **arguments: object) -> Pruned:
        found: Pruned = await self._own(method, "--dry-run", dry_run=True, **arguments)
        return found

    async def prune_images(self, filters: Filters | None = None, *, dry_run: bool = False) -> Pruned:
        if dry_run:
            return await self._dry("prune_images", filters=filters)
        found = read.mapping(await self._client.post("/images/prune", {"filters": write.filters(filters)}))
        rows = read.rows(found.get("ImagesDeleted"))
        lines = tuple(f"{word.lower()}: {name}" for row in rows for word, name in row.items() if name)
        return Pruned(images=lines, reclaimed=int(found.get("SpaceReclaimed") or 0))

    async def prune_containers(self, filters: Filters | None = None, *, dry_run: bool = False) -> Pruned:
        if dry_run:
            return await self._dry("prune_containers", filters=filters)
        found = read.mapping(await self._client.post("/containers/prune", {"filters": write.filters(filters)}))
        return Pruned(
            containers=read.texts(found.get("ContainersDeleted")), reclaimed=int(found.get("SpaceReclaimed") or 0)
        )

    async def prune_system(
        self, filters: Filters | None = None, *, all: bool = False, volumes: bool = False, dry_run: bool = False
    ) -> Pruned:
        """In the order of `docker system prune`: what containers hold is free after them."""
        if dry_run:
            return await self._dry("prune_system", filters=filters, all=all, volumes=volumes)
        containers = await self.prune_containers(filters)
        gone, size = (await self.prune_volumes(_without_until(filters))) if volumes else ((), 0)
        wanted = {**(filters or {}), "dangling": ["false" if all else "true"]}
        images = await self.prune_images(wanted)
        until = {key: values for key, values in (filters or {}).items() if key == "until"}
        cache = await self.prune_build_cache(until, all=all)
        return Pruned(
            containers.containers,
            images.images,
            tuple(gone),
            cache.cache,
            containers.reclaimed + size + images.reclaimed + cache.reclaimed,
        )


def _without_until(filters: Filters | None) -> Filters:
    return {key: values for key, values in (filters or {}).items() if key != "until"}


def _cache(found: Mapping[str, Any]) -> tuple[CacheUsage, ...]:
    return tuple(
        CacheUsage(
            str(row.get("ID") or ""),
            int(row.get("Size") or 0),
            read.moment(row.get("LastUsedAt")) or read.moment(row.get("CreatedAt")),
            bool(row.get("InUse")),
        )
        for row in read.rows(found.get("BuildCache"))
    )
