"""`build`: Docker's flags, a context from a folder, stdin, a URL or git, progress in the form that is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import brief_seconds, human_size
from engine.cli import build_flags
from engine.cli.common import clean, output_lines, read, run
from engine.cli.flags import Parsed
from engine.cli.images import PullDrawer
from engine.cli.progress import REFRESH, Progress, make_progress
from engine.errors import BuildFailed, InvalidInput, Unsupported
from engine.model import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildRequest,
    BuildStarted,
    PullProgress,
    StepFinished,
    StepOutput,
    StepStarted,
)

if TYPE_CHECKING:
    from engine.api import Engine

USAGE = "build [OPTIONS] PATH | URL | -"


def cmd_build(root: Path, args: list[str]) -> int:
    parsed = read(args, USAGE, "Build an image from a Dockerfile", build_flags.FLAGS, minimum=1, maximum=1)
    if parsed is None:
        return 0
    build_flags.refuse_attestations(parsed)
    if parsed.on("shell-on-error") and not sys.stdin.isatty():
        raise InvalidInput(
            "--shell-on-error needs a terminal on stdin", hint="leave it out where nobody is there to type"
        )
    with _source(parsed, root) as source:
        request = make_request(parsed, source)
        call = "check" if parsed.on("check") else parsed.text("call", "build")
        if call.partition(",")[0] != "build":
            if sys.platform != "linux":
                raise Unsupported(
                    "--call and --check need the builder, which is for Linux", hint="run it on a Linux host"
                )
            from engine.cli.build_calls import answer

            return answer(request, call, root)
        try:
            return run(root, lambda engine: _build(engine, request, parsed))
        except BuildFailed as error:
            if not error.image:
                raise
            from engine.cli.failed_shell import open_shell

            open_shell(root, error)
            return 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where the build's files are. `text` is the Dockerfile when it came on stdin."""

    context: Path
    dockerfile: Path | None = None
    text: str | None = None
    epoch: int | None = None  # a commit's time
    remote: str = ""  # where it came from


@contextlib.contextmanager
def _source(parsed: Parsed, root: Path) -> Iterator[Source]:
    """The context as a folder; one that came on a stream or from elsewhere is unpacked below the data root and removed after."""
    place, file = parsed.args[0], parsed.text("file")
    if place == "-" and file == "-":
        raise InvalidInput("stdin cannot be the context and the Dockerfile at once")
    from engine.build.reading import is_remote

    if place != "-" and not is_remote(place):
        context = Path(place)
        if not context.is_dir():
            raise InvalidInput(
                f"{context} is not a folder", hint="give the folder that holds the Dockerfile: workbench build ."
            )
        if file == "-":
            from engine.build.reading import read_text

            yield Source(context.absolute(), None, read_text(sys.stdin.buffer))
            return
        yield Source(context.absolute(), Path(file).absolute() if file else None)
        return
    if sys.platform != "linux":
        raise Unsupported(
            "a build context from elsewhere is unpacked on Linux alone", hint="fetch it into a folder, and build that"
        )
    (root / "tmp").mkdir(mode=0o710, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="context-", dir=root / "tmp"))
    try:
        with contextlib.ExitStack() as closing:
            yield _fetched(place, file, folder, parsed, root, closing)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(place: str, file: str, folder: Path, parsed: Parsed, root: Path, closing: contextlib.ExitStack) -> Source:
    from engine.build.remote import fetch_context

    request = BuildRequest(
        folder,
        secrets=build_flags.secrets(parsed.items("secret")),
        ssh=build_flags.ssh(parsed.items("ssh")),
        build_args=build_flags.build_args(parsed.items("build-arg")),
    )
    stream = sys.stdin.buffer if place == "-" else None
    found = fetch_context(place, folder, root, closing, request=request, stream=stream)
    dockerfile = found.dockerfile(file, "stdin" if place == "-" else place)
    return Source(found.context, dockerfile, found.text, found.epoch, "stdin" if place == "-" else place)


def make_request(parsed: Parsed, source: Source) -> BuildRequest:
    arguments = build_flags.build_args(parsed.items("build-arg"))
    if source.epoch is not None and arguments.get("SOURCE_DATE_EPOCH") == "context":
        arguments["SOURCE_DATE_EPOCH"] = str(source.epoch)
    return BuildRequest(
        context=source.context,
        dockerfile=source.dockerfile,
        dockerfile_text=source.text,
        remote=source.remote,
        tags=tuple(parsed.items("tag")),
        target=parsed.text("target"),
        build_args=arguments,
        labels=build_flags.pairs(parsed.items("label"), "label"),
        no_cache=parsed.on("no-cache"),
        pull=parsed.on("pull"),
        no_cache_filter=tuple(part for text in parsed.items("no-cache-filter") for part in text.split(",") if part),
        contexts=build_flags.pairs(parsed.items("build-context"), "build-context"),
        platforms=build_flags.platforms(parsed.items("platform")),
        secrets=build_flags.secrets(parsed.items("secret")),
        ssh=build_flags.ssh(parsed.items("ssh")),
        network=parsed.text("network"),
        add_hosts=tuple(parsed.items("add-host")),
        ulimits=tuple(parsed.items("ulimit")),
        shm_size=build_flags.size(parsed, "shm-size"),
        memory=build_flags.size(parsed, "memory"),
        allow=tuple(parsed.items("allow")),
        allow_metadata=parsed.on("allow-metadata"),
        cache_from=tuple(parsed.items("cache-from")),
        cache_to=tuple(parsed.items("cache-to")),
        outputs=build_flags.outputs(parsed),
        annotations=build_flags.pairs(parsed.items("annotation"), "annotation"),
        keep_failed=parsed.on("shell-on-error"),
        host_ca=parsed.on("host-ca") if parsed.given("host-ca") else None,
    )


async def _build(engine: Engine, request: BuildRequest, parsed: Parsed) -> int:
    progress = make_progress("quiet" if parsed.on("quiet") else parsed.text("progress", "auto"))
    explained: list[StepFinished] = []
    number = 0
    try:
        async with contextlib.aclosing(_ticking(engine.build(request), progress)) as events:
            async for event in events:
                progress.feed(event)
                if isinstance(event, BuildStarted):
                    number = event.number
                elif isinstance(event, StepFinished):
                    explained.append(event)
                elif isinstance(event, BuildFinished):
                    _write_files(event, parsed)
    except BaseException as error:
        progress.close(error)
        if number and sys.stderr.isatty() and not parsed.on("quiet"):
            print(f"the full output: workbench builds logs {number}", file=sys.stderr)
        raise
    progress.close()
    if parsed.on("explain"):
        print("\n".join(explain_lines(explained)))
    return 0


async def _ticking(events: AsyncIterator[BuildEvent], progress: Progress) -> AsyncGenerator[BuildEvent, None]:
    """The events; `progress.tick` is called between them while nothing happens."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(REFRESH)
            progress.tick()

    beating = asyncio.create_task(beat())
    try:
        async for event in events:
            yield event
    finally:
        beating.cancel()
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


def _write_files(event: BuildFinished, parsed: Parsed) -> None:
    """`--iidfile` and `--metadata-file`, as buildx writes them."""
    if parsed.given("iidfile"):
        Path(parsed.text("iidfile")).write_text(event.image_id)
    if parsed.given("metadata-file"):
        document: dict[str, object] = {
            "containerimage.config.digest": event.image_id,
            "containerimage.digest": event.digest,
        }
        if event.tags:
            document["image.name"] = ",".join(event.tags)
        Path(parsed.text("metadata-file")).write_text(json.dumps(document, indent=2) + "\n")


def explain_lines(steps: list[StepFinished]) -> list[str]:
    """Every step with all its causes, in the Dockerfile's order."""
    lines = []
    for event in sorted(steps, key=lambda event: (event.step.line, event.step.key)):
        step = event.step
        head = f"{step.line:>4}  [{step.stage} {step.number}/{step.total}] {clean(' '.join(step.instruction.split()))}"
        if event.cached:
            lines.append(f"{head}\n        cached")
            continue
        lines.append(f"{head}\n        ran in {brief_seconds(event.seconds)}, because:")
        lines += [f"          {clean(cause)}" for cause in event.causes or (event.reason,) if cause]
    return lines


class BuildPrinter:
    """For `up`: one line a step, its output indented below, the result last; each line behind the service's name."""

    def __init__(self, *, prefix: str = "") -> None:
        self._prefix = prefix
        self._pull: PullDrawer | None = None

    def _say(self, text: str) -> None:
        print(f"{self._prefix}{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._pull:
            self._pull.close()
            self._pull = None

    def feed(self, event: BuildEvent) -> None:
        if isinstance(event, PullProgress):
            self._pull = self._pull or PullDrawer()
            self._pull.feed(event)
            return
        self.close()
        match event:
            case StepStarted(step, reason) if reason:
                self._say(f"[{step.stage} {step.number}/{step.total}] {clean(step.instruction)}   ({reason})")
            case StepOutput(_, _, text):
                for line in output_lines(text):
                    self._say(f"    {line}")
            case StepFinished(step, True):
                self._say(f"[{step.stage} {step.number}/{step.total}] {clean(step.instruction)}   cached")
            case StepFinished(step, False, seconds, size):
                self._say(
                    f"[{step.stage} {step.number}/{step.total}] done in {brief_seconds(seconds)}, {human_size(size)}"
                )
            case BuildNotice(text):
                self._say(f"note: {text}")
            case BuildFinished(image_id, _, tags, seconds):
                self._say(
                    f"built {', '.join(tags) or image_id.removeprefix('sha256:')[:12]} in {brief_seconds(seconds)}"
                )
            case _:
                pass
