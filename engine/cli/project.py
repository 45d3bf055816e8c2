"""`up` and `demo`: the inner loop without the app, and the sample project."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import brief_seconds
from engine.cli.build import BuildPrinter
from engine.cli.common import clean, opened, read, run
from engine.cli.flags import Flag
from engine.errors import EngineError, NotFound
from engine.model import BuildFinished
from engine.project.discovery import discover
from engine.project.loop import InnerLoop

if TYPE_CHECKING:
    from engine.local import LocalEngine
    from engine.project.model import Project


def state_dir(root: Path) -> Path:
    return root / "projects"


def cmd_up(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "up [OPTIONS] [PATH]",
        "Build, run, watch and rebuild the project in PATH (default: here)",
        [
            Flag("once", "Build and start, then exit: containers go on"),
            Flag("file", "Compose files, the later over the earlier", "f", kind="list"),
            Flag("profile", "Also the services of a profile", kind="list"),
            Flag("project-name", "The project's name (default: the folder's)", "p", kind="str"),
        ],
        maximum=1,
    )
    if parsed is None:
        return 0
    project = discover(
        Path(parsed.args[0] if parsed.args else "."),
        files=tuple(map(Path, parsed.items("file"))),
        profiles=frozenset(parsed.items("profile")),
        name=parsed.text("project-name"),
    )
    return run(root, lambda engine: _Up(engine, project, root).run(once=parsed.on("once")))


class _Up:
    """Prints what the loop does, and every service's log behind its name."""

    def __init__(self, engine: LocalEngine, project: Project, root: Path) -> None:
        self._engine, self._loop = engine, InnerLoop(engine, project, state_dir(root))
        self._printers: dict[str, BuildPrinter] = {}
        self._offsets: dict[str, int] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._width = max(len(service.name) for service in project.services)
        self._failed = False

    async def run(self, *, once: bool) -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            async for event in self._loop.events(once=once):
                self._show(event, follow=not once)
        except asyncio.CancelledError:
            print("\nthe containers go on; `workbench ps` shows them", file=sys.stderr)
        finally:
            for follower in self._followers.values():
                follower.cancel()
            await self._loop.close()
        return 1 if once and self._failed else 0

    def _say(self, service: str, text: str) -> None:
        print(f"{service:<{self._width}} | {clean(text)}" if service else clean(text), file=sys.stderr, flush=True)

    def _show(self, event: object, *, follow: bool) -> None:
        from engine import api

        match event:
            case api.ProjectFound(name, path, _, _, notes):
                self._say("", f"project {name} in {path}")
                for note in notes:
                    self._say("", f"note: {note}")
            case api.ServiceBuild(service, inner):
                printer = self._printers.setdefault(service, BuildPrinter(prefix=f"{service:<{self._width}} | "))
                if not isinstance(inner, BuildFinished) or inner.first_changed:
                    printer.feed(inner)
            case api.ServiceBuildFailed(service, message, hint, still_runs=still_runs):
                self._failed = True
                for line in [*message.splitlines(), *([f"hint: {hint}"] if hint else [])]:
                    self._say(service, line)
                self._say(service, "not replaced: what ran before goes on" if still_runs else "not started")
            case api.ServiceState(service, "running", container):
                self._say(service, f"running as {container}")
                if follow:
                    before = self._followers.get(service)
                    self._followers[service] = asyncio.get_running_loop().create_task(
                        self._follow(service, container, before)
                    )
            case api.Replaced(service, _, generation, _, seconds):
                self._say(service, f"generation {generation} after {brief_seconds(seconds)}")
            case api.LoopNotice(text, service):
                self._say(service, text)
            case _:
                pass

    async def _follow(self, service: str, container: str, before: asyncio.Task[None] | None) -> None:
        """The log of one generation; what the one before has printed is not printed again."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            async for line in self._engine.logs(container, follow=True):
                if line.offset > self._offsets.get(service, 0):
                    self._offsets[service] = line.offset
                    print(f"{service:<{self._width}} | {line.text}", flush=True)
        except (NotFound, EngineError):
            return


def cmd_demo(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "demo [OPTIONS] [PATH]",
        "Make a small sample project in PATH (default: ./workbench-demo), build it, run it, open the app on it",
        [Flag("no-app", "Only write, build and start it")],
        maximum=1,
    )
    if parsed is None:
        return 0
    from engine.project.demo import write_demo

    folder = Path(parsed.args[0] if parsed.args else "workbench-demo").absolute()
    written = write_demo(folder)
    print(f"the demo project is in {folder}" + ("" if written else " (it was there already)"), file=sys.stderr)
    if parsed.on("no-app"):
        project = discover(folder)
        return run(root, lambda engine: _Up(engine, project, root).run(once=True))
    return open_app(root, folder)


def open_app(root: Path, folder: Path) -> int:
    """The Textual app on the project in `folder`; without a project there, on the engine alone."""
    from engine.cli.app import run_app

    try:
        project = discover(folder)
    except NotFound:
        project = None

    async def main() -> int:
        async with opened(root) as engine:
            loop = InnerLoop(engine, project, state_dir(root)) if project else None
            return await run_app(engine, loop, project.name if project else "")

    return asyncio.run(main())
