"""Docker's multiplexed frames taken apart, and a hijacked connection as the engine's `Stream`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Literal

from engine.errors import Unavailable
from engine.remote.client import Client
from engine.remote.wires import Wire

Name = Literal["stdout", "stderr"]
_NAMES: dict[int, Name] = {0: "stdout", 1: "stdout", 2: "stderr", 3: "stderr"}
_MAX_FRAME = 64 << 20  # bytes; no engine sends more at once


class Frames:
    """Frames out of bytes: the stream's number, three zero bytes, the length as 4 bytes big-endian, the payload."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[Name, bytes]]:
        """Raises `Unavailable` for what is no frame."""
        self._rest += data
        found = []
        at = 0
        while len(self._rest) - at >= 8:
            size = int.from_bytes(self._rest[at + 4 : at + 8], "big")
            if self._rest[at] not in _NAMES or size > _MAX_FRAME:
                raise Unavailable("the engine's stream is damaged")
            if len(self._rest) - at - 8 < size:
                break
            found.append((_NAMES[self._rest[at]], bytes(self._rest[at + 8 : at + 8 + size])))
            at += 8 + size
        del self._rest[:at]
        return found


async def demultiplexed(parts: AsyncIterator[bytes]) -> AsyncGenerator[tuple[Name, bytes], None]:
    frames = Frames()
    async for part in parts:
        for frame in frames.feed(part):
            yield frame


class RemoteStream:
    """`engine.api.Stream` over a hijacked connection. `code` asks for the exit code once the output has ended."""

    def __init__(
        self,
        wire: Wire,
        early: bytes,
        *,
        tty: bool,
        code: Callable[[], Awaitable[int]],
        resize: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._wire, self._early = wire, early
        self._frames = None if tty else Frames()
        self._ready: list[tuple[Name, bytes]] = []
        self._code, self._resize = code, resize
        self._ended = asyncio.Event()
        self._closed = False
        self._ending: asyncio.Future[int] | None = None

    def ends_with(self, ending: asyncio.Future[int]) -> None:
        """The exit code comes from there."""
        self._ending = ending

    async def read(self) -> tuple[Name, bytes] | None:
        while not self._ready:
            data = await self._more()
            if not data:
                self._ended.set()
                return None
            self._ready = self._frames.feed(data) if self._frames is not None else [("stdout", data)]
        return self._ready.pop(0)

    async def _more(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        if self._closed:
            return b""
        try:
            return await self._wire.read()
        except OSError:  # as a program that is gone: its exit code says what happened
            return b""

    async def write(self, data: bytes) -> None:
        try:
            await self._wire.write(data)
        except OSError:
            pass

    async def close_stdin(self) -> None:
        try:
            await self._wire.write_eof()
        except OSError:
            pass

    async def resize(self, rows: int, columns: int) -> None:
        await self._resize(rows, columns)

    async def wait(self) -> int:
        return await (asyncio.shield(self._ending) if self._ending is not None else self._code())

    async def detach(self) -> None:
        await self.close()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._wire.close()


async def open_stream(
    client: Client,
    path: str,
    params: dict[str, str | int | bool],
    body: object,
    *,
    tty: bool,
    code: Callable[[], Awaitable[int]],
    resize: Callable[[int, int], Awaitable[None]],
) -> RemoteStream:
    wire, early, _ = await client.hijack(path, params, body)
    return RemoteStream(wire, early, tty=tty, code=code, resize=resize)
