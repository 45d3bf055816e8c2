"""Long work that the user started here: pulls, pushes and builds, each with a line of progress until it ends or is cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.api import BuildEvent, BuildFinished, BuildRequest, PullProgress
from engine.base.units import brief_seconds
from engine.errors import Cancelled, EngineError
from workbench.rows import brief_bytes
from workbench.screens.dialogs import Field, Form, Values
from workbench.state import neutral

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.panes.build import BuildPane
    from workbench.subjects import Subject

EVERY = 0.2  # seconds between two drawings of a progress line
T = TypeVar("T")


class Progress:
    """How far the blobs of one image are, as a line."""

    def __init__(self) -> None:
        self._layers: dict[str, PullProgress] = {}
        self._whole = ""

    def add(self, event: PullProgress) -> None:
        if event.layer:
            self._layers[event.layer] = event
        else:
            self._whole = event.text or event.phase

    def line(self) -> str:
        if not self._layers:
            return neutral(self._whole)
        layers = self._layers.values()
        done = sum(1 for one in layers if one.phase in ("done", "exists", "mounted"))
        current = sum(one.total if one.phase in ("done", "exists", "mounted") else one.current for one in layers)
        total = sum(one.total for one in layers)
        rate = sum(one.rate for one in layers if one.phase in ("downloading", "uploading"))
        parts = [f"{done} of {len(self._layers)} layers"]
        if total:
            parts.append(f"{brief_bytes(current)} of {brief_bytes(total)}")
        if rate:
            parts.append(f"{brief_bytes(rate)}/s, {brief_seconds(max(0.0, (total - current) / rate))} left")
        return " · ".join(parts)


async def read(events: AsyncIterator[T], take: Callable[[T], None], draw: Callable[[], None]) -> None:
    """Reads to the end and draws now and then, the last state included."""
    drawn = 0.0
    try:
        async for event in events:
            take(event)
            if (now := time.monotonic()) - drawn >= EVERY:
                drawn = now
                draw()
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def follow(app: WorkbenchApp, words: str, events: AsyncIterator[PullProgress]) -> None:
    """A pull or push to its end, with its line. Raises `EngineError`; `app.cancel` cancels it."""
    progress = Progress()
    with app.job(words) as job, app.log_command(f"workbench {words}") as entry:
        try:
            await read(events, progress.add, lambda: job.show(progress.line()))
        except EngineError as error:
            entry.fail(error.message)
            raise
        except asyncio.CancelledError:
            entry.fail("cancelled")
            app.say(f"cancelled: {words}")
            raise


async def pull(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    name = subjects[0].name if subjects and not subjects[0].name.startswith("sha256:") else ""
    fields = [Field("name", "image", name, "busybox, ghcr.io/owner/name:tag", needed=True)]
    form = Form("pull an image", fields, lambda values: f"workbench pull {values['name']}", verb="Pull")
    values = await app.push_screen_wait(form)
    if values:
        await follow(app, f"pull {values['name']}", app.bridge.engine.pull(values["name"]))
        app.say(f"pulled {values['name']}")


async def push(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        await follow(app, f"push {subject.name}", app.bridge.engine.push(subject.name))
        app.say(f"pushed {subject.name}")


def _build_line(values: Values) -> str:
    words = ["workbench build"]
    for flag, name in (("-t", "tag"), ("-f", "file"), ("--target", "target")):
        if values[name]:
            words.append(f"{flag} {values[name]}")
    words += [f"--build-arg {text}" for text in values["args"].split()]
    if values["no_cache"]:
        words.append("--no-cache")
    return " ".join([*words, values["folder"]])


async def build(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    fields = [
        Field("folder", "folder", ".", needed=True),
        Field("tag", "image name", "", "shop:latest"),
        Field("file", "Dockerfile", "", "Dockerfile in the folder"),
        Field("target", "stage", "", "the last one"),
        Field("args", "arguments", "", "VERSION=2 DEBUG=1"),
        Field("no_cache", "run every step", "", kind="switch"),
    ]
    values = await app.push_screen_wait(Form("build an image", fields, _build_line, verb="Build"))
    if values is None:
        return
    folder = Path(values["folder"]).expanduser().absolute()
    request = BuildRequest(
        folder,
        Path(values["file"]).expanduser().absolute() if values["file"] else None,
        tags=(values["tag"],) if values["tag"] else (),
        target=values["target"],
        build_args=dict(text.partition("=")[::2] for text in values["args"].split()),
        no_cache=bool(values["no_cache"]),
    )
    pane: BuildPane = app.panes["build"]  # type: ignore[assignment]
    pane.asked = request
    app.action_pane("build")
    await _follow_build(app, pane, request, _build_line(values))


async def _follow_build(app: WorkbenchApp, pane: BuildPane, request: BuildRequest, line: str) -> None:
    result: list[BuildFinished] = []

    def take(event: BuildEvent) -> None:
        pane.build_event(event)
        if isinstance(event, BuildFinished):
            result.append(event)

    with app.job(line.removeprefix("workbench ")), app.log_command(line) as entry:
        try:
            await read(app.bridge.engine.build(request), take, lambda: None)
        except Cancelled:
            entry.fail("cancelled")
        except EngineError as error:
            entry.fail(error.message)
            pane.build_failed(error)
            raise
    if result:
        tags = ", ".join(result[0].tags) or result[0].image_id[7:19]
        app.say(f"built {tags} in {brief_seconds(result[0].seconds)}")
