"""`images`, `history`, `pull`, `tag`, `rmi`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.base.clock import go_time, rfc3339
from engine.base.units import human_size
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.cli.nouns import filters
from engine.cli.tables import render, table
from engine.errors import EngineError, InvalidInput, NotFound
from engine.oci.reference import Reference
from engine.service.describe import ago

if TYPE_CHECKING:
    from rich.progress import TaskID

    from engine.api import Engine
    from engine.model import ImageSummary, PullProgress


def short(digest: str, full: bool = False) -> str:
    return digest if full else digest.removeprefix("sha256:")[:12]


IMAGE_FLAGS = [
    Flag("all", "Show all images (default hides intermediate images)", "a"),
    Flag("digests", "Show digests"),
    Flag("filter", "Filter output: before, dangling, label, reference, since, until", "f", kind="list"),
    Flag("format", "Format output: table, json, or a template of {{.Field}}", kind="str"),
    Flag("no-trunc", "Don't truncate output"),
    Flag("quiet", "Only show image IDs", "q"),
]


def cmd_images(root: Path, args: list[str]) -> int:
    parsed = read(args, "images [OPTIONS] [REPOSITORY[:TAG]]", "List images", IMAGE_FLAGS, maximum=1)
    if parsed is None:
        return 0
    wanted = filters(parsed.items("filter"))
    if parsed.args:
        wanted.setdefault("reference", []).append(parsed.args[0])

    async def work(engine: Engine) -> int:
        rows, form = [], parsed.text("format")
        digests = parsed.on("digests") or ".Digest" in form
        for image in await engine.images(all=True, filters=wanted):
            rows += _rows(image, digests, parsed.on("no-trunc"))
        if parsed.on("quiet"):
            print("\n".join(str(row["ID"]) for row in rows), end="\n" if rows else "")
        elif form and form != "table":
            print(render(form, rows, {"ID": "IMAGE ID"}), end="\n" if rows else "")
        else:
            names = ["Repository", "Tag", *(["Digest"] if parsed.on("digests") else []), "ID", "CreatedSince", "Size"]
            titles = {"ID": "IMAGE ID", "CreatedSince": "CREATED"}
            print(table([titles.get(n, n.upper()) for n in names], [[str(row[n]) for n in names] for row in rows]))
        return 0

    return run(root, work, plain=True)


def _rows(image: ImageSummary, digests: bool, full: bool) -> list[dict[str, object]]:
    """A line for each tag; with digests, one for each digest that a repository of those tags is known by."""
    from engine.oci.reference import Reference

    rows = []
    named = {(one := Reference.parse(text)).familiar_name: str(one.digest) for text in image.repo_digests}
    for tag in image.tags or ("",):
        reference = Reference.parse(tag) if tag else None
        repository = reference.familiar_name if reference else "<none>"
        digest = named.get(repository, "<none>") if digests else "<none>"
        rows.append(_row(image, repository, reference.tag if reference else "<none>", digest, full))
    return rows


def _row(image: ImageSummary, repository: str, tag: str, digest: str, full: bool) -> dict[str, object]:
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": image.id if full else short(image.id),
        "Digest": digest,
        "CreatedSince": ago(image.created or 1),  # an image may say that it is of 1970
        "CreatedAt": go_time(image.created),
        "Size": human_size(image.size),
        "Containers": "N/A",  # as Docker: `system df -v` counts them
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "VirtualSize": human_size(image.size, 4),
    }


def cmd_history(root: Path, args: list[str]) -> int:
    flags = [
        Flag("no-trunc", "Don't truncate output"),
        Flag("quiet", "Only show image IDs", "q"),
        Flag("human", "Print sizes and dates in human readable format (default true)", "H"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "history [OPTIONS] IMAGE", "Show the history of an image", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        detail = await engine.image(parsed.args[0])
        full, human = parsed.on("no-trunc"), parsed.on("human") or not parsed.given("human")
        rows: list[dict[str, object]] = []
        for layer in reversed(detail.layers):
            command = clean(layer.created_by)
            rows.append(
                {
                    "ID": short(detail.summary.id, full) if layer is detail.layers[-1] else "<missing>",
                    "CreatedSince": ago(layer.created) if human else rfc3339(layer.created),
                    "CreatedAt": rfc3339(layer.created),
                    "CreatedBy": command if full or len(command) <= 45 else command[:44] + "…",
                    "Size": human_size(layer.size) if human else str(layer.size),
                    "Comment": layer.comment or ("buildkit.dockerfile.v0" if layer.line else ""),
                }
            )
        if parsed.on("quiet"):
            print("\n".join(str(row["ID"]) for row in rows))
        elif parsed.given("format"):
            print(render(parsed.text("format"), rows, {"ID": "IMAGE"}))
        else:
            print(
                table(
                    ["IMAGE", "CREATED" if human else "CREATED AT", "CREATED BY", "SIZE", "COMMENT"],
                    [
                        [str(row[name]) for name in ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")]
                        for row in rows
                    ],
                )
            )
        return 0

    return run(root, work, plain=True)


def cmd_pull(root: Path, args: list[str]) -> int:
    flags = [
        Flag("platform", "Set platform if server is multi-platform capable", kind="str"),
        Flag("quiet", "Suppress verbose output", "q"),
        Flag("all-tags", "Download all tagged images in the repository", "a"),
    ]
    usage = "pull [OPTIONS] NAME[:TAG|@DIGEST] | pull ssh://[USER@]HOST[/ENGINE] IMAGE"
    parsed = read(
        args, usage, "Download an image from a registry, or another host over SSH", flags, minimum=1, maximum=2
    )
    if parsed is None:
        return 0
    if parsed.args[0].startswith("ssh://"):
        return _from_host(root, parsed.args)
    if len(parsed.args) > 1:
        raise InvalidInput("pull takes one name", hint="or ssh://[USER@]HOST[/ENGINE] IMAGE")
    name = Reference.parse(parsed.args[0])
    full, every = name.with_default_tag(), parsed.on("all-tags")

    async def work(engine: Engine) -> int:
        quiet, new = parsed.on("quiet"), False
        if not quiet and name != full and not every:
            print("Using default tag: latest")
        events = engine.pull(parsed.args[0], platform=parsed.text("platform"), all_tags=every)
        async for reference, its in _images_of(events):
            one = Reference.parse(reference).with_default_tag()
            if not quiet:
                print(f"{one.digest or one.tag}: Pulling from {one.path}", flush=True)
            new = not await show_pull(its, quiet=quiet, out=sys.stdout) or new
            if every and not quiet:
                print()
        shown = name.familiar_name if every else full.familiar
        if not quiet:
            print(f"Status: {'Downloaded newer image' if new else 'Image is up to date'} for {shown}")
        print(name.name if every else full)
        return 0

    return run(root, work)


async def _images_of(
    events: AsyncIterator[PullProgress],
) -> AsyncIterator[tuple[str, AsyncIterator[PullProgress]]]:
    """One transfer of several images as one of each: an image begins with "resolving" and ends with "done"."""

    async def until_done() -> AsyncIterator[PullProgress]:
        async for event in events:
            yield event
            if event.phase == "done" and not event.layer:
                return

    async for event in events:
        if event.phase == "resolving":
            yield event.reference, until_done()


def _from_host(root: Path, args: list[str]) -> int:
    if len(args) != 2:
        raise InvalidInput("name the image to pull", hint=f"workbench pull {args[0]} IMAGE")

    async def work(engine: Engine) -> int:
        with drawn(sys.stderr) as progress:
            image = await engine.pull_from_host(*args, progress=progress)
        print(f"{args[1]} is here\nDigest: {image.digest}")
        return 0

    return run(root, work)


@contextlib.contextmanager
def drawn(out: TextIO) -> Iterator[Callable[[PullProgress], None]]:
    """What a transfer to or from another host reports, drawn: a bar on a terminal, notes alone elsewhere."""
    drawer, lock = PullDrawer(out=out, words=_HOST_WORDS), threading.Lock()

    def feed(event: PullProgress) -> None:
        if out.isatty() or event.text:
            with lock:
                drawer.feed(event)

    try:
        yield feed
    finally:
        drawer.close()


async def show_pull(
    events: AsyncIterator[PullProgress],
    *,
    quiet: bool = False,
    out: TextIO = sys.stderr,
    words: Mapping[str, str] | None = None,
) -> bool:
    """Draws a transfer: bars with bytes, rate and time left on a terminal, Docker's lines elsewhere. True: it was here already."""
    drawer, same = PullDrawer(quiet=quiet, out=out, words=words), False
    try:
        async for event in events:
            same = same or (event.phase == "exists" and not event.layer)
            drawer.feed(event)
        return same
    finally:
        drawer.close()


_HOST_WORDS = {"uploading": "to the other host", "downloading": "from the other host", "exists": "is there"}
_WORDS = {
    "waiting": "Pulling fs layer",
    "downloading": "Downloading",
    "done": "Download complete",
    "extracting": "Extracting",
    "exists": "Already exists",
}


class PullDrawer:
    """`words` are what each phase is called: a pull's, unless others are given."""

    def __init__(
        self, *, quiet: bool = False, out: TextIO = sys.stderr, words: Mapping[str, str] | None = None
    ) -> None:
        self._quiet, self._out, self._words = quiet, out, words or _WORDS
        self._live = None
        self._seen: set[tuple[str, str]] = set()
        if out.isatty() and not quiet:
            from rich.console import Console  # 60 ms that only a terminal needs
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
                console=Console(file=out),
            )
            self._tasks: dict[str, TaskID] = {}
            self._live.start()

    def feed(self, event: PullProgress) -> None:
        if self._quiet:
            return
        if self._live is not None and event.layer:
            words = f"{event.layer}: {self._said(event)}"
            if event.layer not in self._tasks:
                self._tasks[event.layer] = self._live.add_task(words, total=event.total or None)
            if event.phase == "extracting":
                self._live.update(self._tasks[event.layer], description=words)
            else:
                self._live.update(
                    self._tasks[event.layer], description=words, completed=event.current, total=event.total or None
                )
            return
        key = (event.layer, event.phase if event.layer else event.text)
        if key in self._seen:
            return
        self._seen.add(key)
        if event.layer:
            print(f"{event.layer}: {self._said(event)}", file=self._out, flush=True)
        elif event.text:
            print(event.text, file=self._out, flush=True)

    def _said(self, event: PullProgress) -> str:
        return event.text or self._words.get(event.phase, event.phase)

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

    async def work(engine: Engine) -> int:
        await engine.tag(*parsed.args)
        return 0

    return run(root, work, plain=True)


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

    async def work(engine: Engine) -> int:
        status = 0
        for name in parsed.args:
            try:
                print("\n".join(await engine.remove_image(name, force=parsed.on("force"))))
            except EngineError as error:
                status = 1 if not (parsed.on("force") and isinstance(error, NotFound)) else status
                print(f"workbench: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return status

    return run(root, work, plain=True)
