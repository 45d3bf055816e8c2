"""Images of another engine."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import quote

from engine.errors import EngineError, InvalidInput
from engine.model import (
    Comparison,
    ContainerSpec,
    Distribution,
    ImageDetail,
    ImageImport,
    ImageManifest,
    ImageSummary,
    LoadedImage,
    PullProgress,
    RegistryAuth,
    RegistryDocument,
    RegistryMatch,
)
from engine.oci.reference import Reference
from engine.remote import read, write
from engine.remote.base import Remote, reading, writing
from engine.remote.client import registry_auth
from engine.remote.errors import beyond, failed_in_stream
from engine.remote.image_records import detail, summary

if TYPE_CHECKING:
    from engine.api import Sink

_PHASES: Mapping[str, Any] = {
    "pulling fs layer": "waiting",
    "waiting": "waiting",
    "preparing": "waiting",
    "downloading": "downloading",
    "verifying checksum": "downloading",
    "download complete": "downloading",
    "extracting": "extracting",
    "pushing": "uploading",
    "loading layer": "loading",
    "pull complete": "done",
    "pushed": "done",
    "already exists": "exists",
    "layer already exists": "exists",
}
_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


class ImagesPart(Remote):
    """Images, archives of them, and their way to and from registries."""

    async def images(
        self, *, all: bool = False, filters: Mapping[str, Sequence[str]] | None = None
    ) -> Sequence[ImageSummary]:
        params: dict[str, str | int | bool] = {"all": False, "filters": write.filters(filters)}
        found, containers = await asyncio.gather(
            self._client.get("/images/json", params), self._client.get("/containers/json", {"all": True})
        )
        users: dict[str, list[str]] = {}
        for row in map(read.list_row, read.rows(containers)):
            users.setdefault(row.image_id, []).append(row.name)
        images = [summary(row, users.get(str(row.get("Id")), ())) for row in read.rows(found)]
        return [image for image in images if all or not image.dangling or "dangling" in (filters or {})]

    async def image(self, name: str) -> ImageDetail:
        if await self._is_workbench():
            found: ImageDetail = await self._own("image", "", name=name)
            return found
        where = f"/images/{_quoted(name)}"
        document, history = await asyncio.gather(
            self._client.get(f"{where}/json"), self._client.get(f"{where}/history")
        )
        return detail(read.mapping(document), read.rows(history))

    async def tag(self, source: str, target: str) -> None:
        reference = Reference.parse(target)
        if reference.digest:
            raise InvalidInput("refusing to create a tag with a digest reference")
        params = {"repo": reference.familiar_name, "tag": reference.tag or "latest"}
        await self._client.post(f"/images/{_quoted(source)}/tag", params)

    async def image_manifests(self) -> Mapping[str, Sequence[ImageManifest]]:
        found: Mapping[str, Sequence[ImageManifest]] = await self._own("image_manifests", "listing images' manifests")
        return found

    async def keep_images(self, owner: str, images: Sequence[str]) -> None:
        """Only a workbench knows what a project needs: another engine's prune takes generations without a tag with it."""
        if await self._is_workbench():
            await self._own("keep_images", "", owner=owner, images=images)

    async def remove_image(self, name: str, *, force: bool = False) -> Sequence[str]:
        found = await self._client.json("DELETE", f"/images/{_quoted(name)}", {"force": force})
        return [f"{word}: {value}" for row in read.rows(found) for word, value in row.items()]

    # --- registries -------------------------------------------------------------------------------------

    async def _auth(self, reference: Reference, auth: RegistryAuth | None = None) -> dict[str, str]:
        """X-Registry-Auth with `auth`, or this machine's credentials for the registry, as the docker command line sends it."""
        document = _auth_document(auth) if auth else await asyncio.to_thread(credentials, reference.domain)
        return {"x-registry-auth": registry_auth(document)}

    async def login(self, auth: RegistryAuth) -> None:
        await self._client.post("/auth", {}, _auth_document(auth))

    async def search_images(
        self, term: str, *, limit: int = 25, auth: RegistryAuth | None = None
    ) -> Sequence[RegistryMatch]:
        headers = {"x-registry-auth": registry_auth(_auth_document(auth))} if auth else {}
        found = await self._client.json("GET", "/images/search", {"term": term, "limit": limit}, headers=headers)
        return [
            RegistryMatch(
                str(row.get("name") or ""),
                str(row.get("description") or ""),
                int(row.get("star_count") or 0),
                bool(row.get("is_official")),
                bool(row.get("is_automated")),
            )
            for row in read.rows(found)
        ]

    async def distribution(self, reference: str, *, auth: RegistryAuth | None = None) -> Distribution:
        parsed = Reference.parse(reference).with_default_tag()
        where = f"/distribution/{quote(parsed.familiar, safe='/@:')}/json"
        document = read.mapping(await self._client.json("GET", where, {}, headers=await self._auth(parsed, auth)))
        descriptor = read.mapping(document.get("Descriptor"))
        platforms = tuple(
            "/".join(str(row[key]) for key in ("os", "architecture", "variant") if row.get(key))
            for row in read.rows(document.get("Platforms"))
        )
        return Distribution(
            str(descriptor.get("mediaType") or ""),
            str(descriptor.get("digest") or ""),
            int(descriptor.get("size") or 0),
            platforms,
        )

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, all_tags: bool = False
    ) -> AsyncIterator[PullProgress]:
        parsed = Reference.parse(reference).with_default_tag()
        params = {"fromImage": parsed.familiar_name, "tag": "" if all_tags else str(parsed.digest or parsed.tag or "")}
        if platform:
            params["platform"] = platform
        yield PullProgress(reference, "", "resolving")
        last = ""
        lines = self._client.lines(
            "POST", "/images/create", params, headers=await self._auth(parsed, auth), content=_nothing()
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                if error := failed_in_stream(line):
                    raise error
                if event := progress(reference, line):
                    yield event
                elif str(line.get("status") or "").startswith("Digest:"):
                    last = str(line["status"])
                elif str(line.get("status") or "").startswith("Status: Image is up to date"):
                    yield PullProgress(reference, "", "exists")
        yield PullProgress(reference, "", "done", text=last)

    async def push(
        self, reference: str, *, target: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[PullProgress]:
        if target and target != reference:
            raise beyond("pushing under another name", "`workbench tag` it first, then push that")
        parsed = Reference.parse(reference).with_default_tag()
        where = f"/images/{quote(parsed.familiar_name, safe='/')}/push"
        done = PullProgress(reference, "", "done")
        lines = self._client.lines(
            "POST", where, {"tag": parsed.tag or ""}, headers=await self._auth(parsed, auth), content=_nothing()
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                if error := failed_in_stream(line):
                    raise error
                aux = read.mapping(line.get("aux"))
                if aux.get("Digest"):
                    size = int(aux.get("Size") or 0)
                    done = PullProgress(
                        reference, "", "done", size, size, f"{aux.get('Tag')}: digest: {aux['Digest']} size: {size}"
                    )
                elif event := progress(reference, line):
                    yield event
        yield done

    async def manifests(
        self, reference: str, *, children: bool = False, insecure: bool = False
    ) -> Sequence[RegistryDocument]:
        wanted = {"reference": reference, "children": children, "insecure": insecure}
        found: Sequence[RegistryDocument] = await self._own("manifests", "showing a manifest", **wanted)
        return found

    async def push_index(
        self, target: str, document: bytes, sources: Mapping[str, str], *, insecure: bool = False
    ) -> str:
        wanted = {"target": target, "document": document, "sources": sources, "insecure": insecure}
        digest: str = await self._own("push_index", "making an index", **wanted)
        return digest

    async def referrers(
        self, reference: str, *, artifact_type: str = "", platform: str = "", insecure: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        wanted = {"reference": reference, "artifact_type": artifact_type, "platform": platform, "insecure": insecure}
        found: Sequence[Mapping[str, Any]] = await self._own("referrers", "listing referrers", **wanted)
        return found

    async def push_to_host(
        self, url: str, name: str, *, progress: Callable[[PullProgress], None] = lambda event: None
    ) -> str:
        raise beyond("moving images between two other hosts", "`workbench save | ssh HOST workbench load` does it")

    async def pull_from_host(
        self, url: str, name: str, *, progress: Callable[[PullProgress], None] = lambda event: None
    ) -> ImageSummary:
        raise beyond(
            "moving images between two other hosts", "`ssh HOST workbench save IMAGE | workbench load` does it"
        )

    async def verify_on_host(self, url: str, name: str, *, files: bool = False) -> Sequence[Comparison]:
        raise beyond("comparing images of two other hosts")

    async def look_at_host(self, url: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        raise beyond("cloning a container from a third host")

    async def clone_from_host(
        self,
        url: str,
        found: Mapping[str, Any],
        spec: ContainerSpec,
        copies: Sequence[tuple[str, bool]] = (),
        *,
        changes: bool = True,
        progress: Callable[[PullProgress], None] = lambda event: None,
    ) -> str:
        raise beyond("cloning a container from a third host")

    # --- archives ---------------------------------------------------------------------------------------

    async def save(
        self, names: Sequence[str], out: Sink, *, format: Literal["docker-archive", "oci-archive"] = "docker-archive"
    ) -> AsyncIterator[PullProgress]:
        if format != "docker-archive":
            raise beyond("an oci-archive", "leave --format out: the engine over there chooses the form")
        for name in names:  # its answer to a missing one may come after the head, or be an empty archive
            await self._client.get(f"/images/{_quoted(name)}/json")
        async with self._client.answer("GET", "/images/get", {"names": list(names)}) as answer:
            await writing(answer.aiter_raw(), out)
        for name in names:
            yield PullProgress(name, "", "done")

    async def load(self, source: BinaryIO) -> AsyncIterator[PullProgress | LoadedImage]:
        """`quiet`: an engine that told of its progress while it reads could wait for us to listen, and we for it to read."""
        lines = self._client.lines(
            "POST",
            "/images/load",
            {"quiet": True},
            content=reading(source),
            headers={"content-type": "application/x-tar"},
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                if error := failed_in_stream(line):
                    raise error
                for name in _loaded(str(line.get("stream") or "")):
                    found = (await self.image(name)).summary
                    tags = () if name.startswith("sha256:") else (name,)
                    yield LoadedImage(found.id, found.digest, tags)

    async def import_image(self, source: BinaryIO, request: ImageImport) -> ImageSummary:
        reference = Reference.parse(request.reference) if request.reference else None
        params: dict[str, Any] = {
            "fromSrc": "-",
            "repo": reference.familiar_name if reference else "",
            "tag": (reference.tag or "latest") if reference else "",
            "message": request.message,
            "changes": list(request.changes),
            "platform": request.platform,
        }
        identity = ""
        headers = {"content-type": "application/x-tar"}
        lines = self._client.lines("POST", "/images/create", params, content=reading(source), headers=headers)
        async with contextlib.aclosing(lines):
            async for line in lines:
                if error := failed_in_stream(line):
                    raise error
                identity = str(line.get("status") or identity)
        if not identity:
            raise EngineError("the engine does not say which image it made")
        return (await self.image(identity)).summary


def _loaded(text: str) -> list[str]:
    """The images that a line of `load` names; Podman names them all in one, with commas."""
    return [name for found in _LOADED.findall(text) for name in found.split(",") if name]


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


def credentials(domain: str) -> dict[str, str]:
    """This machine's (`workbench login`) for a registry, as the API's AuthConfig; {} where there are none."""
    from engine.registry.credentials import Keychain

    found = Keychain().get(domain)
    if found is None:
        return {}
    # Docker Hub's name in this header is the one that its configuration file has.
    address = "https://index.docker.io/v1/" if domain == "docker.io" else domain
    document = {"serveraddress": address}
    if found.identity_token:
        return document | {"identitytoken": found.identity_token}
    return document | {"username": found.username, "password": found.password}


def _auth_document(auth: RegistryAuth) -> dict[str, str]:
    """The API's AuthConfig."""
    document = {"serveraddress": auth.server}
    if auth.identity_token:
        return document | {"identitytoken": auth.identity_token}
    return document | {"username": auth.username, "password": auth.password}


def progress(reference: str, line: Mapping[str, object]) -> PullProgress | None:
    """A line of a pull, push or load with a layer's id; None for any other."""
    phase = _PHASES.get(str(line.get("status") or "").lower().partition(" from ")[0])
    layer = str(line.get("id") or "")
    if phase is None or not layer:
        return None
    found = read.mapping(line.get("progressDetail"))
    return PullProgress(reference, layer, phase, int(found.get("current") or 0), int(found.get("total") or 0))


def _quoted(name: str) -> str:
    return quote(name, safe="/:@")
