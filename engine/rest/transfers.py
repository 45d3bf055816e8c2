"""Images in and out over the API: push, save, load, import."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from engine.api import Engine, ImageImport, LoadedImage, RegistryAuth, Sink
from engine.errors import AccessDenied, InvalidInput, NotFound, Unauthorized, Unavailable, Unsupported
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.rest.files import BodyFile, begun, piped
from engine.rest.http import Answer, Body, Request, Response
from engine.rest.registries import auth_of
from engine.rest.router import Router
from engine.rest.streams import json_lines, progress_document

_TAR = "application/x-tar"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class TransferRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        router.add("POST", "/images/create", self.create, keep=False)
        router.add("POST", "/images/load", self.load, keep=False)
        router.add("GET", "/images/get", self.save)
        router.add("GET", "/images/{name*}/get", self.save)
        router.add("POST", "/images/{name*}/push", self.push, keep=False)

    async def create(self, request: Request) -> Answer:
        name, tag = request.query.text("fromImage"), request.query.text("tag")
        if not name:
            return await self._import_answer(request)
        platform = request.query.text("platform")
        if platform:
            Platform.parse(platform)
        reference = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}" if tag else name
        parsed = Reference.parse(reference)
        every = not (parsed.tag or parsed.digest)  # as Docker: the command line says "latest" where that is meant
        auth = auth_of(request, parsed.domain)
        try:
            events = await begun(self._pull(reference, platform, auth, every=every))
        except Unauthorized as error:
            # To a 401 the docker command line answers by asking for a name and a password, over and over without a terminal.
            raise AccessDenied(str(error), hint=error.hint) from error
        return Response(200, json_lines(events))

    async def _pull(
        self, reference: str, platform: str, auth: RegistryAuth | None, *, every: bool
    ) -> AsyncIterator[dict[str, Any]]:
        parsed, tag = Reference.parse(reference), ""
        begun, same, new = False, False, 0
        async for event in self._engine.pull(reference, platform=platform, auth=auth, all_tags=every):
            if event.phase == "resolving":
                parsed, begun, same = Reference.parse(event.reference), False, False
                tag = parsed.tag or str(parsed.digest or "latest")
                continue
            if not begun:  # what is not there is told with a status: nothing is said before the registry has answered
                begun = True
                yield {"status": f"Pulling from {parsed.name.partition('/')[2]}", "id": tag}
            if event.layer:
                yield progress_document(event)
            elif event.phase == "exists":
                same = True
            elif event.phase == "done":
                if event.text:
                    yield {"status": event.text}
                new += not same
        shown = parsed.familiar_name if every else parsed.with_default_tag().familiar
        yield {"status": f"Status: {'Downloaded newer image' if new else 'Image is up to date'} for {shown}"}

    # --- push -------------------------------------------------------------------------------------------

    async def push(self, request: Request) -> Answer:
        _refuse_platform(request)
        name, tag = request.params["name"], request.query.text("tag")
        reference = Reference.parse(f"{name}:{tag}" if tag else name)
        auth = auth_of(request, reference.domain)
        names = [reference.familiar] if reference.tag or reference.digest else await self._tags_of(reference)
        return Response(200, json_lines(await begun(self._push(names, auth))))

    async def _tags_of(self, repository: Reference) -> list[str]:
        """Without a tag every tag is meant (`docker push --all-tags`): the command line says "latest" where that is meant."""
        tags = [Reference.parse(tag) for image in await self._engine.images(all=True) for tag in image.tags]
        found = sorted(tag.familiar for tag in tags if tag.name == repository.name)
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
        return found

    async def _push(self, names: Sequence[str], auth: RegistryAuth | None) -> AsyncIterator[dict[str, Any]]:
        for name in names:
            async for line in self._push_one(Reference.parse(name), auth, first=name == names[0]):
                yield line

    async def _push_one(
        self, parsed: Reference, auth: RegistryAuth | None, *, first: bool
    ) -> AsyncIterator[dict[str, Any]]:
        async for event in self._engine.push(parsed.familiar, auth=auth):
            if event.phase == "resolving" and first:  # the image is here; what is not there is told with a status
                yield {"status": f"The push refers to repository [{parsed.name}]"}
            elif event.layer:
                yield progress_document(event, push=True)
            elif event.phase == "done":
                found = _DIGEST.search(event.text)
                digest = found[0] if found else ""
                yield {"status": f"{parsed.tag}: digest: {digest} size: {event.total}"}
                yield {"progressDetail": {}, "aux": {"Tag": parsed.tag, "Digest": digest, "Size": event.total}}

    # --- archives ---------------------------------------------------------------------------------------

    async def save(self, request: Request) -> Answer:
        names = [request.params["name"]] if "name" in request.params else request.query.all("names")
        if not names:
            raise InvalidInput("names is needed: the images to save")
        _refuse_platform(request)
        for name in names:
            await self._engine.image(name)

        async def produce(out: Sink) -> None:
            async for _ in self._engine.save(names, out):
                pass

        return Response(200, await begun(piped(produce)), _TAR)

    async def load(self, request: Request) -> Answer:
        _refuse_platform(request)
        return Response(200, json_lines(self._load(request)))

    async def _load(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        body = BodyFile(request.body)
        try:
            async for event in self._engine.load(io.BufferedReader(body, 1 << 18)):
                if isinstance(event, LoadedImage):
                    for tag in event.tags:
                        yield {"stream": f"Loaded image: {tag}\n"}
                    if not event.tags:
                        yield {"stream": f"Loaded image ID: {event.id}\n"}
                    for line in event.moved:
                        yield {"stream": f"{line}\n"}
                elif event.layer:
                    yield progress_document(event)
        finally:
            body.abandon()

    async def _import_answer(self, request: Request) -> Answer:
        """`POST /images/create?fromSrc=`: a file system's tar, in the body (`-`) or behind a URL."""
        source = request.query.text("fromSrc")
        if source == "-":
            return Response(200, json_lines(await begun(self._import(request, request.body))))
        if not source.startswith(("http://", "https://")):
            raise InvalidInput("fromSrc: - (the body) or a URL", hint="the docker client sends local files as the body")
        return Response(200, json_lines(await begun(self._import_from(source, request))))

    async def _import_from(self, url: str, request: Request) -> AsyncIterator[dict[str, Any]]:
        async with contextlib.aclosing(_behind(url)) as body:
            async for line in self._import(request, body):
                yield line

    async def _import(self, request: Request, source: Body) -> AsyncIterator[dict[str, Any]]:
        query = request.query
        repo, tag = query.text("repo"), query.text("tag")
        wanted = ImageImport(
            f"{repo}:{tag}" if repo and tag else repo,
            query.text("message"),
            tuple(query.all("changes")),
            query.text("platform"),
        )
        body = BodyFile(source)
        try:
            image = await self._engine.import_image(io.BufferedReader(body, 1 << 18), wanted)
        finally:
            body.abandon()
        yield {"status": image.id}


def _refuse_platform(request: Request) -> None:
    """Raises Unsupported: an image for several platforms moves whole."""
    if request.query.text("platform"):
        raise Unsupported(
            "--platform: an image for several platforms is pushed, saved and loaded with all of them",
            hint="leave --platform out, or pull the one that is wanted and tag it",
        )


async def _behind(url: str) -> AsyncGenerator[bytes]:
    """What is behind a URL, as it comes. Raises NotFound, Unavailable."""
    import httpx  # seldom needed

    headers = {"accept-encoding": "identity"}  # what is packed is seen by its first bytes
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=60) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise NotFound(f"{url}: the server answered {answer.status_code} {answer.reason_phrase}")
            async for chunk in answer.aiter_raw():
                yield chunk
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"{url} cannot be fetched: {error}") from error
