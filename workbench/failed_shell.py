"""A shell where a RUN step failed: built once more up to the failure, opened in the terminal, and what was done in it afterwards."""

from __future__ import annotations

import dataclasses
import io
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from engine import api
from engine.base.failed_step import ENVIRONMENT, HISTORY, SHELL, as_run, commands
from engine.errors import BuildFailed, EngineError, InvalidInput
from workbench.messages import Said
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral
from workbench.subjects import Subject
from workbench.widgets.lines_view import TextLine

if TYPE_CHECKING:
    from workbench.panes.build import BuildPane
    from workbench.panes.terminal import TerminalPane

SHOWN = 200  # changed paths that are listed


async def failed_image(engine: api.Engine, request: api.BuildRequest) -> str:
    """What the failed step left, as an image. The build gives nothing away: no tags, no outputs. Raises `EngineError`."""
    asked = dataclasses.replace(request, keep_failed=True, tags=(), outputs=(), cache_to=())
    try:
        async for _ in engine.build(asked):
            pass
    except BuildFailed as error:
        if error.image:
            return error.image
        raise InvalidInput(f"no RUN step failed, so there is nothing to look into: {error.message}") from error
    raise InvalidInput("it builds now: there is no failed step any more", hint="r builds and replaces what runs")


async def open_shell(pane: BuildPane, request: api.BuildRequest) -> None:
    """Until the shell has ended. Raises `EngineError`."""
    engine = pane.bridge.engine
    pane.post_message(Said("building up to the failed step …"))
    image = await failed_image(engine, request)
    name = f"failed-step-{secrets.token_hex(3)}"
    spec = api.ContainerSpec(
        image=image, name=name, entrypoint=("/bin/sh",), command=("-c", SHELL), env=ENVIRONMENT, tty=True, open_stdin=True,
        stdin_once=True,
    )  # fmt: skip
    await engine.create(spec)
    pane.shells.append(name)
    await engine.start(name)
    pane.app_.action_pane("terminal")
    terminal: TerminalPane = pane.app_.panes["terminal"]  # type: ignore[assignment]
    terminal.open(Subject("container", name, name), "attach")
    if request.secrets or request.ssh:
        pane.post_message(Said("the step's mounts, secrets and agents are not in this shell; exit ends it"))
    await engine.wait(name)
    lines = await _report(engine, name)
    pane.shells.remove(name)
    await engine.remove(name, force=True)
    with suppress(EngineError):  # another shell is on it
        await engine.remove_image(image)
    if lines:
        pane.app.push_screen(ReadingScreen("done in the failed step", lines, note="y copies a line, Y all"))


async def _report(engine: api.Engine, name: str) -> list[TextLine]:
    """What was typed, as an instruction, and what it changed. Nothing for who only looked."""
    changes = [change for change in await engine.changes(name) if change.path != HISTORY]
    if not changes:
        return []
    typed: list[str] = []
    data = io.BytesIO()
    try:
        await engine.get_archive(name, HISTORY, data)
        typed = commands(data.getvalue())
    except EngineError:
        pass  # this shell keeps no history
    lines: list[TextLine] = []
    if typed:
        lines.append(TextLine("What was typed, as a line for the Dockerfile (take out what is not needed):", "dim"))
        lines += [TextLine(line) for line in as_run([neutral(each) for each in typed]).split("\n")]
    else:
        lines.append(TextLine("The image's shell keeps no history: write what you did as a RUN line.", "dim"))
    lines += [TextLine(""), TextLine(f"It changed ({len(changes)}):", "dim")]
    lines += [TextLine(f"  {change.kind} {neutral(change.path)}") for change in changes[:SHOWN]]
    return lines
