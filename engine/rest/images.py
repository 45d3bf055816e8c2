"""The API's images: list, inspect, history, pull, tag, remove."""

from __future__ import annotations

from typing import Any

from engine.api import Engine, ImageDetail, ImageSummary
from engine.errors import InvalidInput, NotFound, Unsupported
from engine.rest.http import Answer, Request, Response, encoded, json_response
from engine.rest.image_documents import FIELDS, document, list_row, manifests
from engine.rest.router import Router
from engine.rest.rows import Rows, list_response
from engine.service.wire import Fields


class ImageRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        self._rows: Rows[ImageSummary, bytes] = Rows(lambda image: encoded(list_row(image)))
        router.add("GET", "/images/json", self.list)
        router.add("GET", "/images/{name*}/json", self.inspect)
        router.add("GET", "/images/{name*}/history", self.history)
        router.add("POST", "/images/{name*}/tag", self.tag)
        router.add("DELETE", "/images/{name*}", self.remove)

    async def list(self, request: Request) -> Answer:
        # `all` is about the images between the steps of Docker's classic builder, which are not made here; images without a name show.
        images = await self._engine.images(all=True, filters=request.query.filters())
        if request.query.flag("manifests") and request.version >= _TREES:
            below = await self._engine.image_manifests()
            return json_response([list_row(image) | manifests(below.get(image.digest, ())) for image in images])
        if request.query.flag("shared-size"):
            shared = {entry.image.id: entry.shared for entry in (await self._engine.disk_usage()).images}
            return json_response([list_row(image) | {"SharedSize": shared.get(image.id, -1)} for image in images])
        if not request.query.given("filters"):
            self._rows.keep(image.digest for image in images)
        return list_response(self._rows.of(image.digest, image) for image in images)

    async def inspect(self, request: Request) -> Answer:
        detail = await self._of_platform(request)
        found = document(detail)
        if request.query.flag("manifests") and request.version >= _TREES:
            found |= manifests((await self._engine.image_manifests()).get(detail.summary.digest, ()))
        return json_response(_as_before(found, request.version))

    async def _of_platform(self, request: Request) -> ImageDetail:
        """The image, which `platform` (JSON) must be that of. Raises `NotFound` where it is for another."""
        name = request.params["name"]
        detail = await self._engine.image(name)
        wanted = request.query.document("platform")
        if wanted is None:
            return detail
        fields = Fields(wanted, "platform")
        for key in ("os", "architecture", "variant"):
            if fields.text(key) not in ("", str(detail.config.get(key) or "")):
                raise NotFound(f"image with reference {name} was found but does not provide the specified platform")
        return detail

    async def history(self, request: Request) -> Answer:
        detail = await self._of_platform(request)
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
                    "Comment": layer.comment or ("buildkit.dockerfile.v0" if layer.line else ""),
                }
            )
        return json_response(rows)

    async def tag(self, request: Request) -> Answer:
        repo, tag = request.query.text("repo"), request.query.text("tag")
        if not repo:
            raise InvalidInput("repo is needed: the name to give the image")
        if repo.partition(":")[0] == "sha256":
            raise InvalidInput("refusing to create an ambiguous tag using digest algorithm as name")
        await self._engine.tag(request.params["name"], f"{repo}:{tag}" if tag else repo)
        return Response(201)

    async def remove(self, request: Request) -> Answer:
        if request.query.text("platforms"):
            raise Unsupported(
                "platforms: an image for several platforms is removed with all of them", hint="leave --platform out"
            )
        lines = await self._engine.remove_image(request.params["name"], force=request.query.flag("force"))
        return json_response([dict([line.split(": ", 1)]) for line in lines])


_TREES = (1, 47)  # the version of the API that has manifests
_FIELDS_BEFORE: dict[str, Any] = FIELDS | {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def _as_before(document: dict[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """With what older versions of the API have: a container's fields in Config until 1.50, its own Config until 1.45, VirtualSize
    until 1.44."""
    if version < (1, 50):
        document["Config"] = _FIELDS_BEFORE | document["Config"]
    if version < (1, 45):
        document |= {"Container": "", "ContainerConfig": dict(_FIELDS_BEFORE)}
    if version < (1, 44):
        document["VirtualSize"] = document["Size"]
    return document
