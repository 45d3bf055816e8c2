"""`up --abort-on-container-exit`, `--abort-on-container-failure`, `--exit-code-from`: when one ends, all do. For tests in containers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.cli.flags import Flag, Parsed
from engine.errors import EngineError, InvalidInput
from engine.model import ContainerSummary
from engine.project.control import each_container, project_containers, service_of, stop, stop_order
from engine.project.model import Project

if TYPE_CHECKING:
    from engine.api import Engine

ABORT_FLAGS = [
    Flag("abort-on-container-exit", "Stop all containers if any container was stopped; watches nothing"),
    Flag("abort-on-container-failure", "Stop all containers if any container exited with failure; watches nothing"),
    Flag("exit-code-from", "Return the exit code of this service's container; implies the first", kind="str"),
    Flag("timeout", "Seconds that a container has to stop then", "t", kind="int"),
]


@dataclass(frozen=True, slots=True)
class Abort:
    """`failures`: only an exit code other than 0 counts. `code_from`: whose exit code is `up`'s, "" for that of the first that ended."""

    failures: bool = False
    code_from: str = ""
    timeout: int | None = None


def abort_of(parsed: Parsed, project: Project) -> Abort | None:
    """What the words ask for. Raises `InvalidInput` for what contradicts it, `NotFound` for a service that is not in the project."""
    given = [name for name in ("abort-on-container-exit", "abort-on-container-failure") if parsed.on(name)]
    service = parsed.text("exit-code-from")
    if service:
        project.service(service)
        given.append("exit-code-from")
    if not given:
        return None
    if len(given) > 1 and "abort-on-container-failure" in given:
        raise InvalidInput(f"--{given[0]} and --{given[1]} contradict each other")
    for other in ("detach", "watch", "once", "wait"):
        if parsed.on(other):
            raise InvalidInput(f"--{given[0]} and --{other} contradict each other")
    timeout = parsed.number("timeout") if parsed.given("timeout") else None
    return Abort(given == ["abort-on-container-failure"], service, timeout)


async def until_one_ends(engine: Engine, name: str, services: Collection[str], abort: Abort) -> int:
    """Waits for that; the exit code that `up` has, unless `code_from` says another. 0 when all have ended well."""
    waiting = {
        asyncio.ensure_future(engine.wait(container.id)): container
        for container in await project_containers(engine, name, services)
    }
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                container, code = waiting.pop(task), _code(task)
                if code or not abort.failures:
                    print(f"{container.name} exited with code {code}: the others stop", file=sys.stderr)
                    return code
        return 0
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _code(task: asyncio.Future[int]) -> int:
    try:
        return task.result()
    except EngineError:  # nobody knows it
        return 255


async def stop_all(engine: Engine, project: Project, services: Collection[str], abort: Abort, code: int) -> int:
    """Stops what still runs; the code that `up` ends with."""

    def say(what: str, how: str) -> None:
        print(f" {what}  {how}", file=sys.stderr, flush=True)

    async def end(container: ContainerSummary) -> None:
        await stop(engine, project, container, abort.timeout, say)

    found = await project_containers(engine, project.name, services)
    await each_container(stop_order([c for c in found if c.running]), end, say, "Stopped")
    if abort.code_from:
        mine = [c for c in found if service_of(c) == abort.code_from]
        return await engine.wait(mine[0].id) if mine else 1
    return code
