"""`up`: the inner loop without the app.

`--detach` brings everything up, then leaves a process of ours that goes on watching; `down`, `stop` and the next `up` end it
(`engine.project.detached`). `--no-watch` leaves none.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine import api
from engine.cli.common import read, run
from engine.cli.flags import Flag, Parsed
from engine.cli.project_abort import ABORT_FLAGS, abort_of, stop_all, until_one_ends
from engine.cli.project_flags import GLOBAL_ONLY, PROJECT_FLAGS, Choice, state_dir
from engine.cli.project_show import Followers, JsonShow, LineShow, Prefixes, QuietShow, Show, colourful
from engine.errors import EngineError, InvalidInput, StartFailed
from engine.project import detached
from engine.project.control import each_container, project_containers, service_of
from engine.project.loop import InnerLoop
from engine.project.model import Project
from engine.project.plan import SyncMode
from engine.project.select import pulled, scaled, select, unbuilt

if TYPE_CHECKING:
    from engine.api import Engine

UP_FLAGS = [
    *PROJECT_FLAGS,
    *GLOBAL_ONLY,
    *ABORT_FLAGS,
    Flag("once", "Build and start, then exit: containers go on, nothing is watched"),
    Flag("detach", "The same, and leave a process that goes on watching", "d"),
    Flag("no-watch", "Do not watch: start, and show the logs"),
    Flag("watch", "Watch (that is what it does anyway)", "w"),
    Flag("wait", "Wait until services are running or healthy; implies --detach"),
    Flag("wait-timeout", "Seconds to wait for that", kind="int"),
    Flag("json", "Events as JSON, one object a line, instead of text"),
    Flag("build", "Build images first (that is what it does anyway: only what changed)"),
    Flag("no-build", "Build nothing, even if an image is missing"),
    Flag("force-recreate", "Recreate containers even if nothing changed"),
    Flag("no-deps", "Do not start linked services"),
    Flag("remove-orphans", "Remove containers of services that the project does not have"),
    Flag("scale", "Scale SERVICE to NUM instances: SERVICE=NUM", kind="list"),
    Flag("pull", "Pull images first: always, missing, never, policy", kind="str"),
    Flag(
        "sync", "Bring files that the build only copies into the container: files, or restart it after that", kind="str"
    ),
    Flag("stop-first", "Stop the old container before the new one starts"),
    Flag("no-log-prefix", "Do not print the service's name before its lines"),
    Flag("no-color", "Monochrome output"),
    Flag("timestamps", "Show timestamps"),
    Flag("quiet", "Print errors only", "q"),
    Flag("watcher", "Used by --detach: the process that it leaves"),
]


def cmd_up(root: Path, args: list[str]) -> int:
    return up(root, args, Choice(root))


def up(root: Path, args: list[str], choice: Choice) -> int:
    usage = "up [OPTIONS] [PATH | SERVICE...]"
    parsed = read(args, usage, "Build, run, watch and rebuild a project (default: the one here)", UP_FLAGS)
    if parsed is None:
        return 0
    _check(parsed)
    choice.add(parsed)
    names = list(parsed.args)
    if (
        len(names) == 1
        and not choice.files
        and Path(names[0]).is_dir()
        and ("/" in names[0] or names[0] in (".", ".."))
    ) or (len(names) == 1 and not choice.files and Path(names[0]).is_dir() and not _has_service(choice, names[0])):
        choice.folder, names = Path(names[0]).absolute(), []
    shaped = Shaped(choice, names, parsed)
    return run(root, lambda engine: _Up(engine, shaped, root, parsed).run())


def _has_service(choice: Choice, name: str) -> bool:
    try:
        choice.load([name]).service(name)
    except EngineError:
        return False
    return True


def _check(parsed: Parsed) -> None:
    for one, other in (
        ("build", "no-build"),
        ("watch", "no-watch"),
        ("once", "watch"),
        ("once", "detach"),
        ("no-watch", "watcher"),
    ):
        if parsed.on(one) and parsed.on(other):
            raise InvalidInput(f"--{one} and --{other} contradict each other")
    if parsed.text("sync") not in ("", "files", "restart"):
        raise InvalidInput(f"--sync {parsed.text('sync')!r} is neither files nor restart")


class Shaped:
    """The project as the words want it; asked again when its files change."""

    def __init__(self, choice: Choice, names: list[str], parsed: Parsed) -> None:
        self._choice, self.names, self._parsed = choice, names, parsed
        self.choice = choice

    def __call__(self) -> Project:
        parsed = self._parsed
        project = self._choice.load(self.names)
        if parsed.items("scale"):
            project = scaled(project, dict(_count(text) for text in parsed.items("scale")))
        if parsed.given("pull"):
            project = pulled(project, parsed.text("pull"))
        if parsed.on("no-build"):
            project = unbuilt(project)
        return select(project, self.names, dependencies=not parsed.on("no-deps"))


def _count(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not number.isdigit():
        raise InvalidInput(f"--scale {text!r}: write SERVICE=NUM")
    return name, int(number)


class _Up:
    def __init__(self, engine: Engine, shaped: Shaped, root: Path, parsed: Parsed) -> None:
        self._engine, self._shaped, self._root, self._parsed = engine, shaped, root, parsed
        self._project = shaped()
        self._abort = abort_of(parsed, self._project)
        self._state = state_dir(root)
        self._failed: set[str] = set()
        services = [service.name for service in self._project.services]
        self._show = self._make_show(services)
        self._hidden = {service.name for service in self._project.services if not service.attach}
        sync: SyncMode = parsed.text("sync")  # type: ignore[assignment]  # checked above
        self._loop = InnerLoop(
            engine,
            self._project,
            self._state,
            sync=sync,
            stop_first=parsed.on("stop-first"),
            force=parsed.on("force-recreate"),
            adopt=parsed.on("watcher"),
            reload=shaped,
        )
        self._followers = Followers(engine, self._show, since=time.time_ns())  # what was said before is in `logs`

    def _make_show(self, services: list[str]) -> Show:
        parsed = self._parsed
        if parsed.on("json") or parsed.text("progress") == "json":
            return JsonShow()
        if parsed.on("quiet"):
            return QuietShow()
        colours = colourful("never" if parsed.on("no-color") else parsed.text("ansi"))
        prefixes = Prefixes(services, colours=colours, shown=not parsed.on("no-log-prefix"))
        return LineShow(services, prefixes, timestamps=parsed.on("timestamps"))

    async def run(self) -> int:
        parsed = self._parsed
        once, code = parsed.on("once") or parsed.on("detach") or parsed.on("wait"), 0
        unwatched = parsed.on("no-watch") or self._abort is not None
        if not parsed.on("watcher") and detached.end(self._state, self._project.name):
            self._show.event(api.LoopNotice("the watcher that --detach left has ended: this one goes on"))
        services = [service.name for service in self._project.services]
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            if parsed.on("remove-orphans"):
                await self._remove_orphans()
            async for event in self._loop.events(once=once or unwatched):
                self._event(event, follow=not once and not parsed.on("watcher"))
            self._show.ready(sorted(self._failed))
            if self._abort is not None and self._failed:
                code = 1
            elif self._abort is not None:
                code = await until_one_ends(self._engine, self._project.name, services, self._abort)
            elif parsed.on("no-watch") and not once:
                await self._followers.ended()
        except asyncio.CancelledError:
            code = 130 if self._abort is not None else 0
            if self._abort is None and isinstance(self._show, LineShow):
                print("\nthe containers go on; `workbench ps` shows them", file=sys.stderr)
        finally:
            if self._abort is not None:
                code = await stop_all(self._engine, self._project, services, self._abort, code)
                await self._followers.ended()
            await self._followers.close()
            await self._loop.close()
        if parsed.on("wait"):
            await self._wait()
        if (parsed.on("detach") or parsed.on("wait")) and not parsed.on("no-watch"):
            self._leave_watcher()
        if self._abort is not None:
            return code or (1 if self._failed else 0)
        return 1 if once and self._failed else 0

    def _event(self, event: api.LoopEvent, *, follow: bool) -> None:
        self._show.event(event)
        if isinstance(event, api.ServiceBuildFailed):
            self._failed.add(event.service)
        if isinstance(event, api.ServiceState) and event.phase == "running":
            self._failed.discard(event.service)
            if follow and event.service not in self._hidden:
                self._followers.follow(event.service, event.container)

    async def _remove_orphans(self) -> None:
        known = {service.name for service in (*self._project.services, *self._project.others)}
        found = [c for c in await project_containers(self._engine, self._project.name) if service_of(c) not in known]
        say = lambda what, how: print(f"{what}  {how}", file=sys.stderr)  # noqa: E731
        await each_container([found], lambda c: self._engine.remove(c.id, force=True), say, "Removed")

    async def _wait(self) -> None:
        """`--wait`: until every container runs, and is healthy where it has a check. Raises `StartFailed`."""
        names = {service.name for service in self._project.services if service.scale}
        seconds = self._parsed.number("wait-timeout")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds or None):
                while True:
                    found = await project_containers(self._engine, self._project.name, names)
                    for container in found:
                        if not container.running and container.exit_code:
                            raise StartFailed(
                                f"{container.name} ended with exit code {container.exit_code}",
                                hint=f"workbench logs {container.name}",
                            )
                        if container.health == "unhealthy":
                            raise StartFailed(
                                f"{container.name} is unhealthy", hint=f"workbench inspect {container.name}"
                            )
                    if all(c.health in ("", "healthy") for c in found):
                        return
                    await asyncio.sleep(0.1)
        raise StartFailed(f"not healthy after {seconds} s")

    def _leave_watcher(self) -> None:
        words = ["--root", str(self._root), "up", "--watcher", "--json", *self._shaped.choice.words()]
        for flag in ("no-deps", "no-build", "stop-first"):
            words += [f"--{flag}"] if self._parsed.on(flag) else []
        words += [word for text in self._parsed.items("scale") for word in ("--scale", text)]
        for flag in ("pull", "sync"):
            words += [f"--{flag}", self._parsed.text(flag)] if self._parsed.given(flag) else []
        found = detached.begin(self._state, self._project.name, self._project.path, [*words, *self._shaped.names])
        if isinstance(self._show, LineShow):
            print(
                f"process {found.pid} goes on watching; `workbench down` ends it, {found.log} says what it does",
                file=sys.stderr,
            )
