"""gRPC over a hijacked connection, both ways round: `serve` answers the client's calls, `Channel` calls the client (grpclib, RFC 9113)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, cast

from grpclib.client import Channel as _Channel
from grpclib.client import Handler as _ClientHandler
from grpclib.client import StreamStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Handler, Status
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import Connection, H2Protocol, Stream
from grpclib.server import Server
from multidict import MultiDict

from engine.rest.buildkit import wire
from engine.rest.buildkit.messages import RpcStatus
from engine.rest.duplex import Duplex

MAX_MESSAGE = 16 << 20  # bytes; grpc-go's clients send and take 16 MiB (BuildKit's defaults.MaxMessageSize)
_HIGH, _LOW = 1 << 20, 256 << 10  # bytes that wait to be written, when grpclib pauses and goes on
_WINDOW = 4 << 20

logging.getLogger("grpclib").setLevel(logging.CRITICAL)  # a client that leaves or errs is no event of ours


class _Codec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return wire.encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        try:
            return wire.decode(data, message_type)
        except wire.Malformed as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"malformed message: {error}") from None


class _Details(StatusDetailsCodecBase):
    """An error's details (google.rpc.Status) beside its message."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        return wire.encode(RpcStatus(status.value, message or "", list(details or ())))

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        return ()


class _Stream(Stream):
    async def recv_data(self, size: int) -> bytes:
        """A message's length is the peer's word: nobody makes this process hold more than `MAX_MESSAGE` for it."""
        if size > MAX_MESSAGE:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is too large")
        return await super().recv_data(size)


class _Connection(Connection):
    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        return _Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)


class _Protocol(H2Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection.__class__ = _Connection  # grpclib makes it, and has no place to say of which class


class _Transport(asyncio.Transport):
    """What grpclib writes to, over a `Duplex`: TCP, a unix socket or TLS alike."""

    def __init__(self, duplex: Duplex, protocol: H2Protocol) -> None:
        super().__init__()
        self._duplex, self._protocol = duplex, protocol
        self._waiting = bytearray()
        self._more = asyncio.Event()
        self._paused = self._closing = False
        protocol.connection_made(self)

    async def run(self) -> None:
        """Moves bytes until either side closes."""
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = True
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            self._protocol.connection_lost(None)

    async def _read(self) -> None:
        with contextlib.suppress(
            ConnectionError, NotImplementedError
        ):  # the latter: an event that grpclib does not know
            while data := await self._duplex.read():
                self._protocol.data_received(data)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while not self._closing or self._waiting:
                await self._more.wait()
                self._more.clear()
                data, self._waiting = bytes(self._waiting), bytearray()
                if data:
                    await self._duplex.write(data)
                if self._paused and len(self._waiting) < _LOW:
                    self._paused = False
                    self._protocol.resume_writing()

    def write(self, data: Any) -> None:
        self._waiting += data
        self._more.set()
        if len(self._waiting) > _HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._more.set()


class _Services:
    def __init__(self, mapping: Mapping[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        return dict(self._mapping)


async def serve(duplex: Duplex, methods: Mapping[str, Handler]) -> None:
    """Answers calls on this connection until it ends; what still runs is cancelled then."""
    config = Configuration(http2_connection_window_size=_WINDOW, http2_stream_window_size=_WINDOW)
    server = Server([_Services(methods)], codec=_Codec(), status_details_codec=_Details(), config=config)
    made = server._protocol_factory()  # what `Server.start` gives to a listening socket
    await _Transport(duplex, _Protocol(made.handler, made.config, made.h2_config)).run()
    await cast(Any, made.handler).wait_closed()


class Channel(_Channel):
    """Calls to the client at the other end of `duplex`. `run` moves the bytes, until the client leaves."""

    def __init__(self, duplex: Duplex) -> None:
        config = Configuration(http2_connection_window_size=_WINDOW, http2_stream_window_size=_WINDOW)
        super().__init__("localhost", 0, codec=_Codec(), status_details_codec=_Details(), config=config)
        self._ready = _Protocol(_ClientHandler(), self._config, self._h2_config)
        self._transport = _Transport(duplex, self._ready)

    async def run(self) -> None:
        await self._transport.run()

    async def _create_connection(self) -> H2Protocol:
        if self._transport.is_closing():
            raise StreamTerminatedError("the client has left")
        return self._ready

    def unary(self, path: str, request: type, reply: type) -> UnaryUnaryMethod[Any, Any]:
        return UnaryUnaryMethod(self, path, request, reply)

    def stream(self, path: str, request: type, reply: type) -> StreamStreamMethod[Any, Any]:
        return StreamStreamMethod(self, path, request, reply)


def metadata(fields: Mapping[str, list[str]]) -> MultiDict[str | bytes]:
    """Call metadata with several values for a name."""
    return MultiDict([(name, value) for name, values in fields.items() for value in values])
