"""What handlers of the API see: requests, responses, and the raw stream that attach and exec turn a connection into.

`engine.rest.connection` speaks HTTP/1.1 with the client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.errors import EngineError, InvalidInput
from engine.rest import failures
from engine.rest.duplex import Duplex

MAX_JSON = 4 << 20  # bytes of a JSON body
_FALSE = ("", "0", "no", "false", "none")  # moby daemon/server/httputils: everything else is true


class TooLarge(EngineError):
    code = "too-large"
    status = 413


@dataclass(frozen=True, slots=True)
class Query:
    """The query string: names may come several times."""

    values: Mapping[str, Sequence[str]]

    def text(self, name: str, default: str = "") -> str:
        found = self.values.get(name)
        return found[0] if found else default

    def given(self, name: str) -> bool:
        return name in self.values

    def all(self, name: str) -> list[str]:
        return list(self.values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        found = self.values.get(name)
        return found[0].strip().lower() not in _FALSE if found else default

    def number(self, name: str, default: int | None = None) -> int | None:
        """Raises `InvalidInput` for a value that is no number; an empty one is the default."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise InvalidInput(f"parameter {name}: {text!r} is not a number") from None

    def document(self, name: str) -> Any:
        """A parameter that holds JSON (`filters`, `buildargs`); None when it is missing or empty."""
        text = self.text(name)
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidInput(f"parameter {name} is not valid JSON") from None

    def filters(self) -> dict[str, list[str]]:
        """`filters` in both of its forms: `{"name": ["x"]}` and the old `{"name": {"x": true}}`."""
        document = self.document("filters")
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise InvalidInput("invalid filter: a JSON object is needed")
        result: dict[str, list[str]] = {}
        for key, value in document.items():
            if isinstance(value, dict):
                value = [name for name, wanted in value.items() if wanted]
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise InvalidInput(f"invalid filter {key!r}: a list of strings is needed")
            result[key] = value
        return result


class Body(Protocol):
    """A request's body as it arrives."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(slots=True)
class Request:
    """`path` has no version prefix; `params` are the parts that the route names. `keep`: the work is finished even when the client
    leaves (a stop is a stop); otherwise it is cancelled with it."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: Body
    version: tuple[int, int]
    params: dict[str, str] = field(default_factory=dict)
    keep: bool = False

    async def read(self, limit: int = MAX_JSON) -> bytes:
        """The whole body. Raises `TooLarge`."""
        parts, size = [], 0
        async for chunk in self.body:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the request body is larger than {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object. Raises `InvalidInput`, `TooLarge`."""
        raw = await self.read()
        if not raw.strip():
            return {}
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        # A browser sends other types without asking (CORS "simple requests"); Docker refuses them too.
        if kind not in ("application/json", ""):
            raise InvalidInput(f"unsupported Content-Type header ({kind}): must be 'application/json'")
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"invalid JSON: {error}") from None
        if document is None:  # Go's clients send a missing object so
            return {}
        if not isinstance(document, dict):
            raise InvalidInput("invalid JSON: an object is needed")
        return document


@dataclass(slots=True)
class Response:
    """A whole answer. `body` bytes go with Content-Length, an iterator in chunks as they come."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Hijack:
    """Turns the connection into a raw stream that `run` owns until it returns."""

    run: Callable[[Duplex], Awaitable[None]]
    content_type: str = "application/vnd.docker.raw-stream"
    upgrade: str = "tcp"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Response | Hijack
Handler = Callable[[Request], Awaitable[Answer]]


_encode = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` with an argument makes an encoder for each call


def encoded(document: object) -> bytes:
    return _encode(document).encode()


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, encoded(document) + b"\n", headers=headers or {})


def error_response(error: EngineError, status: int | None = None) -> Response:
    # Exactly "application/json", without a charset: the docker client prints the raw body otherwise.
    return json_response(failures.document(error), status or error.status)
