"""HTTP/1.1 for one client: requests in, responses out, and the hijacked stream that attach and exec turn a connection into.

What nearly every request looks like (a short head, a short body or none) is read here in one piece (`head`); the rest (chunks, large
bodies, 100-continue, HTTP/1.0, what is malformed) h11 reads (RFC 9112). No server for an application interface gives what
Docker's clients need: half-close on a hijacked connection, bodies of any size both ways in constant memory, and a handler that is
cancelled when its client goes.

A connection is one task, and a request none of its own: the reader tells when the client has left, and the task is cancelled then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import h11

from engine.errors import EngineError, InvalidInput, from_os_error
from engine.rest import head
from engine.rest.duplex import CHUNK, Duplex
from engine.rest.http import Answer, Body, Handler, Hijack, Request, Response, error_response, json_response

HEAD_SECONDS = 10.0  # a client that has begun a request must have sent its head by then (slow loris)
IDLE_SECONDS = 600.0  # a connection kept open without a request
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 << 20
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Reader(asyncio.StreamReader):
    """Tells at once when the client will send no more, whether or not somebody reads."""

    left: Callable[[], object] | None = None

    def feed_eof(self) -> None:
        super().feed_eof()
        if self.left is not None:
            self.left()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        if self.left is not None:
            self.left()


def protocol(connected: Callable[[Reader, asyncio.StreamWriter], Awaitable[None]]) -> asyncio.StreamReaderProtocol:
    """For `create_server`: a new connection, which `connected` serves."""
    return asyncio.StreamReaderProtocol(Reader(limit=CHUNK), connected)  # type: ignore[arg-type]


class _Whole:
    """A body that has come with its head."""

    ended = True

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        data, self._data = self._data, b""
        if data:
            yield data


class _Streamed:
    """A body that is still on its way; asks for it (100-continue) when it is first read."""

    def __init__(self, connection: Connection, http: h11.Connection) -> None:
        self._connection, self._http = connection, http
        self.ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.ended:
            try:
                event = await self._connection.next_event(self._http)
            except h11.RemoteProtocolError as error:
                raise InvalidInput(f"the request body is malformed: {error}") from None
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.ended = True
                self._connection.body_ended()
            else:
                raise InvalidInput("the request body broke off")


class Connection:
    """One client. `serve` answers its requests until it leaves."""

    def __init__(self, reader: Reader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self._reader, self._writer, self._handle = reader, writer, handle
        self._early = bytearray()  # read, and part of no request yet
        self._last = False  # no request is read after this one
        self._request: Request | None = None  # whose answer is made or sent
        self._body: _Whole | _Streamed = _Whole(b"")
        self._gone = False
        self._hijacked = False

    async def serve(self) -> None:
        self._task = asyncio.current_task()
        self._reader.left = self._left
        try:
            while await self._one():
                pass
            await self._linger()
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            self._reader.left = None
            self._writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await self._writer.wait_closed()

    # --- the client leaves -------------------------------------------------------------------------------

    def _left(self) -> None:
        """The client has closed: what runs for it alone ends (as Go's request context). Not while a body is read, which sees it
        by itself, nor when it has said all it will, in further requests, and waits for the answers."""
        request = self._request
        if request is None or request.keep or self._gone or not self._body.ended or self._early:
            return
        if (self._reader.at_eof() or self._reader.exception() is not None) and self._task is not None:
            self._gone = True
            self._task.cancel()

    def body_ended(self) -> None:
        """A body was read to its end; behind it may be that of the stream."""
        if self._reader.at_eof():
            self._soon()

    def _soon(self) -> None:
        """A handler that waits for nothing may still answer: a client can half-close and read on."""
        asyncio.get_running_loop().call_soon(self._left)

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

    # --- a request ---------------------------------------------------------------------------------------

    async def _one(self) -> bool:
        """One request and its answer; false when the connection is at its end."""
        if not self._early:
            async with asyncio.timeout(IDLE_SECONDS):  # not wait_for: that is a task for each request
                data = await self._reader.read(CHUNK)
            if not data:
                return False
            self._early += data
        simple = head.parse(self._early)
        if simple is not None and len(self._early) < simple.size:
            async with asyncio.timeout(HEAD_SECONDS):
                while len(self._early) < simple.size and (data := await self._reader.read(CHUNK)):
                    self._early += data
            if len(self._early) < simple.size:
                return False  # it broke off
        if simple is None:
            return await self._any()
        self._body = _Whole(bytes(self._early[simple.length : simple.size]))
        del self._early[: simple.size]
        self._last = simple.last
        answer = await self._answer(simple.request, self._body)
        if isinstance(answer, Hijack):
            await self._hijack(answer, upgrade="upgrade" in simple.headers)
            return False
        await self._respond(answer, head=simple.method == "HEAD")
        return not self._last

    async def _any(self) -> bool:
        """The same for whatever HTTP allows."""
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=head.MAX_BYTES)
        http.receive_data(bytes(self._early))
        self._early.clear()
        self._last = True
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                event = await self.next_event(http)
        except h11.RemoteProtocolError as error:
            return await self._refuse(error)
        if not isinstance(event, h11.Request):
            return False
        body = _Streamed(self, http)
        self._body = body
        try:
            if not head.has_body(event) and isinstance(http.next_event(), h11.EndOfMessage):
                body.ended = True
            answer = await self._answer(lambda given: head.request(event, given), body)
        except h11.RemoteProtocolError as error:
            return await self._refuse(error)
        if isinstance(answer, Hijack):
            if not await self._settle(body, http):  # it would be the first thing that the program reads
                return False
            await self._hijack(answer, upgrade=any(name == b"upgrade" for name, _ in event.headers))
            return False
        old = event.http_version == b"1.0"
        self._last = old or head.closes(event)
        await self._respond(answer, head=event.method == b"HEAD", chunks=not old)
        return not self._last and await self._settle(body, http)

    async def next_event(self, http: h11.Connection) -> Any:
        """The next h11 event. Raises h11.RemoteProtocolError for what is no HTTP."""
        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if http.they_are_waiting_for_100_continue:
                http.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                await self._write(_CONTINUE)
            http.receive_data(await self._reader.read(CHUNK))

    async def _settle(self, body: _Streamed, http: h11.Connection) -> bool:
        """An unread body is dropped, if it is small; then the connection may be used again."""
        left = CHUNK
        with contextlib.suppress(h11.RemoteProtocolError, InvalidInput):
            async for chunk in body:
                left -= len(chunk)
                if left < 0:
                    return False
        self._early += http.trailing_data[0]
        return body.ended

    async def _refuse(self, error: h11.RemoteProtocolError) -> bool:
        self._last = True
        with contextlib.suppress(ConnectionError):
            await self._respond(
                json_response({"message": f"bad request: {error}"}, error.error_status_hint), head=False
            )
        return False

    async def _answer(self, make: Callable[[Body], Request], body: _Whole | _Streamed) -> Answer:
        request = None
        try:
            request = self._request = make(body)
            if self._reader.at_eof():
                self._soon()
            return await self._handle(request)
        except EngineError as error:
            return error_response(error)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            what = f"{request.method} {request.path}" if request else "the request"
            return error_response(from_os_error(error, what))
        finally:
            self._request = None

    # --- an answer ---------------------------------------------------------------------------------------

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _respond(self, answer: Response, *, head: bool, chunks: bool = True) -> None:
        whole, bare = isinstance(answer.body, bytes), answer.status in (204, 304)
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}"]
        if not bare:
            lines.append(f"Content-Type: {_field(answer.content_type)}")
        lines += [f"{name}: {_field(value)}" for name, value in answer.headers.items()]
        if not bare and isinstance(answer.body, bytes):
            lines.append(f"Content-Length: {len(answer.body)}")
        elif not bare and not head and chunks:
            lines.append("Transfer-Encoding: chunked")
        elif not (bare or head or whole):
            self._last = True  # its end is the body's
        if self._last:
            lines.append("Connection: close")
        begin = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if isinstance(answer.body, bytes):  # in one write: a client that reads the head then has the body as well
            await self._write(begin if head or bare else begin + answer.body)
            return
        await self._write(begin)
        await self._stream(answer.body, head=head, chunks=chunks)

    async def _stream(self, body: AsyncIterator[bytes], *, head: bool, chunks: bool) -> None:
        """The request may still be read while the answer is on its way (`docker load`)."""
        self._request = _ANSWERED
        try:
            if self._reader.at_eof() and self._body.ended:
                self._soon()
            if not head:
                async for chunk in body:
                    if chunk:
                        await self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunks else chunk)
                if chunks:
                    await self._write(b"0\r\n\r\n")
        finally:
            self._request = None
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def _hijack(self, answer: Hijack, *, upgrade: bool) -> None:
        self._hijacked = True
        lines = [f"{name}: {value}" for name, value in answer.headers.items()]
        if upgrade:
            begin = ["HTTP/1.1 101 UPGRADED", "Connection: Upgrade", f"Upgrade: {answer.upgrade}"]
        else:  # clients from before API 1.22 do not ask
            begin = ["HTTP/1.1 200 OK"]
        if answer.upgrade == "tcp":
            begin.append(f"Content-Type: {answer.content_type}")
        await self._write("\r\n".join([*begin, *lines, "", ""]).encode("latin-1"))
        duplex = Duplex(self._reader, self._writer, bytes(self._early))
        await answer.run(duplex)
        duplex.finish()


_ANSWERED = Request("", "", head.query(""), {}, _Whole(b""), (0, 0))  # the handler has returned, its stream goes on


def _field(value: str) -> str:
    """A header's value; what would break the head (CR, LF, NUL) or is not Latin-1 is replaced."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(c if c.isprintable() else "?" for c in value).encode("latin-1", "replace").decode("latin-1")
