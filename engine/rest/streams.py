"""Docker's stream forms: multiplexed frames, raw terminals, and lines of JSON.

A frame is the stream's number (1 stdout, 2 stderr), three zero bytes, the payload's length as 4 bytes big-endian, and the
payload (Engine API, "Attach to a container: Stream format"). A container with a terminal has one stream, sent raw.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol

from engine.api import PullProgress, Stream
from engine.base.keys import KeyFilter
from engine.base.units import human_size
from engine.errors import EngineError
from engine.rest import failures

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_NUMBER = {"stdout": 1, "stderr": 2, "systemerr": 3}
MAX_FRAME = 1 << 20

_PHASES = {
    "packing": "Compressing",
    "resolving": "Resolving",
    "waiting": "Waiting",
    "downloading": "Downloading",
    "uploading": "Pushing",
    "loading": "Loading layer",
    "extracting": "Extracting",
    "exists": "Already exists",
    "mounted": "Mounted",
    "done": "Pull complete",
}

_PUSHED = {"waiting": "Preparing", "exists": "Layer already exists", "done": "Pushed"}

Parting = Literal["ended", "detached", "left"]
Encode = Callable[[str, bytes], bytes]


def multiplex(stream: str, data: bytes) -> bytes:
    return bytes((_NUMBER[stream], 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def raw(_stream: str, data: bytes) -> bytes:
    return data


async def json_lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Progress as the docker client reads it. The head is out already, so a failure is the last line."""
    try:
        async for event in events:
            if not event:  # nothing to show yet, but the head may go out
                yield b""
                continue
            yield json.dumps(event, ensure_ascii=False).encode() + b"\r\n"
    except EngineError as error:
        detail: dict[str, Any] = {**failures.document(error)}
        if (code := getattr(error, "exit_code", 0)) > 0:
            detail = {"code": code, **detail}
        document = {"errorDetail": detail, "error": detail["message"]}
        yield json.dumps(document, ensure_ascii=False).encode() + b"\r\n"


class Channel(Protocol):
    """A client's side of a stream: a raw connection or a WebSocket."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def gone(self) -> None: ...


async def converse(
    duplex: Channel,
    stream: Stream,
    encode: Encode,
    *,
    stdin: bool,
    wanted: frozenset[str] = frozenset(("stdout", "stderr")),
    keys: bytes = b"",
) -> Parting:
    """Joins a hijacked connection and a container's streams until the output ends, the client has gone, or `keys` are typed.

    The end of the client's input closes the container's stdin and nothing else: `printf x | docker exec -i` reads the
    answer after it.
    """
    typed = KeyFilter(keys)

    async def feed() -> None:
        while data := await duplex.read():
            if stdin and (data := typed.feed(data)):
                await stream.write(data)
            if typed.found:
                return
        if stdin:
            await stream.close_stdin()

    async def show() -> None:
        while (chunk := await stream.read()) is not None:
            name, data = chunk
            if name in wanted:
                await duplex.write(encode(name, data))

    feeding, showing = asyncio.ensure_future(feed()), asyncio.ensure_future(show())
    gone = asyncio.ensure_future(duplex.gone())
    tasks = {feeding, showing, gone}
    try:
        while not (showing.done() or gone.done() or typed.found):
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            tasks -= done
        if showing.done():
            showing.result()
            return "ended"
        return "detached" if typed.found else "left"
    except ConnectionError:
        return "left"
    finally:
        for task in (feeding, showing, gone):
            task.cancel()
        await asyncio.gather(feeding, showing, gone, return_exceptions=True)


def progress_document(event: PullProgress, *, push: bool = False) -> dict[str, Any]:
    """One line of the client's progress display."""
    status = (_PUSHED if push else {}).get(event.phase) or _PHASES[event.phase]
    result: dict[str, Any] = {"status": status, "id": event.layer.removeprefix("sha256:")[:12]}
    if event.phase in ("downloading", "uploading", "loading", "extracting") and event.current:
        total = max(event.total, event.current)
        filled = 50 * event.current // total
        bar = "=" * filled + (">" + " " * (49 - filled) if filled < 50 else "")
        result["progressDetail"] = {"current": event.current, "total": total}
        result["progress"] = f"[{bar}]  {human_size(event.current)}/{human_size(total)}"
    else:
        result["progressDetail"] = {}
    return result
