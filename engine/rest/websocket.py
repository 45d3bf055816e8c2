"""WebSocket (RFC 6455), the server's side of one connection: what `GET /containers/{id}/attach/ws` speaks.

The stream inside is the container's bytes as they are, stdout and stderr together, without Docker's frames.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from engine.errors import AccessDenied, InvalidInput
from engine.rest.duplex import Duplex

MAX_MESSAGE = 1 << 20  # bytes of one frame from a client: what is typed, or pasted
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


def accept(headers: Mapping[str, str]) -> dict[str, str]:
    """The answer's headers for a client's opening handshake (section 4.2). Raises `InvalidInput`."""
    if "websocket" not in headers.get("upgrade", "").lower():
        raise InvalidInput("this endpoint speaks WebSocket alone", hint="send Upgrade: websocket, or POST …/attach")
    if headers.get("sec-websocket-version") != "13":
        raise InvalidInput("WebSocket version 13 is needed")
    key = headers.get("sec-websocket-key", "")
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError
    except ValueError:
        raise InvalidInput("Sec-WebSocket-Key is not base64 of 16 bytes") from None
    return {"Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()}


def same_origin(headers: Mapping[str, str]) -> None:
    """Clients that are no browsers send the server itself as their Origin. Raises `AccessDenied` for a page of another."""
    origin = headers.get("origin", "")
    if origin and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise AccessDenied("requests from web pages are refused")


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole, unmasked message (section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


class _Broken(Exception):
    """The client does not keep to the protocol; `status` is that of the closing frame (section 7.4)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class WebSocket:
    """Reads and writes as a `Duplex` does; pings are answered and the close is shaken hands on meanwhile."""

    def __init__(self, duplex: Duplex, *, text: bool = False) -> None:
        self._duplex = duplex
        self._opcode = _TEXT if text else _BINARY
        self._buffer = bytearray()
        self._closing = False
        self._fragmented = False

    async def read(self) -> bytes:
        """The next bytes; b"" once the client has closed."""
        while not self._closing:
            try:
                message = self._take()
            except _Broken as error:
                await self.close(error.status)
                return b""
            if message is None:
                data = await self._duplex.read()
                if not data:
                    return b""
                self._buffer += data
                continue
            opcode, payload = message
            if opcode == _CLOSE:
                await self.close(int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000)
            elif opcode == _PING:
                await self._duplex.write(frame(_PONG, payload))
            elif opcode != _PONG and payload:
                return payload
        return b""

    def _take(self) -> tuple[int, bytes] | None:
        """One frame of the buffer, unmasked; None while it is not whole. Raises `_Broken`."""
        data = self._buffer
        if len(data) < 2:
            return None
        final, opcode, size, at = data[0] & 0x80, data[0] & 0x0F, data[1] & 0x7F, 2
        control = opcode >= _CLOSE
        if data[0] & 0x70 or not data[1] & 0x80 or opcode not in (0, 1, 2, 8, 9, 10) or (control and size > 125):
            raise _Broken(1002)  # extensions that nobody agreed on, no mask, an unknown kind
        if (control and not final) or (not control and (opcode == _CONTINUATION) != self._fragmented):
            raise _Broken(1002)
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(data) < at + width:
                return None
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        if size > MAX_MESSAGE:
            raise _Broken(1009)
        if len(data) < at + 4 + size:
            return None
        mask, payload = data[at : at + 4], bytes(data[at + 4 : at + 4 + size])
        del data[: at + 4 + size]
        if not control:
            self._fragmented = not final
        return opcode, _unmasked(payload, bytes(mask))

    async def write(self, data: bytes) -> None:
        if self._opcode == _TEXT:
            data = data.decode("utf-8", "replace").encode()
        await self._duplex.write(frame(self._opcode, data))

    async def gone(self) -> None:
        await self._duplex.gone()

    async def close(self, status: int = 1000) -> None:
        """Sends our closing frame, once."""
        if not self._closing:
            self._closing = True
            with contextlib.suppress(ConnectionError):
                await self._duplex.write(frame(_CLOSE, status.to_bytes(2, "big")))


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    """Section 5.3, over whole integers: byte by byte is slow."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
