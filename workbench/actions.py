"""What each command of the table does: coroutines over the engine, run beside the app. Each notes in the command log what the same
is on the command line; what goes wrong is said by its `EngineError`, and the other subjects are still done."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from engine.errors import EngineError
from workbench import forms, generations, looking
from workbench.screens.dialogs import Confirm
from workbench.subjects import Subject, own_name
from workbench.transfers import build, pull, push

if TYPE_CHECKING:
    from engine.api import Engine
    from workbench.app import WorkbenchApp
    from workbench.commands import Command
    from workbench.panes.terminal import TerminalPane

AT_ONCE = 8  # containers that are stopped side by side: each may take its ten seconds

Perform = Callable[["WorkbenchApp", Sequence[Subject]], Awaitable[object]]
One = Callable[["Engine", str], Awaitable[object]]


async def perform(app: WorkbenchApp, command: Command, subjects: Sequence[Subject]) -> None:
    """Asks what is to be asked, then acts. Raises `EngineError`."""
    if command.kinds and not subjects:
        app.trouble(f"{command.title.lower()}: nothing is selected here")
        return
    if not command.many:
        subjects = subjects[:1]
    if command.needs == "confirm" and command.line:
        names = [each.name for each in subjects]
        if not await app.push_screen_wait(Confirm(command.title, names, command.line(subjects))):
            return
    await PERFORM[command.id](app, subjects)


def container_of(app: WorkbenchApp, subject: Subject) -> str:
    """The container's name; of a service the one that serves it. "" when there is none."""
    if subject.kind != "service":
        return subject.name
    return str(subject.record.container) if subject.record else ""


async def each(
    app: WorkbenchApp, words: str, names: Sequence[str], act: Callable[[str], Awaitable[object]], *, at_once: int = 1
) -> None:
    """Acts on every name, on so many `at_once`; the first failure is shown when all have been tried."""
    failed: list[EngineError] = []
    turns = asyncio.Semaphore(at_once)

    async def one(name: str) -> None:
        async with turns:
            with app.log_command(f"workbench {words} {shlex.quote(name)}") as entry:
                try:
                    await act(name)
                except EngineError as error:
                    entry.fail(error.message)
                    failed.append(error)

    many = f" and {len(names) - 3} more" if len(names) > 3 else ""
    with app.jobs.slow(f"{words} {' '.join(names[:3])}{many}"):
        await asyncio.gather(*map(one, names))
    if failed:
        raise failed[0]


def _containers(words: str, act: One) -> Perform:
    async def run(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
        names = [name for subject in subjects if (name := container_of(app, subject))]
        if not names:
            app.trouble("this service has no container yet")
        await each(app, words, names, lambda name: act(app.bridge.engine, name), at_once=AT_ONCE)

    return run


def _others(words: str, act: One, name: Callable[[Subject], str] = lambda subject: subject.name) -> Perform:
    async def run(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
        await each(app, words, [name(one) for one in subjects], lambda text: act(app.bridge.engine, text))

    return run


async def _pause(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    """Those that are paused go on, the others are paused."""
    for subject in subjects:
        name = container_of(app, subject)
        found = app.lists.container(name)
        paused = found is not None and found.status == "paused"
        act = app.bridge.engine.unpause if paused else app.bridge.engine.pause
        await each(app, "unpause" if paused else "pause", [name], act)


async def _rebuild(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    loop = app.bridge.loop
    if loop is None:
        app.trouble("there is no project in this folder to rebuild")
        return
    services = [name for subject in subjects if (name := app.service_of(subject))]
    if subjects and not services:
        app.trouble(f"{subjects[0].name} is no service of this project: only those are rebuilt")
        return
    app.log_line(f"workbench compose build {' '.join(services)}".rstrip() + " && workbench compose up -d")
    for service in services or [None]:  # type: ignore[list-item]
        await loop.rebuild(service)


async def _terminal(app: WorkbenchApp, subject: Subject, what: str) -> None:
    name = container_of(app, subject)
    serving = own_name(name)  # one that is being replaced will not live long enough for a shell
    if app.service_of(Subject("container", serving, serving)):
        name = serving
    found = app.lists.container(name)
    if found is None or not found.running:
        app.trouble(f"{name or subject.name} does not run: S starts it")
        return
    app.log_line(f"workbench {'exec -it' if what == 'shell' else 'attach'} {name}{' sh' if what == 'shell' else ''}")
    app.action_pane("terminal")
    pane: TerminalPane = app.panes["terminal"]  # type: ignore[assignment]
    pane.open(Subject("container", found.id, found.name, found), what)  # type: ignore[arg-type]


async def _inspect(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    from workbench.screens.inspect import Inspect, document

    subject = subjects[0]
    app.push_screen(Inspect(subject, await document(app, subject)))


async def _prune(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    from engine.base.units import human_size
    from workbench.screens.prune import PruneScreen

    choice = await app.push_screen_wait(PruneScreen(app.bridge.engine, lambda: app.lists))
    if choice is None:
        return
    with app.log_command(choice.command):
        found = await app.bridge.engine.prune_system(all=choice.all, volumes=choice.volumes)
    app.say(f"freed {human_size(found.reclaimed)}")
    await app.bridge.list()


async def _copy_names(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    many = f"{len(subjects)} names" if len(subjects) > 1 else "the name"
    await app.copy("\n".join(one.name for one in subjects), many)


async def _copy_ids(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    ids = [str(getattr(one.record, "id", "") or getattr(one.record, "diff_id", "") or one.id) for one in subjects]
    await app.copy("\n".join(ids), f"{len(ids)} ids" if len(ids) > 1 else "the id")


async def _copy_command(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    await app.copy(await forms.command_of(app.bridge.engine, subjects[0]), "the command")


PERFORM: dict[str, Perform] = {
    "container.stop": _containers("stop", lambda engine, name: engine.stop(name)),
    "container.start": _containers("start", lambda engine, name: engine.start(name)),
    "container.restart": _containers("restart", lambda engine, name: engine.restart(name)),
    "container.pause": _pause,
    "container.kill": _containers("kill", lambda engine, name: engine.kill(name)),
    "container.remove": _containers("rm -f", lambda engine, name: engine.remove(name, force=True)),
    "container.shell": lambda app, subjects: _terminal(app, subjects[0], "shell"),
    "container.attach": lambda app, subjects: _terminal(app, subjects[0], "attach"),
    "container.top": looking.processes,
    "container.changes": looking.changes,
    "container.browse": looking.browse,
    "container.rename": forms.rename,
    "container.commit": forms.commit,
    "service.rebuild": _rebuild,
    "service.rollback": generations.rollback,
    "service.compare": generations.compare,
    "image.run": forms.run,
    "image.tag": forms.tag,
    "image.push": push,
    "image.pull": pull,
    "image.remove": _others("rmi", lambda engine, name: engine.remove_image(name)),
    "volume.create": forms.create_volume,
    "volume.remove": _others("volume rm", lambda engine, name: engine.remove_volume(name)),
    "network.create": forms.create_network,
    "network.remove": _others("network rm", lambda engine, name: engine.remove_network(name)),
    "build.remove": _others("builds rm", lambda engine, name: engine.remove_build(int(name)), lambda one: one.id),
    "item.inspect": _inspect,
    "item.copy_name": _copy_names,
    "item.copy_id": _copy_ids,
    "item.copy_command": _copy_command,
    "app.build": build,
    "app.pull": pull,
    "app.prune": _prune,
    "app.rebuild": _rebuild,
}
