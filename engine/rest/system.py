"""`/_ping`, `/version`, `/info`, `/events`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
from collections.abc import AsyncIterator

from engine.api import Engine
from engine.errors import InvalidInput
from engine.rest.about import API_VERSION, MIN_VERSION, info_document, machine_name
from engine.rest.event_hub import EventHub
from engine.rest.http import Answer, Request, Response, json_response
from engine.rest.router import Router
from engine.service.event_filters import check_filters, event_document, matches


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


class SystemRoutes:
    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine, self._hub = engine, EventHub(engine)
        router.add("GET", "/_ping", self.ping)
        router.add("GET", "/version", self.version)
        router.add("GET", "/info", self.info)
        router.add("GET", "/events", self.events)

    async def ping(self, request: Request) -> Answer:
        headers = {
            "Api-Version": dotted(API_VERSION),
            "Builder-Version": "2",  # docker 18.09 to 20.10 then asks for BuildKit (`engine.rest.buildkit.classic`)
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": "container-workbench (linux)",
            "Swarm": "inactive",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
        }
        return Response(200, b"OK", "text/plain; charset=utf-8", headers)

    async def version(self, request: Request) -> Answer:
        info = await self._engine.info()
        kernel, machine = platform.release(), machine_name()
        details = {
            "ApiVersion": dotted(API_VERSION),
            "Arch": machine,
            "Experimental": "false",
            "KernelVersion": kernel,
            "MinAPIVersion": dotted(MIN_VERSION),
            "Os": "linux",
        }
        return json_response(
            {
                "Platform": {"Name": "container-workbench"},
                "Components": [{"Name": "Engine", "Version": info.version, "Details": details}],
                "Version": info.version,
                "ApiVersion": dotted(API_VERSION),
                "MinAPIVersion": dotted(MIN_VERSION),
                "GitCommit": "",
                "GoVersion": "",
                "Os": "linux",
                "Arch": machine,
                "KernelVersion": kernel,
                "BuildTime": "",
            }
        )

    async def info(self, request: Request) -> Answer:
        own = {
            "NEventsListener": self._hub.listeners,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
        }
        return json_response(info_document(await self._engine.info()) | own)

    async def events(self, request: Request) -> Answer:
        filters = request.query.filters()
        check_filters(filters)
        since, until = _moment(request.query.text("since")), _moment(request.query.text("until"))
        if since is not None and until is not None and since > until:
            raise InvalidInput(
                f"`since` time ({request.query.text('since')}) cannot be after `until` time ({request.query.text('until')})"
            )
        return Response(200, self._events(filters, since, until))

    async def _events(
        self, filters: dict[str, list[str]], since: int | None, until: int | None
    ) -> AsyncIterator[bytes]:
        yield b""
        async with contextlib.aclosing(self._hub.follow(since, until)) as events:
            async for event in events:
                if matches(event, filters):
                    yield json.dumps(event_document(event)).encode() + b"\n"


def _moment(text: str) -> int | None:
    """Nanoseconds of `1763900000` or `1763900000.123456789`, which is how the client sends every time."""
    if not text:
        return None
    seconds, _, fraction = text.partition(".")
    try:
        return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
    except ValueError:
        raise InvalidInput(
            f"{text!r} is not a time", hint="seconds since the epoch, with a fraction if need be"
        ) from None
