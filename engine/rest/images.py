"""The API's images: list, inspect, history, pull, tag, remove."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from engine.api import Engine, ImageDetail, ImageSummary, PullProgress
from engine.base.clock import rfc3339
from engine.base.units import human_size
from engine.errors import InvalidInput
from engine.oci.reference import Reference, familiar_match
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.router import Router
from engine.rest.streams import json_lines

_PHASES = {
    "resolving": "Pulling from",
    "waiting": "Pulling fs layer",
    "downloading": "Downloading",
    "extracting": "Extracting",
    "exists": "Already exists",
    "done": "Pull complete",
}


class ImageRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("GET", "/images/json", self.list)
        router.add("POST", "/images/create", self.create, keep=False)
        router.add("GET", "/images/{name*}/json", self.inspect)
        router.add("GET", "/images/{name*}/history", self.history)
        router.add("POST", "/images/{name*}/tag", self.tag)
        router.add("DELETE", "/images/{name*}", self.remove)

    async def list(self, request: Request) -> Answer:
        filters = request.query.filters()
        images = await self._engine.images(all=True)
        shown = [image for image in images if _wanted(image, filters)]
        return json_response([_summary(image) for image in shown])

    async def inspect(self, request: Request) -> Answer:
        return json_response(document(await self._engine.image(request.params["name"])))

    async def history(self, request: Request) -> Answer:
        detail = await self._engine.image(request.params["name"])
        rows = []
        for layer in reversed(detail.layers):
            last = layer is detail.layers[-1]
            rows.append(
                {
                    "Id": detail.summary.id if last else "<missing>",
                    "Created": layer.created // 1_000_000_000,
                    "CreatedBy": layer.created_by,
                    "Tags": list(detail.summary.tags) or None if last else None,
                    "Size": layer.size,
                    "Comment": "buildkit.dockerfile.v0" if layer.line else "",
                }
            )
        return json_response(rows)

    async def create(self, request: Request) -> Answer:
        name, tag = request.query.text("fromImage"), request.query.text("tag")
        if not name:
            raise InvalidInput("fromImage is needed")
        reference = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}" if tag else name
        Reference.parse(reference)
        return Response(200, json_lines(self._pull(reference)))

    async def _pull(self, reference: str) -> AsyncIterator[dict[str, Any]]:
        parsed = Reference.parse(reference)
        tag = parsed.tag or str(parsed.digest or "latest")
        events = self._engine.pull(reference)
        fresh = False
        async for event in events:
            if event.layer:
                fresh = fresh or event.phase == "downloading"
                yield progress_document(event)
            elif event.phase == "resolving":
                yield {"status": f"Pulling from {parsed.name.partition('/')[2]}", "id": tag}
            elif event.phase == "done":
                if event.text:
                    yield {"status": event.text}
                shown = parsed.with_default_tag().familiar
                state = "Downloaded newer image for" if fresh else "Image is up to date for"
                yield {"status": f"Status: {state} {shown}"}

    async def tag(self, request: Request) -> Answer:
        repo, tag = request.query.text("repo"), request.query.text("tag")
        if not repo:
            raise InvalidInput("repo is needed: the name to give the image")
        await self._engine.tag(request.params["name"], f"{repo}:{tag}" if tag else repo)
        return Response(201)

    async def remove(self, request: Request) -> Answer:
        lines = await self._engine.remove_image(request.params["name"], force=request.query.flag("force"))
        return json_response([dict([line.split(": ", 1)]) for line in lines])


def progress_document(event: PullProgress) -> dict[str, Any]:
    """One line of the client's progress display."""
    result: dict[str, Any] = {"status": _PHASES[event.phase], "id": event.layer.removeprefix("sha256:")[:12]}
    if event.phase in ("downloading", "extracting") and event.current:
        total = max(event.total, event.current)
        filled = 50 * event.current // total
        bar = "=" * filled + (">" + " " * (49 - filled) if filled < 50 else "")
        result["progressDetail"] = {"current": event.current, "total": total}
        result["progress"] = f"[{bar}]  {human_size(event.current)}/{human_size(total)}"
    else:
        result["progressDetail"] = {}
    return result


def _repo_digests(image: ImageSummary) -> list[str]:
    return sorted({f"{Reference.parse(tag).familiar_name}@{image.digest}" for tag in image.tags})


def _summary(image: ImageSummary) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": _repo_digests(image),
        "Created": image.created // 1_000_000_000,
        "Size": image.size,
        "SharedSize": -1,
        "VirtualSize": image.size,
        "Labels": None,
        "Containers": len(image.used_by),
    }


def _wanted(image: ImageSummary, filters: dict[str, list[str]]) -> bool:
    for key, values in filters.items():
        if key == "reference":
            ok = any(familiar_match(value, Reference.parse(tag)) for tag in image.tags for value in values)
        elif key == "dangling":
            ok = image.dangling == (values[0].lower() in ("true", "1"))
        else:
            raise InvalidInput(f"invalid filter '{key}'")
        if not ok:
            return False
    return True


def document(detail: ImageDetail) -> dict[str, Any]:
    """What `docker image inspect` prints."""
    config = dict(detail.config)
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids", []) if isinstance(rootfs, dict) else []
    run = config.get("config")
    return {
        "Id": detail.summary.id,
        "RepoTags": list(detail.summary.tags),
        "RepoDigests": list(detail.repo_digests),
        "Parent": "",
        "Comment": "",
        "Created": rfc3339(detail.summary.created),
        "DockerVersion": str(config.get("docker_version") or ""),
        "Author": str(config.get("author") or ""),
        "Config": run if isinstance(run, dict) else {},
        "Architecture": str(config.get("architecture") or ""),
        **({"Variant": str(config["variant"])} if config.get("variant") else {}),
        "Os": str(config.get("os") or ""),
        "Size": detail.summary.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }
