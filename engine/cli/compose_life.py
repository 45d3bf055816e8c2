"""`compose` down, stop, start, restart, kill, pause, unpause and rm: what happens to a project's containers, those that depend on others
first where they end, last where they start."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import run
from engine.cli.compose_common import find_containers, read_verb, say
from engine.cli.flags import Flag, Parsed
from engine.cli.project_flags import Choice, state_dir
from engine.errors import InvalidInput
from engine.model import ContainerSummary
from engine.project import control, detached
from engine.project.control import down, each_container, stop, stop_order
from engine.project.model import Project
from engine.project.resources import forget_files

if TYPE_CHECKING:
    from engine.api import Engine

Act = Callable[["Engine", Parsed, Project | None, ContainerSummary], Awaitable[object]]
_TIMEOUT = Flag("timeout", "Seconds to wait before killing a container", "t", kind="int")


def down_verb(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("volumes", "Remove the project's volumes, too", "v"),
        Flag("rmi", "Remove images used by services: all, or local (those without a name of their own)", kind="str"),
        Flag("remove-orphans", "Remove containers of services that the project does not have"),
        _TIMEOUT,
    ]
    parsed = read_verb(
        args, choice, "down [OPTIONS] [SERVICE...]", "Stop and remove a project's containers and networks", flags
    )
    if parsed is None:
        return 0
    which = parsed.text("rmi")
    if which not in ("", "all", "local"):
        raise InvalidInput(f"--rmi {which!r} is neither all nor local")
    name, project, error = choice.load_or_none()
    if len(parsed.args) == 1 and project is None and Path(parsed.args[0]).is_dir():
        choice.folder = Path(parsed.args[0]).absolute()
        parsed.args.clear()
        name, project, error = choice.load_or_none()
    if error is not None:
        print(f"note: {error.message}: by its name, {name}", file=sys.stderr)
    if not parsed.args and detached.end(state_dir(root), name):
        say("Watcher", "Ended")

    async def work(engine: Engine) -> int:
        outcome = await down(
            engine,
            name,
            project,
            say,
            services=parsed.args,
            timeout=parsed.number("timeout") if parsed.given("timeout") else None,
            volumes=parsed.on("volumes"),
            images=which,  # type: ignore[arg-type]  # checked above
            orphans=parsed.on("remove-orphans"),
        )
        if not parsed.args and not outcome.failed:
            forget_files(state_dir(root) / name)
            if which:
                for path in (state_dir(root) / name).glob("*.generations.json"):
                    path.unlink()
        return outcome.status

    return run(root, work)


@dataclass(frozen=True, slots=True)
class Verb:
    """`wanted` are the containers that it is for when no service is named; a named one that it cannot be for is an error."""

    name: str
    summary: str
    done: str
    act: Act
    flags: Sequence[Flag] = ()
    wanted: Callable[[ContainerSummary], bool] = lambda container: True
    none: str = ""  # what is said when there is nothing to do
    dependents: bool = False  # also for those that restart with a named one, unless --no-deps

    def __call__(self, root: Path, args: list[str], choice: Choice) -> int:
        parsed = read_verb(args, choice, f"{self.name} [OPTIONS] [SERVICE...]", self.summary, self.flags)
        if parsed is None:
            return 0
        name, project, _ = choice.load_or_none()
        if self.name == "stop" and not parsed.args and detached.end(state_dir(root), name):
            say("Watcher", "Ended")

        async def work(engine: Engine) -> int:
            found = await find_containers(engine, choice, parsed.args)
            if self.dependents and parsed.args and not parsed.on("no-deps"):
                everything = await find_containers(engine, choice, ())
                names = control.restarted_with(everything, parsed.args)
                found = [container for container in everything if control.service_of(container) in names]
            if not found:
                print(f"project {name} has no containers here", file=sys.stderr)
                return 0
            wanted = found if parsed.args else [c for c in found if self.wanted(c)]
            if not wanted:
                print(self.none, file=sys.stderr)
                return 0
            groups = stop_order(wanted)
            if self.name in ("start", "restart"):
                groups.reverse()
            outcome = await each_container(groups, lambda c: self.act(engine, parsed, project, c), say, self.done)
            return outcome.status

        return run(root, work)


def _timeout(parsed: Parsed) -> int | None:
    return parsed.number("timeout") if parsed.given("timeout") else None


async def _stop(engine: Engine, parsed: Parsed, project: Project | None, container: ContainerSummary) -> None:
    if container.running:
        await stop(engine, project, container, _timeout(parsed), say)


start = Verb("start", "Start services", "Started", lambda engine, _, project, c: control.start(engine, project, c))
stop_verb = Verb("stop", "Stop services", "Stopped", _stop, [_TIMEOUT])
restart = Verb(
    "restart",
    "Restart service containers",
    "Started",
    lambda e, p, project, c: control.restart(e, project, c, _timeout(p), say),
    [_TIMEOUT, Flag("no-deps", "Don't restart services that restart with those (depends_on: restart)")],
    dependents=True,
)
kill = Verb(
    "kill",
    "Force stop service containers",
    "Killed",
    lambda e, p, _, c: e.kill(c.id, p.text("signal", "KILL")),
    [Flag("signal", "SIGNAL to send to the container", "s", kind="str")],
    lambda c: c.running,
    "no container to kill",
)
pause = Verb(
    "pause",
    "Pause services",
    "Paused",
    lambda e, _p, _, c: e.pause(c.id),
    wanted=lambda c: c.status == "running",
    none="no container to pause",
)
unpause = Verb(
    "unpause",
    "Unpause services",
    "Unpaused",
    lambda e, _p, _, c: e.unpause(c.id),
    wanted=lambda c: c.status == "paused",
    none="no container is paused",
)


# --- rm ---------------------------------------------------------------------------------------------------


def remove(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("force", "Don't ask to confirm removal", "f"),
        Flag("stop", "Stop the containers, if required, before removing", "s"),
        Flag("volumes", "Remove any anonymous volumes attached to containers", "v"),
    ]
    parsed = read_verb(args, choice, "rm [OPTIONS] [SERVICE...]", "Remove stopped service containers", flags)
    if parsed is None:
        return 0
    project = choice.load_or_none()[1]

    async def end(engine: Engine, container: ContainerSummary) -> None:
        if container.running:
            await stop(engine, project, container, None, say)
        await engine.remove(container.id, volumes=parsed.on("volumes"))

    async def work(engine: Engine) -> int:
        found = await find_containers(engine, choice, parsed.args)
        found = [container for container in found if parsed.on("stop") or not container.running]
        if not found:
            print("No stopped containers", file=sys.stderr)
            return 0
        names = ", ".join(container.name for container in found)
        if not parsed.on("force") and not _confirmed(f"Going to remove {names}\nAre you sure? [yN] "):
            return 0
        return (await each_container(stop_order(found), lambda c: end(engine, c), say, "Removed")).status

    return run(root, work)


def _confirmed(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
