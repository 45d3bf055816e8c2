"""HTTP to an engine: requests with httpx over any wire, streams of JSON, and connections that become raw streams."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any

import h11
import httpcore
import httpx

from engine.errors import EngineError, Unauthorized, Unavailable, Unsupported
from engine.remote.errors import refused
from engine.remote.hosts import Target
from engine.remote.wires import CHUNK, Wire, dial

NEWEST = (1, 51)  # of the API that this client has been written for
OLDEST = (1, 24)
_KEEP = 60.0  # seconds that a connection without a request is kept
_AGENT = "container-workbench"
Params = Mapping[str, "str | int | bool | Iterable[str]"]


class _Stream(httpcore.AsyncNetworkStream):
    """A wire as httpcore wants it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._wire.read(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no answer") from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._wire.write(buffer)
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._wire.close()

    def get_extra_info(self, info: str) -> Any:
        return self._wire.ended if info == "is_readable" else None


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, target: Target) -> None:
        self._target = target

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await dial(self._target))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Body(httpx.AsyncByteStream):
    def __init__(self, parts: Any) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        await self._parts.aclose()


class _Transport(httpx.AsyncBaseTransport):
    """Every request goes over a wire to the one engine, whatever its URL says; wires are kept and used again."""

    def __init__(self, target: Target) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=None,
            max_keepalive_connections=8,
            keepalive_expiry=_KEEP,
            network_backend=_Backend(target),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = await self._pool.handle_async_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream)
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer.stream))

    async def aclose(self) -> None:
        await self._pool.aclose()


class Client:
    """One engine's API. Everything raises `EngineError`; `Unavailable` when the engine cannot be reached or breaks off."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.version: tuple[int, int] = NEWEST
        # What its Server header says: "Docker/20.10 (linux)", "Libpod/4.3", "container-workbench (linux)".
        self.server = ""
        self._host = target.host if target.kind == "tcp" else "engine"
        self._http = httpx.AsyncClient(transport=_Transport(target), timeout=None, trust_env=False)
        self._negotiated = False
        self._negotiating = asyncio.Lock()

    async def close(self) -> None:
        await self._http.aclose()

    @property
    def is_workbench(self) -> bool:
        """Whether another workbench answers: known once a version has been agreed on."""
        return "workbench" in self.server.lower()

    # --- versions ---------------------------------------------------------------------------------------

    async def negotiate(self) -> None:
        """The newest version that both sides speak (moby client: NegotiateAPIVersion)."""
        async with self._negotiating:
            if self._negotiated:
                return
            answer = await self._send("GET", "/_ping")
            await answer.aread()
            await answer.aclose()
            if answer.status_code >= 400:
                raise refused(answer.status_code, answer.content, "GET /_ping")
            self.server = answer.headers.get("server", "")
            text = answer.headers.get("api-version") or "1.24"
            major, _, minor = text.partition(".")
            if not (major.isdigit() and minor.isdigit()):
                raise Unavailable(f"what answers at {self.target} is no container engine")
            theirs = (int(major), int(minor))
            if theirs < OLDEST:
                raise Unsupported(
                    f"the engine at {self.target} speaks version {text} of Docker's API; 1.24 is the oldest here"
                )
            self.version = min(theirs, NEWEST)
            self._negotiated = True

    def needs(self, version: tuple[int, int], what: str) -> None:
        """Raises `Unsupported` for what an older engine does not know."""
        if self.version < version:
            raise Unsupported(
                f"{what} needs version {version[0]}.{version[1]} of Docker's API",
                hint=f"the engine at {self.target} speaks {self.version[0]}.{self.version[1]}",
            )

    # --- requests ---------------------------------------------------------------------------------------

    async def get(self, path: str, params: Params | None = None) -> Any:
        return await self.json("GET", path, params)

    async def post(self, path: str, params: Params | None = None, body: object = None) -> Any:
        return await self.json("POST", path, params, body)

    async def json(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON; None for an empty one."""
        async with self.answer(method, path, params, body=body, headers=headers) as answer:
            raw = await answer.aread()
        if not raw.strip() or answer.status_code == 304:
            return None
        try:
            return json.loads(raw)
        except ValueError:
            return None if "json" not in answer.headers.get("content-type", "") else _no_json(self.target, path)

    @contextlib.asynccontextmanager
    async def answer(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        body: object = None,
        content: AsyncIterator[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[httpx.Response, None]:
        """An answer whose body is still to be read."""
        await self.negotiate()
        target = self.path(path, params)
        sent = dict(headers or {})
        if content is None and (body is not None or method == "POST"):
            content, sent["content-type"] = json.dumps(body if body is not None else {}).encode(), "application/json"
        answer = await self._send(method, target, sent, content)
        try:
            if answer.status_code >= 400:
                raise refused(answer.status_code, await answer.aread(), f"{method} {path}")
            yield answer
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise self._broken(error) from error
        finally:
            await answer.aclose()

    async def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterator[bytes] | bytes | None = None,
    ) -> httpx.Response:
        request = self._http.build_request(
            method,
            f"http://{f'[{self._host}]' if ':' in self._host else self._host}{target}",
            headers={"user-agent": _AGENT, "accept-encoding": "identity", **(headers or {})},
            content=content,
        )
        try:
            return await self._http.send(request, stream=True)
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> EngineError:
        if "[SSL:" in str(error):  # TLS 1.3 tells a client of a refusal at its first read
            return Unauthorized(
                f"the engine at {self.target} refuses this client's certificate, or its lack of one: {error}",
                hint="--tlscert and --tlskey name one that the CA of its --tlscacert has signed",
            )
        return Unavailable(
            f"the engine at {self.target} broke off: {error or type(error).__name__}", hint="is it still running?"
        )

    def path(self, path: str, params: Params | None = None) -> str:
        """With the version, and the query; False, 0, "" and () are not sent."""
        pairs: list[tuple[str, str | int | float | bool | None]] = []
        for key, value in (params or {}).items():
            if isinstance(value, bool):
                pairs += [(key, "1")] if value else []
            elif isinstance(value, str | int):
                pairs += [(key, str(value))] if value != "" else []
            else:
                pairs += [(key, item) for item in value]
        query = str(httpx.QueryParams(pairs))
        return f"/v{self.version[0]}.{self.version[1]}{path}{'?' + query if query else ''}"

    async def lines(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """A stream of JSON objects, as they come."""
        async with self.answer(method, path, params, content=content, headers=headers) as answer:
            async for document in objects(answer.aiter_raw()):
                yield document

    # --- raw streams ------------------------------------------------------------------------------------

    async def hijack(self, path: str, params: Params | None = None, body: object = None) -> tuple[Wire, bytes, str]:
        """A connection of its own that becomes a raw stream: the wire, what came behind the answer's head, its content type."""
        await self.negotiate()
        wire = await dial(self.target)
        try:
            return await self._upgrade(wire, self.path(path, params), body)
        except OSError as error:
            await wire.close()
            raise self._broken(error) from error
        except BaseException:
            await wire.close()
            raise

    async def _upgrade(self, wire: Wire, target: str, body: object) -> tuple[Wire, bytes, str]:
        data = json.dumps(body).encode() if body is not None else b""
        http = h11.Connection(h11.CLIENT)
        fields = {
            "Host": self._host,
            "User-Agent": _AGENT,
            "Connection": "Upgrade",
            "Upgrade": "tcp",
            "Content-Type": "application/json" if data else "text/plain",
            "Content-Length": str(len(data)),
        }
        begin = http.send(h11.Request(method="POST", target=target, headers=list(fields.items()))) or b""
        end = http.send(h11.EndOfMessage()) if not data else b""
        sent = begin + (
            (http.send(h11.Data(data=data)) or b"") + (http.send(h11.EndOfMessage()) or b"") if data else end or b""
        )
        await wire.write(sent)
        answer: h11.Response | h11.InformationalResponse | None = None
        rest = bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                got = await wire.read()
                if not got and answer is None:
                    raise ConnectionResetError("it closed the connection")
                http.receive_data(got)
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    answer = event
                    break
            elif isinstance(event, h11.Response):
                answer = event
                if event.status_code == 200:  # engines from before the upgrade: what follows is the stream
                    break
            elif isinstance(event, h11.Data):
                rest += event.data
            else:
                break
        assert answer is not None
        if answer.status_code not in (101, 200):
            raise refused(answer.status_code, bytes(rest), f"POST {target}")
        kind = dict(answer.headers).get(b"content-type", b"").decode("latin-1")
        return wire, bytes(http.trailing_data[0]), kind


def _no_json(target: Target, path: str) -> Any:
    raise Unavailable(f"the engine at {target} answers {path} with what is no JSON")


async def objects(parts: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """JSON objects out of bytes, with line ends between them or without (older daemons)."""
    decoder = json.JSONDecoder()
    rest = b""
    async for part in parts:
        rest += part
        while True:
            rest = rest.lstrip()
            if not rest:
                break
            line, newline, behind = rest.partition(b"\n")
            try:
                document = json.loads(line)
                rest = behind if newline else b""
            except ValueError:
                try:  # not at its end yet, or several in a row
                    document, used = decoder.raw_decode(rest.decode("utf-8"))
                    rest = rest.decode("utf-8")[used:].encode()
                except ValueError:
                    break
            if isinstance(document, dict):
                yield document


def registry_auth(document: Mapping[str, object]) -> str:
    """X-Registry-Auth and X-Registry-Config: JSON in URL-safe base64 with its padding (Engine API, "Authentication")."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


__all__ = ["CHUNK", "Client", "Wire", "objects", "registry_auth"]
