"""`POST /build?version=2`: how docker 18.09 to 20.10 ask for BuildKit, without buildx. Options stand in the query, progress is JSON lines.

The files come from the client's session; a context that it got on stdin comes in the body of a second request (`upload-request`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from grpclib.exceptions import GRPCError

from engine.errors import EngineError, InvalidInput, NotFound
from engine.rest.buildkit import wire
from engine.rest.buildkit.jobs import Job, Jobs, Outcome
from engine.rest.buildkit.messages import CacheEntry, Exporter
from engine.rest.buildkit.request import Wanted
from engine.rest.http import Body, Query, Request

if TYPE_CHECKING:
    from engine.rest.buildkit.builds import Builds

_UPLOAD = "upload-request"
_BODY_URL = "http://buildkit-session/body"
_WAIT_SECONDS = 10.0


class ClassicBuilds:
    def __init__(self, builds: Builds, jobs: Jobs) -> None:
        self._builds, self._jobs = builds, jobs
        self._numbers = itertools.count()
        self._uploads: dict[str, tuple[Body, asyncio.Event]] = {}
        self._uploaded = asyncio.Event()

    async def upload(self, identity: str, body: Body) -> None:
        """Keeps a request open, whose body is the context of the build `identity`, until that has read it."""
        done = asyncio.Event()
        self._uploads[identity] = (body, done)
        self._uploaded.set()
        try:
            await done.wait()
        finally:
            self._uploads.pop(identity, None)

    async def lines(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        """The build that `request` asks for. Raises `EngineError`."""
        query = request.query
        async with contextlib.AsyncExitStack() as closing:
            body: Body | None = None
            if query.text("remote") == _UPLOAD:
                body, done = await self._wait_for(query.text("buildid"))
                closing.callback(done.set)
            elif query.text("remote") != "client-session" and not query.text("remote"):
                body = request.body
            wanted = _wanted(query, uploaded=body is not None)
            job = await closing.enter_async_context(self._jobs.job(f"classic-{next(self._numbers)}"))
            working = asyncio.create_task(self._work(job, wanted, query.text("session"), body))
            try:
                async for message in job.progress():
                    yield {"id": "moby.buildkit.trace", "aux": base64.b64encode(wire.encode(message)).decode()}
                outcome = await working
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            image = outcome.response.get("containerimage.config.digest")
            if image and wanted.exporters and wanted.exporters[0].type in ("moby", "image"):
                yield {"id": "moby.image.id", "aux": {"ID": image}}

    async def _work(self, job: Job, wanted: Wanted, session: str, body: Body | None) -> Outcome:
        try:
            return await self._builds.build(job, wanted, session, body)
        except GRPCError as error:
            raise EngineError(f"failed to solve: {error.message}") from error
        finally:
            job.end()

    async def _wait_for(self, identity: str) -> tuple[Body, asyncio.Event]:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while identity not in self._uploads:
                    self._uploaded.clear()
                    await self._uploaded.wait()
        except TimeoutError:
            raise NotFound("the context of the build was not sent") from None
        return self._uploads[identity]


def upload_of(query: Query) -> str:
    """The build whose context this request brings; "" when it asks for a build itself."""
    first, colon, rest = query.text("buildid").partition(":")
    return rest if first == _UPLOAD and colon else ""


def _wanted(query: Query, *, uploaded: bool) -> Wanted:
    """As moby's `builder-next/builder.go` makes frontend options of the query."""
    arguments, labels = query.document("buildargs") or {}, query.document("labels") or {}
    options = {f"build-arg:{name}": str(value) for name, value in arguments.items() if value is not None}
    options |= {f"label:{name}": str(value) for name, value in labels.items()}
    for name, given in (("target", "target"), ("filename", "dockerfile"), ("platform", "platform")):
        if query.text(given):
            options[name] = query.text(given)
    if query.flag("nocache"):
        options["no-cache"] = ""
    if query.flag("pull"):
        options["image-resolve-mode"] = "pull"
    network = query.text("networkmode")
    if network not in ("", "default"):
        options["force-network-mode"] = network
    hosts = [host.replace(":", "=", 1) for text in query.all("extrahosts") for host in text.split(",") if host]
    if hosts:
        options["add-hosts"] = ",".join(hosts)
    if query.number("shmsize", 0):
        options["shm-size"] = str(query.number("shmsize"))
    ulimits = query.document("ulimits") or []
    if ulimits:
        options["ulimit"] = ",".join(f"{limit['Name']}={limit['Soft']}:{limit['Hard']}" for limit in ulimits)
    cache = query.document("cachefrom") or []
    if cache:
        options["cache-from"] = ",".join(cache)
    place = _BODY_URL if uploaded else query.text("remote")
    if place != "client-session":
        options["context"] = place
    inline = [CacheEntry("inline")] if str(arguments.get("BUILDKIT_INLINE_CACHE")) in ("1", "true") else []
    entitlements = ["network.host"] if network == "host" else []
    return Wanted(options, _exporters(query), inline, entitlements=entitlements)


def _exporters(query: Query) -> list[Exporter]:
    outputs = query.document("outputs") or []
    if len(outputs) > 1:
        raise InvalidInput("multiple outputs not supported")
    found = Exporter("moby") if not outputs else Exporter(str(outputs[0]["Type"]), dict(outputs[0].get("Attrs") or {}))
    if found.type == "cacheonly":
        return []
    if found.type in ("moby", "image") and query.all("t"):
        found.attrs["name"] = ",".join(query.all("t"))
    return [found]
