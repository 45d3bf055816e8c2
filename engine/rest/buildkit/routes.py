"""`/grpc` and `/session`: connections that become HTTP/2. What speaks on them is loaded when the first client asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.api import Engine
from engine.errors import InvalidInput
from engine.rest.duplex import Duplex
from engine.rest.http import Answer, Hijack, Request, Response
from engine.rest.router import Router
from engine.rest.streams import json_lines

if TYPE_CHECKING:
    from engine.rest.buildkit.service import Service


class BuildkitRoutes:
    """`close` takes away the folders that are kept for clients."""

    def __init__(self, engine: Engine, scratch: Path | None = None) -> None:
        self._engine, self._scratch = engine, scratch
        self._service: Service | None = None

    def add_to(self, router: Router) -> None:
        router.add("POST", "/grpc", self.grpc, keep=False)
        router.add("POST", "/session", self.session, keep=False)

    async def build(self, request: Request) -> Answer:
        """`POST /build?version=2`, for clients without buildx."""
        from engine.rest.buildkit.classic import upload_of

        upload = upload_of(request.query)
        if upload:
            await self.service.classic.upload(upload, request.body)
            return Response(200)
        return Response(200, json_lines(self.service.classic.lines(request)))

    @property
    def service(self) -> Service:
        if self._service is None:
            from engine.rest.buildkit.service import Service

            self._service = Service(self._engine, self._scratch)
        return self._service

    async def grpc(self, request: Request) -> Answer:
        _check(request)
        return Hijack(self.service.answer, upgrade="h2c")

    async def session(self, request: Request) -> Answer:
        _check(request)
        identity = request.headers.get("x-docker-expose-session-uuid", "")
        if not identity:
            raise InvalidInput("X-Docker-Expose-Session-Uuid is missing")
        shared = request.headers.get("x-docker-expose-session-sharedkey", "")

        async def attend(duplex: Duplex) -> None:
            await self.service.sessions.attend(identity, shared, duplex)

        return Hijack(attend, upgrade="h2c")

    def close(self) -> None:
        if self._service is not None:
            self._service.close()


def _check(request: Request) -> None:
    if request.headers.get("upgrade", "").lower() != "h2c":
        raise InvalidInput(f"{request.path} needs a connection that can be upgraded to h2c")
