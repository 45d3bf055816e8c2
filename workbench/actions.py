"""What each command of the table does. Every one is a coroutine over the engine; the app runs it beside itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from workbench.commands import Command
from workbench.screens.dialogs import Confirm
from workbench.subjects import Subject

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.panes.terminal import TerminalPane

Perform = Callable[["WorkbenchApp", Sequence[Subject]], Awaitable[object]]


async def perform(app: WorkbenchApp, command: Command, subjects: Sequence[Subject]) -> None:
    if command.kinds and not subjects:
        return
    if command.needs == "confirm" and command.line:
        question = f"{command.title} {', '.join(each.name for each in subjects)}?"
        if not await app.push_screen_wait(Confirm(question, command.line(subjects))):
            return
    act = _PERFORM.get(command.id)
    if act is None:
        app.trouble(f"{command.title} is not in the app yet")
        return
    await act(app, subjects)


def _container(subject: Subject) -> str:
    return str(subject.record.container) if subject.kind == "service" else subject.name


def _each(verb: Callable[[WorkbenchApp, str], Awaitable[object]]) -> Perform:
    async def run(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
        for subject in subjects:
            if name := _container(subject):
                await verb(app, name)

    return run


async def _rebuild(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    loop = app.bridge.loop
    if loop is None:
        app.trouble("there is no project in this folder to rebuild")
        return
    services = [each.name for each in subjects if each.kind == "service"]
    if not services:
        await loop.rebuild()
    for name in services:
        await loop.rebuild(name)


async def _remove_images(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        await app.bridge.engine.remove_image(subject.name)


async def _terminal(app: WorkbenchApp, subjects: Sequence[Subject], what: str) -> None:
    app.action_pane("terminal")
    pane: TerminalPane = app.panes["terminal"]  # type: ignore[assignment]
    pane.open(subjects[0], what)  # type: ignore[arg-type]


_PERFORM: dict[str, Perform] = {
    "container.stop": _each(lambda app, name: app.bridge.engine.stop(name)),
    "container.start": _each(lambda app, name: app.bridge.engine.start(name)),
    "container.restart": _each(lambda app, name: app.bridge.engine.restart(name)),
    "container.kill": _each(lambda app, name: app.bridge.engine.kill(name)),
    "container.remove": _each(lambda app, name: app.bridge.engine.remove(name, force=True)),
    "container.shell": lambda app, subjects: _terminal(app, subjects, "shell"),
    "container.attach": lambda app, subjects: _terminal(app, subjects, "attach"),
    "image.remove": _remove_images,
    "service.rebuild": _rebuild,
    "app.rebuild": _rebuild,
}
