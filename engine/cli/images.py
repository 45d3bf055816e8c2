"""`images`, `history`, `pull`, `tag`, `rmi`."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import rfc3339
from engine.base.units import human_duration, human_size
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.cli.tables import render, table
from engine.errors import EngineError, InvalidInput, NotFound
from engine.model import ImageSummary, PullProgress

if TYPE_CHECKING:
    from engine.local import LocalEngine


def ago(ns: int) -> str:
    return f"{human_duration((time.time_ns() - ns) / 1e9)} ago" if ns else "N/A"


def short(digest: str, full: bool = False) -> str:
    return digest if full else digest.removeprefix("sha256:")[:12]


def cmd_images(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Show all images (default hides dangling ones)", "a"),
        Flag("quiet", "Only show image IDs", "q"),
        Flag("no-trunc", "Don't truncate output"),
        Flag("digests", "Show digests"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "images [OPTIONS] [REPOSITORY[:TAG]]", "List images", flags, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        from engine.oci.reference import Reference

        rows = []
        wanted = Reference.parse(parsed.args[0]) if parsed.args else None
        for image in await engine.images(all=True):
            for tag in image.tags or ("",):
                reference = Reference.parse(tag) if tag else None
                if wanted and (
                    reference is None or reference.name != wanted.name or (wanted.tag and reference.tag != wanted.tag)
                ):
                    continue
                rows.append(
                    _row(
                        image,
                        reference.familiar_name if reference else "<none>",
                        reference.tag if reference else "<none>",
                        parsed.on("no-trunc"),
                    )
                )
        if parsed.on("quiet"):
            print("\n".join(dict.fromkeys(str(row["ID"]) for row in rows)), end="\n" if rows else "")
        elif parsed.given("format"):
            print(render(parsed.text("format"), rows), end="\n" if rows else "")
        else:
            names = ["Repository", "Tag", *(["Digest"] if parsed.on("digests") else []), "ID", "CreatedSince", "Size"]
            titles = {"ID": "IMAGE ID", "CreatedSince": "CREATED"}
            print(table([titles.get(n, n.upper()) for n in names], [[str(row[n]) for n in names] for row in rows]))
        return 0

    return run(root, work)


def _row(image: ImageSummary, repository: str, tag: str, full: bool) -> dict[str, object]:
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": short(image.id, full),
        "Digest": image.digest,
        "CreatedSince": ago(image.created),
        "CreatedAt": rfc3339(image.created),
        "Size": human_size(image.size),
    }


def cmd_history(root: Path, args: list[str]) -> int:
    flags = [
        Flag("no-trunc", "Don't truncate output"),
        Flag("quiet", "Only show layer digests", "q"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "history [OPTIONS] IMAGE", "Show the history of an image", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        detail = await engine.image(parsed.args[0])
        full = parsed.on("no-trunc")
        rows: list[dict[str, object]] = []
        for layer in reversed(detail.layers):
            command = clean(layer.created_by)
            rows.append(
                {
                    "ID": short(detail.summary.id, full) if layer is detail.layers[-1] else "<missing>",
                    "CreatedSince": ago(layer.created),
                    "CreatedBy": command if full or len(command) <= 45 else command[:44] + "…",
                    "Size": human_size(layer.size),
                    "Comment": "buildkit.dockerfile.v0" if layer.line else "",
                }
            )
        if parsed.on("quiet"):
            print("\n".join(str(row["ID"]) for row in rows))
        elif parsed.given("format"):
            print(render(parsed.text("format"), rows))
        else:
            print(
                table(
                    ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"],
                    [[str(value) for value in row.values()] for row in rows],
                )
            )
        return 0

    return run(root, work)


def cmd_pull(root: Path, args: list[str]) -> int:
    flags = [Flag("quiet", "Suppress verbose output", "q")]
    parsed = read(
        args, "pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", flags, minimum=1, maximum=1
    )
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        await show_pull(engine.pull(parsed.args[0]), quiet=parsed.on("quiet"))
        print(
            (await engine.image(parsed.args[0])).summary.tags[0]
            if parsed.on("quiet")
            else f"Status: {parsed.args[0]} is here"
        )
        return 0

    return run(root, work)


def cmd_push(root: Path, args: list[str]) -> int:
    flags = [
        Flag("quiet", "Suppress verbose output", "q"),
        Flag("all-tags", "Push all tags of an image to the repository", "a"),
    ]
    parsed = read(args, "push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        for name in await _pushed(engine, parsed.args[0], parsed.on("all-tags")):
            await show_pull(engine.push(name), quiet=parsed.on("quiet"))
            if parsed.on("quiet"):
                print(name)
        return 0

    return run(root, work)


async def _pushed(engine: LocalEngine, name: str, every_tag: bool) -> list[str]:
    from engine.oci.reference import Reference

    if not every_tag:
        return [Reference.parse(name).with_default_tag().familiar]
    repository = Reference.parse(name)
    if repository.tag or repository.digest:
        raise InvalidInput(f"{name}: a tag cannot be used with --all-tags", hint="give the repository's name alone")
    tags = [Reference.parse(tag) for image in await engine.images(all=True) for tag in image.tags]
    found = sorted(tag.familiar for tag in tags if tag.name == repository.name)
    if not found:
        raise NotFound(f"no image has a tag of {name}", hint="`workbench images` lists what is here")
    return found


async def show_pull(events: AsyncIterator[PullProgress], *, quiet: bool = False) -> None:
    """Draws a pull: bars with bytes, rate and time left on a terminal, lines elsewhere."""
    drawer = PullDrawer(quiet=quiet)
    try:
        async for event in events:
            drawer.feed(event)
    finally:
        drawer.close()


class PullDrawer:
    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = None
        self._seen: dict[tuple[str, str], int] = {}
        if sys.stderr.isatty() and not quiet:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(20),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._tasks: dict[str, int] = {}
            self._live.start()

    def feed(self, event: PullProgress) -> None:
        if self._quiet:
            return
        if self._live is not None and event.layer:
            from rich.progress import TaskID

            task = self._tasks.setdefault(event.layer, -1)
            if task < 0:
                task = self._tasks[event.layer] = self._live.add_task(event.layer, total=event.total or None)
            words = f"{event.layer} {event.phase}"
            if event.phase == "extracting":
                self._live.update(TaskID(task), description=words)
            else:
                self._live.update(TaskID(task), description=words, completed=event.current, total=event.total or None)
            return
        key = (event.layer, event.phase)
        if key not in self._seen:
            self._seen[key] = 1
            what = event.text or event.phase
            print(f"{event.layer or event.reference}: {what}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def cmd_tag(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        [],
        minimum=2,
        maximum=2,
    )
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        await engine.tag(*parsed.args)
        return 0

    return run(root, work)


def cmd_rmi(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "rmi [OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        [Flag("force", "Force removal of the image", "f")],
        minimum=1,
    )
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        status = 0
        for name in parsed.args:
            try:
                print("\n".join(await engine.remove_image(name, force=parsed.on("force"))))
            except EngineError as error:
                status = 1
                print(f"workbench: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return status

    return run(root, work)
