"""What containers use and what can go: stats, top, update, prune, system df."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from engine.api import Engine, Pruned
from engine.base.clock import rfc3339
from engine.errors import Conflict, InvalidInput, NotFound, Unsupported
from engine.model import ContainerStats, CpuStats, Resources
from engine.rest.containers import container_row
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.image_documents import list_row
from engine.rest.router import Router
from engine.rest.volumes import document as volume_document
from engine.service.wire import Fields, resources, restart_policy

_EVERY = 1.0  # seconds between two readings, as dockerd


class UsageRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("GET", "/containers/{name}/stats", self.stats)
        router.add("GET", "/containers/{name}/top", self.top)
        router.add("POST", "/containers/{name}/update", self.update)
        router.add("POST", "/containers/prune", self.prune_containers)
        router.add("POST", "/images/prune", self.prune_images)
        router.add("POST", "/build/prune", self.prune_cache)
        router.add("GET", "/system/df", self.df)

    # --- stats ------------------------------------------------------------------------------------------

    async def stats(self, request: Request) -> Answer:
        name = request.params["name"]
        summary = await self._engine.container_summary(name)
        if not request.query.flag("stream", True):
            if summary.status not in ("running", "paused"):
                return json_response(_empty(summary.id, summary.name))
            first = None
            if not request.query.flag("one-shot"):
                first = await self._engine.stats(name)
                await asyncio.sleep(_EVERY)
            return json_response(stats_document(await self._engine.stats(name), first))
        return Response(200, self._stats(summary.id, summary.name))

    async def _stats(self, container_id: str, name: str) -> AsyncIterator[bytes]:
        before: ContainerStats | None = None
        while True:
            try:
                now = await self._engine.stats(container_id)
            except Conflict:
                yield json.dumps(_empty(container_id, name)).encode() + b"\n"
                before = None
            except NotFound:
                return
            else:
                yield json.dumps(stats_document(now, before)).encode() + b"\n"
                before = now
            await asyncio.sleep(_EVERY)

    async def top(self, request: Request) -> Answer:
        found = await self._engine.top(request.params["name"], request.query.text("ps_args", "-ef").split())
        return json_response({"Titles": list(found.titles), "Processes": [list(row) for row in found.processes]})

    async def update(self, request: Request) -> Answer:
        fields = Fields(await request.json())
        policy = restart_policy(fields)
        warnings = await self._engine.update(
            request.params["name"], Resources(**resources(fields)), restart_policy=policy if policy.name else None
        )
        return json_response({"Warnings": list(warnings) or None})

    # --- prune and df -----------------------------------------------------------------------------------

    async def prune_containers(self, request: Request) -> Answer:
        pruned = await self._engine.prune_containers(request.query.filters())
        return json_response({"ContainersDeleted": list(pruned.containers) or None, "SpaceReclaimed": pruned.reclaimed})

    async def prune_images(self, request: Request) -> Answer:
        pruned = await self._engine.prune_images(request.query.filters())
        rows = [{"Untagged" if word == "untagged" else "Deleted": name} for word, name in _words(pruned)]
        return json_response({"ImagesDeleted": rows or None, "SpaceReclaimed": pruned.reclaimed})

    async def prune_cache(self, request: Request) -> Answer:
        """`keep-storage` is what `reserved-space` was called before version 1.48. Raises `Unsupported` for the two newer bounds."""
        query = request.query
        for name in ("max-used-space", "min-free-space"):
            if query.text(name) not in ("", "0"):
                raise Unsupported(f"{name} is not known here", hint="reserved-space says how much of the cache to keep")
        text = query.text("reserved-space") or query.text("keep-storage")
        if text and not (text.isascii() and text.isdigit()):
            raise InvalidInput(f"{text!r} is not a number of bytes")
        keep = int(text) if text and int(text) else None
        pruned = await self._engine.prune_build_cache(query.filters(), all=query.flag("all"), keep_bytes=keep)
        return json_response({"CachesDeleted": list(pruned.cache) or None, "SpaceReclaimed": pruned.reclaimed})

    async def df(self, request: Request) -> Answer:
        usage = await self._engine.disk_usage()
        kinds = set(request.query.all("type")) if request.version >= (1, 42) else set()  # not known before
        if kinds - {"container", "image", "volume", "build-cache"}:
            raise InvalidInput(f"unknown object type: {', '.join(sorted(kinds))}")

        def wanted(kind: str) -> bool:
            return not kinds or kind in kinds

        document: dict[str, Any] = {"LayersSize": usage.layers_size if wanted("image") else 0, "BuilderSize": 0}
        if wanted("image"):
            document["Images"] = [
                {**list_row(entry.image), "SharedSize": entry.shared, "Containers": len(entry.image.used_by)}
                for entry in usage.images
            ]
        if wanted("container"):
            images = {entry.image.id: entry.image.size for entry in usage.images}
            document["Containers"] = [
                container_row(container) | _sizes(size, images.get(container.image_id, 0))
                for container, size in usage.containers
            ]
        if wanted("volume"):
            document["Volumes"] = [volume_document(volume) for volume in usage.volumes]
        if wanted("build-cache"):
            document["BuildCache"] = [
                {
                    "ID": entry.id,
                    **({"Parents": None} if request.version >= (1, 42) else {"Parent": ""}),
                    "Type": "regular",
                    "Description": "",
                    "InUse": entry.in_use,
                    "Shared": entry.in_use,
                    "Size": entry.size,
                    "CreatedAt": rfc3339(entry.last_used),
                    "LastUsedAt": rfc3339(entry.last_used),
                    "UsageCount": 1,
                }
                for entry in usage.cache
            ]
        return json_response(document)


def _sizes(written: int, image: int) -> dict[str, int]:
    return {**({"SizeRw": written} if written else {}), "SizeRootFs": written + image}


def _words(pruned: Pruned) -> list[tuple[str, str]]:
    return [(word, name) for word, _, name in (line.partition(": ") for line in pruned.images)]


def _cpu(cpu: CpuStats) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total_usage": cpu.total,
        "usage_in_kernelmode": cpu.kernel,
        "usage_in_usermode": cpu.user,
    }
    if cpu.each:
        usage["percpu_usage"] = list(cpu.each)
    throttling = {
        "periods": cpu.periods,
        "throttled_periods": cpu.throttled_periods,
        "throttled_time": cpu.throttled_time,
    }
    return {
        "cpu_usage": usage,
        "system_cpu_usage": cpu.system,
        "online_cpus": cpu.online,
        "throttling_data": throttling,
    }


_NO_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


# Those that are null were measured by the scheduler CFQ, which kernels have no longer (5.0).
_BLOCK_KINDS = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def _empty(container_id: str, name: str) -> dict[str, Any]:
    """What dockerd sends of a container that does not run."""
    return {
        "name": f"/{name}",
        "id": container_id,
        "read": "0001-01-01T00:00:00Z",
        "preread": "0001-01-01T00:00:00Z",
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLOCK_KINDS),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _NO_CPU,
        "precpu_stats": _NO_CPU,
        "memory_stats": {},
    }


def stats_document(now: ContainerStats, before: ContainerStats | None) -> dict[str, Any]:
    """One reading, with the one before it: the client computes the CPU's share from both."""
    memory = now.memory
    detail: dict[str, Any] = {"usage": memory.usage, "limit": memory.limit, "stats": dict(memory.stat)}
    if not now.cgroup_v2:
        detail |= {"max_usage": memory.max_usage} | ({"failcnt": memory.failures} if memory.failures else {})
    blocks = [
        (b.major, b.minor, b.kind.capitalize() if not now.cgroup_v2 else b.kind, b.size, b.count) for b in now.block
    ]
    return {
        "name": f"/{now.name}",
        "id": now.id,
        "read": rfc3339(now.time),
        "preread": rfc3339(before.time) if before else "0001-01-01T00:00:00Z",
        "pids_stats": {"current": now.pids, **({"limit": now.pids_limit} if now.pids_limit else {})},
        "blkio_stats": dict.fromkeys(_BLOCK_KINDS)
        | {
            "io_service_bytes_recursive": [{"major": a, "minor": i, "op": op, "value": s} for a, i, op, s, _ in blocks],
            "io_serviced_recursive": [{"major": a, "minor": i, "op": op, "value": c} for a, i, op, _, c in blocks],
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now.cpu),
        "precpu_stats": _cpu(before.cpu) if before else _NO_CPU,
        "memory_stats": detail,
        "networks": {name: asdict(counter) for name, counter in now.networks.items()},
    }
