"""The one reader of the engine: its events become messages. Nothing else in the app awaits the engine's streams of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Protocol

from textual.message_pump import MessagePump

from engine import api
from engine.errors import EngineError
from workbench.messages import EngineHappened, EngineListed, LoopReported, Reading, StatsRead, TroubleMet
from workbench.subjects import Lists

if TYPE_CHECKING:
    from engine.api import BuildRequest, ContainerStats, Engine, LoopEvent, ServiceState

GATHER = 0.05  # seconds: events that come within it cause one look at the lists
MISSED = (
    1_000_000_000  # ns: what happens between the first look at the lists and the first event would be seen by neither
)
STATS_EVERY = 5.0  # seconds between two readings of what containers use, with few of them
STATS_EACH = (
    0.5  # seconds for each of them, with many: a reading costs, and an app at rest shall cost nothing one notices
)


class Generation(Protocol):
    """One of a service's: what ran, when, and why it was made."""

    @property
    def number(self) -> int: ...
    @property
    def image(self) -> str: ...
    @property
    def created(self) -> int: ...
    @property
    def step(self) -> str: ...
    @property
    def paths(self) -> tuple[str, ...]: ...


class LoopHandle(Protocol):
    """The project as the app needs it: its inner loop, and its generations."""

    def events(self) -> AsyncIterator[LoopEvent]: ...

    async def rebuild(self, service: str | None = None) -> None: ...

    def request(self, service: str) -> BuildRequest | None:
        """How the service is built; of "" the first that is. None: it is not built here."""

    def generations(self, service: str) -> tuple[Sequence[Generation], int]:
        """Oldest first, and the number of the one that serves."""

    async def rollback(self, service: str, number: int) -> None:
        """Raises `NotFound`, `StartFailed`; what ran then runs on."""

    async def close(self) -> None: ...


class Bridge:
    """`engine` is there once `ready`: the app shows itself before that."""

    def __init__(self, engine: Engine | None, loop: LoopHandle | None, pump: MessagePump) -> None:
        self.ready = engine is not None
        if engine is not None:
            self.engine = engine
        self.loop, self._pump = loop, pump
        self.lists = self.unread = Lists()  # until they were read
        self._services: dict[str, ServiceState] = {}
        self._stale = asyncio.Event()
        self._before: dict[str, ContainerStats] = {}

    def attach(self, engine: Engine, loop: LoopHandle | None) -> None:
        self.engine, self.loop, self.ready = engine, loop, True

    def post(self, message: object) -> None:
        self._pump.post_message(message)  # type: ignore[arg-type]

    async def watch_loop(self) -> None:
        """The project's events, to the end."""
        if self.loop is None:
            return
        try:
            async for event in self.loop.events():
                if isinstance(event, api.ServiceState):
                    self._services[event.service] = event
                    self._stale.set()
                self.post(LoopReported(event))
        except EngineError as error:
            self.trouble(error)

    async def watch_engine(self) -> None:
        """The engine's events, and the lists anew after each of them."""
        self._stale.set()
        since = time.time_ns() - MISSED
        lister = asyncio.create_task(self._keep_lists())
        try:
            async for event in self.engine.events(since_time=since):
                self.post(EngineHappened(event))
                self._stale.set()
        except EngineError as error:
            self.trouble(error)
        finally:
            lister.cancel()

    async def _keep_lists(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            await self.list()
            await asyncio.sleep(GATHER)

    async def list(self) -> None:
        """Reads the lists now."""
        engine = self.engine
        try:
            self.lists = Lists(
                await engine.images(),
                await engine.containers(all=True),
                await engine.volumes(),
                await engine.networks(),
                tuple(self._services.values()),
            )
        except EngineError as error:
            self.trouble(error)
            return
        self.post(EngineListed(self.lists))

    async def keep_stats(self) -> None:
        """Readings of all running containers, until cancelled."""
        while True:
            await self.read_stats()
            running = sum(1 for each in self.lists.containers if each.running)
            await asyncio.sleep(max(STATS_EVERY, STATS_EACH * running))

    async def read_stats(self) -> None:
        names = [each.name for each in self.lists.containers if each.running]
        readings: dict[str, Reading] = {}
        for name in names:
            try:
                now = await self.engine.stats(name)
            except EngineError:  # it has just ended
                continue
            readings[name] = reading(now, self._before.get(now.id))
            self._before[now.id] = now
        alive = {each.stats.id for each in readings.values()}
        self._before = {key: value for key, value in self._before.items() if key in alive}
        self.post(StatsRead(readings))

    async def guarded(self, work: Callable[..., Coroutine[object, object, object]], *arguments: object) -> None:
        """Awaits what a pane or the user asked for; what goes wrong is shown, not raised."""
        try:
            await work(*arguments)
        except EngineError as error:
            self.trouble(error)

    def trouble(self, error: EngineError) -> None:
        self.post(TroubleMet(f"{error.message}{f' — {error.hint}' if error.hint else ''}"))


def reading(now: ContainerStats, before: ContainerStats | None) -> Reading:
    seconds = (now.time - before.time) / 1e9 if before else 0.0
    if before is None or seconds <= 0:
        return Reading(now, now.cpu_percent(before))

    def rate(after: int, earlier: int) -> float:
        return max(0, after - earlier) / seconds

    return Reading(
        now,
        now.cpu_percent(before),
        rate(_sum(now, "rx_bytes"), _sum(before, "rx_bytes")),
        rate(_sum(now, "tx_bytes"), _sum(before, "tx_bytes")),
        rate(now.block_bytes("read"), before.block_bytes("read")),
        rate(now.block_bytes("write"), before.block_bytes("write")),
    )


def _sum(stats: ContainerStats, counter: str) -> int:
    return sum(getattr(each, counter) for each in stats.networks.values())
