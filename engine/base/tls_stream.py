"""TLS whose two directions end one by one, which asyncio's own cannot: it closes the connection when one side has said its last.

`docker run -i` closes its side when its stdin ends, and waits for what the program still has to say. In TLS that is an alert,
close_notify; "any data received after a closure alert has been received MUST be ignored", while the other direction goes on (RFC 8446,
section 6.1). Done with ssl.MemoryBIO over a plain asyncio connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

CHUNK = 256 << 10


class TlsStream:
    """Stands for an `asyncio.StreamReader` and its `StreamWriter`, as far as the engine's connections use them."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        host: str | None = None,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=host)
        self._ended = False
        self._early: list[bytes] = []  # read ahead

    async def shake_hands(self) -> None:
        """Raises `ssl.SSLError`, once the other side has been told why; `ConnectionError`."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.drain()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self.drain()
                raise
            else:
                await self.drain()
                return

    async def _fill(self) -> None:
        if data := await self._reader.read(CHUNK):
            self._in.write(data)
        else:
            self._in.write_eof()

    async def read(self, size: int = CHUNK) -> bytes:
        if self._early:
            data, self._early[0] = self._early[0][:size], self._early[0][size:]
            if not self._early[0]:
                del self._early[0]
            return data
        while True:
            try:
                data = self._tls.read(size)
            except ssl.SSLWantReadError:
                self._send()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                self._ended = True
                return b""
            else:
                return data

    def at_eof(self) -> bool:
        return not self._early and self._at_eof()

    def _at_eof(self) -> bool:
        return self._ended or (self._reader.at_eof() and not self._in.pending)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view[:CHUNK]) :]
        self._send()

    def _send(self) -> None:
        if data := self._out.read():
            self._writer.write(data)

    async def drain(self) -> None:
        self._send()
        await self._writer.drain()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Says that no more comes; what the other side says is still read."""
        # `unwrap` says so, and then looks for the answer to that, which comes when it comes. What it would meet instead, data
        # that has arrived, is an error to it and the end of the connection: so that is read first.
        with contextlib.suppress(ssl.SSLError):
            while data := self._tls.read(CHUNK):
                self._early.append(data)
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()

    def close(self) -> None:
        if not self._writer.is_closing():
            self.write_eof()
        self._writer.close()

    async def wait_closed(self) -> None:
        await self._writer.wait_closed()

    def is_closing(self) -> bool:
        return self._writer.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._writer.get_extra_info(name, default)


class _Flow:
    """What a reader asks of its transport: to wait while nobody takes what has come."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    def pause_reading(self) -> None:
        self.open.clear()

    def resume_reading(self) -> None:
        self.open.set()


async def feed(stream: TlsStream, reader: asyncio.StreamReader) -> None:
    """Everything that comes, decrypted, into a reader of asyncio's, until the other side has said its last."""
    flow = _Flow()
    reader.set_transport(flow)  # type: ignore[arg-type]
    try:
        while data := await stream.read():
            reader.feed_data(data)
            await flow.open.wait()
    except OSError as error:
        reader.set_exception(error if isinstance(error, ConnectionError) else ConnectionResetError(str(error)))
    else:
        reader.feed_eof()
