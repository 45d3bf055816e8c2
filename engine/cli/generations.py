"""`generations`, `rollback`, `bisect` and `drift`: what a service was, and going back there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import brief_seconds, human_size
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag, Parsed
from engine.cli.project_flags import state_dir
from engine.cli.tables import table
from engine.errors import InvalidInput
from engine.project.discovery import discover
from engine.project.rollback import Bisection, Keeper
from engine.service.describe import ago

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.project.generations import Generation
    from engine.project.model import Project

_PROJECT = [
    Flag("file", "Compose files, the later over the earlier", "f", kind="list"),
    Flag("project-name", "The project's name (default: the folder's)", "p", kind="str"),
    Flag("project-directory", "Where the project is (default: here)", kind="str", metavar="DIR"),
]


def _project(parsed: Parsed) -> Project:
    return discover(
        Path(parsed.text("project-directory") or "."),
        files=tuple(map(Path, parsed.items("file"))),
        name=parsed.text("project-name"),
    )


def _service(parsed: Parsed, project: Project) -> str:
    """The one named, or the only one there is."""
    if parsed.args:
        return project.service(parsed.args[0]).name
    if len(project.services) == 1:
        return project.services[0].name
    names = ", ".join(service.name for service in project.services)
    raise InvalidInput("which service?", hint=f"services: {names}")


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text):
        return int(text)
    raise InvalidInput(f"{text!r} is not the number of a generation")


def cmd_generations(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "generations [OPTIONS] [SERVICE [FIRST SECOND]]",
        "List the generations of a service; with two numbers, what differs between them",
        _PROJECT,
        maximum=3,
    )
    if parsed is None:
        return 0
    project = _project(parsed)
    service = _service(parsed, project)
    numbers = [_number(text) for text in parsed.args[1:]]

    async def work(engine: Engine) -> int:
        keeper = Keeper(engine, project, state_dir(root))
        if numbers:
            listed = keeper.generations(service)
            second = numbers[1] if len(numbers) > 1 else listed.current
            await _compare(keeper, service, numbers[0], second)
            return 0
        listed = keeper.generations(service)
        rows = [_row(each, listed.current) for each in reversed(listed.generations)]
        print(table(["GENERATION", "IMAGE", "CREATED", "TOOK", "CHANGED", "STEP"], rows))
        return 0

    return run(root, work)


def _row(each: Generation, current: int) -> list[str]:
    mark = f"{each.number} *" if each.number == current else str(each.number)
    changed = (
        (each.paths[0] + (f" and {len(each.paths) - 1} more" if len(each.paths) > 1 else "")) if each.paths else ""
    )
    took = brief_seconds(sum(each.phases.values())) if each.phases else ""
    step = f"{each.step} (synced)" if each.synced else each.step
    return [
        mark,
        each.image.removeprefix("sha256:")[:12],
        ago(each.created),
        took,
        clean(changed),
        clean(step),
    ]


async def _compare(keeper: Keeper, service: str, first: int, second: int) -> None:
    found = await keeper.compare(service, first, second)
    for item in found.files:
        mark = {"added": "A", "removed": "D"}.get(item.kind, "C")
        print(f"{mark} {clean(item.path)}  {item.what}")
    for text in (*found.steps, *found.settings):
        print(clean(text))
    print(f"size {human_size(found.size_before)} → {human_size(found.size_after)}")


def cmd_rollback(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "rollback [OPTIONS] [SERVICE [GENERATION]]",
        "Run an earlier generation of a service again (default: the one before)",
        _PROJECT,
        maximum=2,
    )
    if parsed is None:
        return 0
    project = _project(parsed)
    service = _service(parsed, project)
    number = _number(parsed.args[1]) if len(parsed.args) > 1 else 0

    async def work(engine: Engine) -> int:
        begin = time.monotonic()
        found = await Keeper(engine, project, state_dir(root)).rollback(service, number)
        took = brief_seconds(time.monotonic() - begin)
        print(f"{service}: generation {found.number} ({found.image.removeprefix('sha256:')[:12]}) after {took}")
        return 0

    return run(root, work)


def cmd_bisect(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "bisect [OPTIONS] SERVICE start|good|bad|skip|reset",
        "Find the first bad generation of a service: each word runs the one to try next",
        [
            *_PROJECT,
            Flag("good", "Generation that is good (default: the oldest)", kind="str", metavar="N"),
            Flag("bad", "Generation that is bad (default: the one that runs)", kind="str", metavar="N"),
        ],
        minimum=2,
        maximum=2,
    )
    if parsed is None:
        return 0
    project, word = _project(parsed), parsed.args[1]
    service = _service(parsed, project)
    if word not in ("start", "good", "bad", "skip", "reset"):
        raise InvalidInput(f"{word!r} is none of start, good, bad, skip, reset")

    async def work(engine: Engine) -> int:
        keeper = Keeper(engine, project, state_dir(root))
        if word == "reset":
            print(f"{service}: generation {(await keeper.bisect_reset(service)).number} runs again")
            return 0
        if word == "start":
            good = _number(parsed.text("good")) if parsed.given("good") else 0
            bad = _number(parsed.text("bad")) if parsed.given("bad") else 0
            now = await keeper.bisect_start(service, good, bad)
        else:
            now = await keeper.bisect(service, word)  # type: ignore[arg-type]
        _tell(keeper, service, now)
        return 0

    return run(root, work)


def _tell(keeper: Keeper, service: str, now: Bisection) -> None:
    if now.trying:
        print(f"generation {now.trying} runs: good or bad?  (good {now.good}, bad {now.bad})")
        return
    listed = keeper.generations(service)
    found = listed.get(now.found)
    print(f"generation {found.number} is the first bad one")
    if now.skipped:
        print(f"  unless it is one that was skipped: {', '.join(map(str, now.skipped))}", file=sys.stderr)
    for path in found.paths:
        print(f"  {clean(path)}")
    if found.step:
        print(f"  {clean(found.step)}")
    print(f"`workbench bisect {service} reset` goes back to generation {now.began}", file=sys.stderr)


def cmd_drift(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "drift [OPTIONS] [SERVICE]",
        "Show what a service's container has that its image does not, and what the next container will have of it",
        _PROJECT,
        maximum=1,
    )
    if parsed is None:
        return 0
    project = _project(parsed)
    service = project.service(_service(parsed, project))

    async def work(engine: Engine) -> int:
        from engine.project.model import container_name

        found = await engine.drift(container_name(project, service), service.image)
        for each in found:
            print(f"{each.kind} {clean(each.path)}  {'in the image' if each.in_image else 'lost with this container'}")
        if not found:
            print("the container is as its image", file=sys.stderr)
        return 0

    return run(root, work)
