"""When a new container may take over: its health check passes, or its ports are open, or it has lived for a moment.

A health check is asked at once and often while somebody waits for it, beside the container's own slow rhythm; what that rhythm
calls unhealthy is unhealthy. Without one, the TCP ports that the container before has open decide, as far as they are published
or exposed. They are read from the kernel's table: the program sees no connection that is none. Without these either, a short
grace: what dies at once does not take over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass

from engine.api import Engine, ExecSpec
from engine.errors import EngineError, StartFailed

GRACE = 0.25  # seconds that a container lives before it counts as started
PORTS = 60.0  # seconds until ports that do not open are a failure
_FIRST, _SLOWEST, _SLOWEST_CHECK = 0.002, 0.05, 1.0


class NotReady(StartFailed):
    """It started, and ended or did not become ready: another try would give the same, until a file or something else changes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is waited for. `check`: a health check's command; `ports`: all of them open; `some`: any of them, within the grace."""

    check: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset()
    some: frozenset[int] = frozenset()


async def await_ready(engine: Engine, name: str, wanted: Wanted, waiting: Callable[[str], None]) -> None:
    """Raises `NotReady` with the reason; `waiting` hears once what is waited for when that takes longer than the grace."""
    death = asyncio.ensure_future(_died(engine, name))
    ready = asyncio.ensure_future(_become_ready(engine, name, wanted, waiting))
    try:
        await asyncio.wait((death, ready), return_when=asyncio.FIRST_COMPLETED)
        if death.done():
            raise NotReady(f"the new container ended with exit code {death.result()}")
        ready.result()
    finally:
        for task in (death, ready):
            task.cancel()
        await asyncio.gather(death, ready, return_exceptions=True)


async def _died(engine: Engine, name: str) -> int | str:
    try:
        return await engine.wait(name)
    except EngineError:
        return "unknown"


def _become_ready(
    engine: Engine, name: str, wanted: Wanted, waiting: Callable[[str], None]
) -> Coroutine[object, object, None]:
    if wanted.check:
        return _healthy(engine, name, wanted.check, waiting)
    if wanted.ports:
        return _open(engine, name, wanted.ports, waiting)
    return _lives(engine, name, wanted.some)


async def _lives(engine: Engine, name: str, some: frozenset[int]) -> None:
    if not some:
        await asyncio.sleep(GRACE)
        return
    async for passed in _rhythm(_SLOWEST):
        if passed > GRACE or some & await engine.listening(name):
            return


async def _open(engine: Engine, name: str, ports: frozenset[int], waiting: Callable[[str], None]) -> None:
    said = False
    async for passed in _rhythm(_SLOWEST):
        missing = ports - await engine.listening(name)
        if not missing:
            return
        text = ", ".join(map(str, sorted(missing)))
        if passed > PORTS:
            raise NotReady(f"the new container did not open port {text} in {PORTS:.0f} s")
        if passed > GRACE and not said:
            said = True
            waiting(f"until port {text} is open")


async def _healthy(engine: Engine, name: str, check: tuple[str, ...], waiting: Callable[[str], None]) -> None:
    said = False
    async for passed in _rhythm(_SLOWEST_CHECK):
        if await _passes(engine, name, check):
            return
        detail = await engine.container(name)
        health = detail.summary.health
        if health == "healthy":
            return
        if health == "unhealthy":
            raise NotReady(f"the new container is unhealthy{_said(detail.config)}")
        if passed > GRACE and not said:
            said = True
            waiting("until it is healthy")


def _said(inspect: object) -> str:
    """The last line of the last health check in an `inspect` document."""
    with contextlib.suppress(KeyError, TypeError, IndexError):
        lines = str(inspect["State"]["Health"]["Log"][-1]["Output"]).strip().splitlines()  # type: ignore[index]
        return f": {lines[-1][:200]}"
    return ""


async def _passes(engine: Engine, name: str, check: tuple[str, ...]) -> bool:
    try:
        stream = await engine.exec(name, ExecSpec(check))
    except EngineError:  # it has just ended: its death is heard; or no such program yet
        return False
    try:
        while await stream.read():
            pass
        return await stream.wait() == 0
    except EngineError:
        return False
    finally:
        await stream.close()


async def _rhythm(slowest: float) -> AsyncIterator[float]:
    """Seconds since the beginning, at growing distances: the kernel tells nobody when a port opens."""
    loop = asyncio.get_running_loop()
    begin, pause = loop.time(), _FIRST
    while True:
        yield loop.time() - begin
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, slowest)


def check_command(inspect: object) -> tuple[str, ...]:
    """The command of the health check in a container's `inspect` document; () where there is none."""
    with contextlib.suppress(KeyError, TypeError):
        test = list(inspect["Config"]["Healthcheck"]["Test"])  # type: ignore[index]
        if test[:1] == ["CMD-SHELL"]:
            return "/bin/sh", "-c", *map(str, test[1:])
        if test[:1] == ["CMD"]:
            return tuple(map(str, test[1:]))
    return ()
