"""Images of another engine, looked into here.

Docker's API gives whole images alone. So an image whose files somebody asks for is fetched once, into a folder of its own on this
machine, and opened by an engine of this machine. The folder goes when the remote engine is closed.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.errors import EngineError, Unsupported
from engine.model import LoadedImage

if TYPE_CHECKING:
    from engine.api import Engine, Sink
    from engine.model import PullProgress

UNWAITED = (
    3.0  # seconds that a fetch goes on when nobody waits for it any more: the next layer of the image may be asked for
)
_PLACE = "/var/tmp"  # on a disk, for images that may be large


class Saving(Protocol):
    """`Engine.save` of the other engine."""

    def __call__(self, names: Sequence[str], out: Sink) -> AsyncIterator[PullProgress]: ...


class _Fetch:
    """One image on its way, or here."""

    def __init__(self, work: Callable[[_Fetch], Awaitable[str]]) -> None:
        self.bytes = 0
        self.waiting = 0
        self.task = asyncio.ensure_future(work(self))

    def leave(self) -> None:
        self.waiting -= 1
        if not self.task.done():
            asyncio.get_running_loop().call_later(UNWAITED, self._unwaited)

    def _unwaited(self) -> None:
        if not self.waiting:
            self.task.cancel()


class _Counting:
    """A pipe's end that says how much went through."""

    def __init__(self, fd: int, fetch: _Fetch) -> None:
        self._fd, self._fetch = fd, fetch

    def write(self, data: bytes) -> int:
        written = os.write(self._fd, data)
        self._fetch.bytes += written
        return written


class Near:
    """`save` is the other engine's, `open_engine` opens one of this machine on a folder."""

    def __init__(self, save: Saving, open_engine: Callable[[Path], Awaitable[Engine]]) -> None:
        self._save, self._open_engine = save, open_engine
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._engine: asyncio.Future[Engine] | None = None
        self._fetches: dict[str, _Fetch] = {}

    def has(self, image: str) -> bool:
        """Whether the image with this id is here."""
        found = self._fetches.get(image)
        return found is not None and found.task.done() and not found.task.cancelled() and not found.task.exception()

    def fetching(self, image: str) -> bool:
        found = self._fetches.get(image)
        return found is not None and not found.task.done()

    def so_far(self, image: str) -> int:
        """Bytes that have come."""
        found = self._fetches.get(image)
        return found.bytes if found else 0

    async def engine(self) -> Engine:
        """Of this machine, on the folder. Raises `Unsupported`."""
        if self._engine is None:
            place = _PLACE if os.path.isdir(_PLACE) else None
            self._folder = tempfile.TemporaryDirectory(
                prefix="workbench-layers-", dir=place, ignore_cleanup_errors=True
            )
            self._engine = asyncio.ensure_future(self._open_engine(Path(self._folder.name)))
        return await asyncio.shield(self._engine)

    async def fetched(self, image: str) -> str:
        """The name here of the image with this id over there, which is fetched if it is not here."""
        fetch = self._fetches.get(image)
        if fetch is None or (fetch.task.done() and not self.has(image)):
            fetch = self._fetches[image] = _Fetch(lambda fetch: self._fetch(image, fetch))
        fetch.waiting += 1
        try:
            return await asyncio.shield(fetch.task)
        finally:
            fetch.leave()

    async def _fetch(self, image: str, fetch: _Fetch) -> str:
        engine = await self.engine()
        read_end, write_end = os.pipe()
        source = os.fdopen(read_end, "rb")
        sending = asyncio.ensure_future(self._send(image, write_end, fetch))
        name = ""
        try:
            async for event in engine.load(source):
                if isinstance(event, LoadedImage):
                    name = event.digest
        except EngineError:
            source.close()  # a sender that still writes ends
            await asyncio.wait([sending])
            if (error := sending.exception()) and isinstance(error, EngineError):
                raise error from None  # the archive is short because of it
            raise
        finally:
            sending.cancel()
            source.close()
            await asyncio.wait([sending])
        sending.result()
        if not name:
            raise Unsupported(f"the engine over there gives no image for {image}")
        return name

    async def _send(self, image: str, fd: int, fetch: _Fetch) -> None:
        try:
            with suppress(BrokenPipeError):
                async for _ in self._save([image], _Counting(fd, fetch)):
                    pass
        finally:
            os.close(fd)

    async def close(self) -> None:
        tasks = [fetch.task for fetch in self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        opening, self._engine = self._engine, None
        if opening is not None:
            with suppress(EngineError):
                await (await opening).close()
        folder, self._folder = self._folder, None
        if folder is not None:
            await asyncio.to_thread(folder.cleanup)
