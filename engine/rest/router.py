"""From a method and a path to a handler: the API's table of contents, versions and errors for what is not in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.errors import EngineError, InvalidInput, NotFound, from_os_error
from engine.rest.about import API_VERSION, MIN_VERSION
from engine.rest.http import Answer, Request, Response, error_response

_VERSION = re.compile(r"^/v(\d{1,3})\.(\d{1,3})(?=/)")
_log = logging.getLogger("workbench.rest")

Endpoint = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """`keep`: the work goes on when the client leaves (a stop is a stop); otherwise it is cancelled with it."""

    method: str
    pattern: re.Pattern[str]
    endpoint: Endpoint
    keep: bool


def _compile(path: str) -> re.Pattern[str]:
    """`{name}` is one part; `{name*}` may hold slashes, as image names do."""
    parts = re.split(r"(\{\w+\*?\})", path)
    text = "".join(
        f"(?P<{part.strip('{}*')}>{'.+' if part.endswith('*}') else '[^/]+'})"
        if part.startswith("{")
        else re.escape(part)
        for part in parts
    )
    return re.compile(f"{text}/?")


class Router:
    """Routes are tried in the order in which they were added, within their first path part."""

    def __init__(self) -> None:
        self._routes: dict[str, list[Route]] = {}

    def add(self, method: str, path: str, endpoint: Endpoint, *, keep: bool | None = None) -> None:
        """GET and HEAD end with their client, the others do not, unless `keep` says otherwise."""
        first = path.split("/")[1]
        kept = method not in ("GET", "HEAD") if keep is None else keep
        self._routes.setdefault(first, []).append(Route(method, _compile(path), endpoint, kept))

    async def __call__(self, request: Request) -> Answer:
        """Answers every request; what goes wrong is an error document with Docker's status."""
        if request.method == "OPTIONS":
            return Response(200, b"", "text/plain; charset=utf-8")  # as Docker; no page learns that it may ask more
        try:
            route = self._find(request)
            request.keep = route.keep
            return await route.endpoint(request)
        except EngineError as error:
            return error_response(error)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return error_response(from_os_error(error, f"{request.method} {request.path}"))
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            return error_response(EngineError(f"internal error: {type(error).__name__}: {error}"))

    def _find(self, request: Request) -> Route:
        request.version = API_VERSION
        if match := _VERSION.match(request.path):
            request.version = (int(match[1]), int(match[2]))
            request.path = request.path[match.end() :]
            self._check(request.version)
        routes = self._routes.get(request.path.split("/")[1] if "/" in request.path else "", [])
        for route in routes:
            match = route.pattern.fullmatch(request.path)
            if match is None:
                continue
            if route.method == request.method or (request.method == "HEAD" and route.method == "GET"):
                request.params = match.groupdict()
                return route
        raise NotFound("page not found")  # also for another method, as in Docker

    def _check(self, version: tuple[int, int]) -> None:
        given = f"{version[0]}.{version[1]}"
        if version > API_VERSION:
            raise InvalidInput(
                f"client version {given} is too new. Maximum supported API version is {API_VERSION[0]}.{API_VERSION[1]}"
            )
        if version < MIN_VERSION:
            raise InvalidInput(
                f"client version {given} is too old. Minimum supported API version is {MIN_VERSION[0]}.{MIN_VERSION[1]}, "
                "please upgrade your client to a newer version"
            )
