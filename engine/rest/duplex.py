"""The raw stream that attach and exec turn a connection into."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios

CHUNK = 256 << 10
_TAKEN_SECONDS = 0.05
_LOOK_SECONDS = 0.0005


class Duplex:
    """The connection after a hijack: bytes that came behind the request first."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes) -> None:
        self._reader, self._writer, self._early = reader, writer, early
        self._written = False

    async def read(self) -> bytes:
        """The next bytes, b"" once the client has closed its side."""
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return await self._reader.read(CHUNK)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        if not self._written:
            self._written = True
            await self._head_taken()
        self._writer.write(data)
        await self._writer.drain()

    async def _head_taken(self) -> None:
        """docker-py reads the head through a buffer and the stream past it: what comes together with the head is lost to it.

        So the first bytes wait, a moment at most, until the client has read the head. On a unix socket the send queue says so
        (unix(7), SIOCOUTQ); over TCP it is what has not been acknowledged.
        """
        descriptor = self._fileno()
        end = asyncio.get_running_loop().time() + _TAKEN_SECONDS
        while descriptor >= 0 and asyncio.get_running_loop().time() < end:
            try:
                answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
            except OSError:
                return
            if not struct.unpack("i", answer)[0]:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def gone(self) -> None:
        """Returns when the client has closed both directions: a half-close, after which it still reads, is none.

        Over TCP the two look alike until something is written.
        """
        descriptor = self._fileno()
        if descriptor < 0:
            return
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()
        with select.epoll() as hang_up:
            hang_up.register(descriptor, 0)  # EPOLLHUP and EPOLLERR are reported always (epoll_ctl(2))
            loop.add_reader(hang_up.fileno(), seen.set)
            try:
                await seen.wait()
            finally:
                loop.remove_reader(hang_up.fileno())

    def _fileno(self) -> int:
        found: socket.socket | None = self._writer.get_extra_info("socket")
        return found.fileno() if found is not None else -1

    def close(self) -> None:
        """Ends the connection, both ways."""
        self._writer.close()

    def finish(self) -> None:
        """Closes our side of the stream; what was written still arrives."""
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
