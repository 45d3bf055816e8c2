"""HTTP/1.1 for one connection: requests in, responses out, and the raw stream that attach and exec turn it into.

h11 parses and frames (RFC 9112); this module adds what Docker's clients need and no ASGI server gives: a hijacked
connection with half-close, bodies of any size both ways in constant memory, and a handler that is cancelled when its client goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import h11

from engine.errors import EngineError, InvalidInput, from_os_error
from engine.rest.duplex import Duplex

MAX_HEAD = 64 << 10  # bytes of request line and headers; dockerd takes 1 MiB, no client of it comes near this
MAX_JSON = 4 << 20  # bytes of a JSON body
HEAD_SECONDS = 10.0  # a client that has begun a request must have sent its head by then (slow loris)
IDLE_SECONDS = 600.0  # a connection kept open without a request
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 << 20
CHUNK = 256 << 10
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
    """`path` has no version prefix; `params` are the parts that the route names."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: Body
    version: tuple[int, int]
    params: dict[str, str] = field(default_factory=dict)

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


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(document, ensure_ascii=False).encode() + b"\n", headers=headers or {})


def error_response(error: EngineError, status: int | None = None) -> Response:
    # Exactly "application/json", without a charset: the docker client prints the raw body otherwise.
    text = str(error) + (f"\n{error.hint}" if error.hint else "")
    return json_response({"message": text}, status or error.status)


class _Body:
    """Reads the body's events off the connection; asks for it (100-continue) when it is first read."""

    def __init__(self, connection: Connection, *, empty: bool = False) -> None:
        self._connection = connection
        self.ended = asyncio.Event()
        if empty:
            self.ended.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.ended.is_set():
            try:
                event = await self._connection.next_event()
            except h11.RemoteProtocolError as error:
                raise InvalidInput(f"the request body is malformed: {error}") from None
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.ended.set()
            else:
                raise InvalidInput("the request body broke off")


class Connection:
    """One client. `serve` answers its requests until it leaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self._reader, self._writer, self._handle = reader, writer, handle
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._hijacked = False

    async def serve(self) -> None:
        try:
            while await self._one():
                self._http.start_next_cycle()
            await self._linger()
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass
        finally:
            self._writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await self._writer.wait_closed()

    async def _linger(self) -> None:
        """Reads on for a moment before closing: the kernel resets a connection with unread bytes, and the client would
        lose the answer (RFC 9112 section 9.6)."""
        if self._hijacked or not self._writer.can_write_eof():
            return
        self._writer.write_eof()
        left = LINGER_BYTES
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0 and (data := await self._reader.read(CHUNK)):
                left -= len(data)

    async def next_event(self) -> Any:
        """The next h11 event. Raises h11.RemoteProtocolError for what is no HTTP."""
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            self._http.receive_data(await self._reader.read(CHUNK))

    async def _head(self) -> Any:
        """The next request's head: long patience for its first byte, little for the rest."""
        event = self._http.next_event()
        if event is not h11.NEED_DATA:
            return event
        if not self._http.trailing_data[0]:
            async with asyncio.timeout(IDLE_SECONDS):  # not wait_for: that is a task for each request
                self._http.receive_data(await self._reader.read(CHUNK))
        async with asyncio.timeout(HEAD_SECONDS):
            return await self.next_event()

    async def _one(self) -> bool:
        """One request and its answer; false when the connection is at its end."""
        try:
            event = await self._head()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return False
        if not isinstance(event, h11.Request):
            return False
        body = _Body(self)
        if not _has_body(event) and isinstance(self._http.next_event(), h11.EndOfMessage):
            body.ended.set()
        try:
            answer = await self._answer(event, body)
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return False
        if isinstance(answer, Hijack):
            if not await self._dropped(body):  # it would be the first thing that the program reads
                return False
            await self._hijack(answer, event)
            return False
        await self._respond(answer, head=event.method == b"HEAD", body=body)
        return await self._settle(body)

    async def _answer(self, event: h11.Request, body: _Body) -> Answer:
        try:
            request = _request(event, body)
            return await self._watched(request, body)
        except EngineError as error:
            return error_response(error)
        except OSError as error:
            return error_response(from_os_error(error, f"{event.method.decode()} {event.target.decode('latin-1')}"))

    async def _watched(self, request: Request, body: _Body) -> Answer:
        """Runs the handler; cancels it when the client closes the connection meanwhile (as Go's request context)."""
        handler = asyncio.ensure_future(self._handle(request))
        gone = asyncio.ensure_future(self._gone(body))
        try:
            await asyncio.wait((handler, gone), return_when=asyncio.FIRST_COMPLETED)
            if not handler.done():
                handler.cancel()
                await asyncio.gather(handler, return_exceptions=True)
                raise ConnectionResetError("the client went away")
            return handler.result()
        finally:
            handler.cancel()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _gone(self, body: _Body) -> None:
        """Returns when the client has closed. Only looks once the body has been read: its bytes are the handler's."""
        await body.ended.wait()
        data = await self._reader.read(CHUNK)
        while data:  # the next request, or the first bytes of a stream that is about to be hijacked
            self._http.receive_data(data)
            if len(self._http.trailing_data[0]) > MAX_HEAD:
                await asyncio.Event().wait()  # reads no more until the answer is out (the task is cancelled then)
            data = await self._reader.read(CHUNK)
        if self._http.trailing_data[0]:  # it has said all it will, and waits for the answers
            await asyncio.Event().wait()

    async def _send(self, *events: Any) -> None:
        """In one write: a client that reads the head then has the body as well."""
        data = b"".join(self._http.send(event) or b"" for event in events)
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def _respond(self, answer: Response, *, head: bool, body: _Body | None = None) -> None:
        headers = {"Content-Type": answer.content_type, **answer.headers}
        if answer.status in (204, 304):
            headers.pop("Content-Type")
        elif isinstance(answer.body, bytes):
            headers["Content-Length"] = str(len(answer.body))
        elif not head:
            headers["Transfer-Encoding"] = "chunked"
        fields = [(name.encode(), _field(value)) for name, value in headers.items()]
        begin = h11.Response(status_code=answer.status, headers=fields)
        if isinstance(answer.body, bytes):
            whole = answer.body and not head and answer.status not in (204, 304)
            await self._send(begin, *([h11.Data(data=answer.body)] if whole else []), h11.EndOfMessage())
            return
        await self._send(begin)
        await self._stream(answer.body, body or _Body(self, empty=True), head=head)
        await self._send(h11.EndOfMessage())

    async def _stream(self, body: AsyncIterator[bytes], request: _Body, *, head: bool) -> None:
        """`request` may still be read while the answer is on its way (`docker load`): nobody else looks before its end."""
        gone = asyncio.ensure_future(self._gone(request))
        sending = asyncio.ensure_future(self._pump(body, head=head))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ConnectionResetError("the client went away")
            sending.result()
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def _pump(self, body: AsyncIterator[bytes], *, head: bool) -> None:
        if head:
            return
        async for chunk in body:
            if chunk:
                await self._send(h11.Data(data=chunk))

    async def _settle(self, body: _Body) -> bool:
        """An unread body is dropped, if it is small; then the connection may be used again."""
        if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is h11.MUST_CLOSE:
            return False
        if not await self._dropped(body):
            return False
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _dropped(self, body: _Body) -> bool:
        """Reads what is left of a small body."""
        if not body.ended.is_set():
            left = CHUNK
            with contextlib.suppress(h11.RemoteProtocolError, InvalidInput):
                async for chunk in body:
                    left -= len(chunk)
                    if left < 0:
                        return False
        return True

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = error.error_status_hint
            with contextlib.suppress(h11.LocalProtocolError, ConnectionError):
                await self._respond(json_response({"message": f"bad request: {error}"}, status), head=False)

    async def _hijack(self, answer: Hijack, event: h11.Request) -> None:
        self._hijacked = True
        headers = dict(event.headers)
        early = self._http.trailing_data[0]
        lines = [f"{name}: {value}" for name, value in answer.headers.items()]
        if b"upgrade" in headers:
            head = ["HTTP/1.1 101 UPGRADED", "Connection: Upgrade", f"Upgrade: {answer.upgrade}"]
        else:  # clients from before API 1.22 do not ask
            head = ["HTTP/1.1 200 OK"]
        if answer.upgrade == "tcp":
            head.append(f"Content-Type: {answer.content_type}")
        self._writer.write("\r\n".join([*head, *lines, "", ""]).encode("latin-1"))
        await self._writer.drain()
        duplex = Duplex(self._reader, self._writer, bytes(early))
        await answer.run(duplex)
        duplex.finish()


def _field(value: str) -> bytes:
    """A header's value; what would break the head (CR, LF, NUL) or is not Latin-1 is replaced."""
    return "".join(c if c.isprintable() else "?" for c in value).encode("latin-1", "replace")


def _has_body(event: h11.Request) -> bool:
    headers = dict(event.headers)
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _request(event: h11.Request, body: Body) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
    if "transfer-encoding" in headers and "content-length" in headers:
        raise InvalidInput("both Content-Length and Transfer-Encoding")  # RFC 9112 section 6.3: smuggling
    target = event.target.decode("latin-1")
    parts = urlsplit(target if target.startswith("/") else f"/{target}")
    path = unquote(parts.path)
    if "\0" in path or "\n" in path or "\r" in path:
        raise InvalidInput("the path holds a control character")
    values = parse_qs(parts.query, keep_blank_values=True, max_num_fields=1000)
    return Request(event.method.decode("ascii"), path, Query(values), headers, body, (0, 0))
