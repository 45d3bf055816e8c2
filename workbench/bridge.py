"""The one reader of the engine: its events become messages. Nothing else in the app awaits the engine's streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from textual.message_pump import MessagePump

from engine.api import Engine, LogLine, LoopEvent
from engine.errors import EngineError
from workbench.messages import EngineListed, ImageRead, LogArrived, LoopReported, TroubleMet

FRAME = 1 / 60  # seconds: log lines that arrive within it become one message
TAIL = 5000


class LoopHandle(Protocol):
    """The inner loop as the app needs it."""

    def events(self) -> AsyncIterator[LoopEvent]: ...

    async def rebuild(self, service: str | None = None) -> None: ...

    async def close(self) -> None: ...


class Bridge:
    def __init__(self, engine: Engine, loop: LoopHandle | None, pump: MessagePump) -> None:
        self.engine, self.loop, self._pump = engine, loop, pump

    async def watch_loop(self) -> None:
        if self.loop is None:
            return
        try:
            async for event in self.loop.events():
                self._pump.post_message(LoopReported(event))
        except EngineError as error:
            self._trouble(error)

    async def watch_engine(self) -> None:
        await self.list()
        try:
            async for _ in self.engine.events():
                await self.list()
        except EngineError as error:
            self._trouble(error)

    async def list(self) -> None:
        try:
            images, containers = await self.engine.images(), await self.engine.containers(all=True)
            self._pump.post_message(EngineListed(images, containers))
        except EngineError as error:
            self._trouble(error)

    async def read_image(self, name: str) -> None:
        try:
            self._pump.post_message(ImageRead(await self.engine.image(name)))
        except EngineError as error:
            self._trouble(error)

    async def follow(self, container: str) -> None:
        """The container's log, batched by frame, until it ends."""
        batch: list[LogLine] = []

        def flush() -> None:
            nonlocal batch
            if batch:
                self._pump.post_message(LogArrived(container, batch))
                batch = []

        lines = self.engine.logs(container, follow=True, tail=TAIL)
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        try:
            async for line in lines:
                if not batch:
                    timer = loop.call_later(FRAME, flush)
                batch.append(line)
        except EngineError as error:
            self._trouble(error)
        finally:
            if timer:
                timer.cancel()
            flush()

    async def act(self, work: object) -> None:
        """Awaits an action of the user; what goes wrong is shown, not raised."""
        try:
            await work  # type: ignore[misc]
        except EngineError as error:
            self._trouble(error)
        await self.list()

    def _trouble(self, error: EngineError) -> None:
        self._pump.post_message(TroubleMet(f"{error.message}{f' — {error.hint}' if error.hint else ''}"))
