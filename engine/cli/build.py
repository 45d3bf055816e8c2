"""`build`: steps as lines, with the reason each ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import brief_seconds, human_size
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.cli.images import PullDrawer
from engine.errors import InvalidInput
from engine.model import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildRequest,
    PullProgress,
    StepFinished,
    StepOutput,
    StepStarted,
)

if TYPE_CHECKING:
    from engine.local import LocalEngine


def cmd_build(root: Path, args: list[str]) -> int:
    flags = [
        Flag("tag", "Name and optionally a tag (NAME:TAG)", "t", kind="list"),
        Flag("file", "Name of the Dockerfile (default PATH/Dockerfile)", "f", kind="str"),
        Flag("build-arg", "Set build-time variables", kind="list"),
        Flag("label", "Set metadata for the image", kind="list"),
        Flag("target", "Set the target build stage to build", kind="str"),
        Flag("no-cache", "Do not use cache when building the image"),
        Flag("pull", "Always attempt to pull a newer version of the base image"),
        Flag("quiet", "Print the image ID on success, nothing else", "q"),
        Flag("iidfile", "Write the image ID to the file", kind="str"),
    ]
    parsed = read(args, "build [OPTIONS] PATH", "Build an image from a Dockerfile", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    context = Path(parsed.args[0])
    if "://" in parsed.args[0] or parsed.args[0] == "-":
        raise InvalidInput(
            f"{parsed.args[0]}: only a folder can be a build context so far", hint="fetch it and give the folder"
        )
    if not context.is_dir():
        raise InvalidInput(
            f"{context} is not a folder", hint="give the folder that holds the Dockerfile: workbench build ."
        )
    build_args = {}
    for text in parsed.items("build-arg"):
        name, equals, value = text.partition("=")
        build_args[name] = value if equals else os.environ.get(name, "")
    request = BuildRequest(
        context.absolute(),
        Path(parsed.text("file")).absolute() if parsed.given("file") else None,
        tuple(parsed.items("tag")),
        parsed.text("target"),
        build_args,
        dict(text.partition("=")[::2] for text in parsed.items("label")),
        parsed.on("no-cache"),
        parsed.on("pull"),
    )

    async def work(engine: LocalEngine) -> int:
        printer = BuildPrinter(quiet=parsed.on("quiet"))
        try:
            async for event in engine.build(request):
                printer.feed(event)
                if isinstance(event, BuildFinished) and parsed.given("iidfile"):
                    Path(parsed.text("iidfile")).write_text(event.image_id)
        finally:
            printer.close()
        return 0

    return run(root, work)


class BuildPrinter:
    """One line a step, its output indented below, the result last."""

    def __init__(self, *, quiet: bool = False, prefix: str = "") -> None:
        self._quiet, self._prefix = quiet, prefix
        self._pull: PullDrawer | None = None

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(f"{self._prefix}{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._pull:
            self._pull.close()
            self._pull = None

    def feed(self, event: BuildEvent) -> None:
        if isinstance(event, PullProgress):
            self._pull = self._pull or PullDrawer(quiet=self._quiet)
            self._pull.feed(event)
            return
        self.close()
        match event:
            case StepStarted(step, reason) if reason:
                self._say(f"[{step.stage} {step.number}/{step.total}] {clean(step.instruction)}   ({reason})")
            case StepOutput(_, _, text):
                for line in text.splitlines():
                    self._say(f"    {clean(line.rsplit(chr(13), 1)[-1])}")
            case StepFinished(step, True):
                self._say(f"[{step.stage} {step.number}/{step.total}] {clean(step.instruction)}   cached")
            case StepFinished(step, False, seconds, size):
                self._say(
                    f"[{step.stage} {step.number}/{step.total}] done in {brief_seconds(seconds)}, {human_size(size)}"
                )
            case BuildNotice(text):
                self._say(f"note: {text}")
            case BuildFinished(image_id, _, tags, seconds):
                if self._quiet:
                    print(image_id)
                else:
                    self._say(
                        f"built {', '.join(tags) or image_id.removeprefix('sha256:')[:12]} in {brief_seconds(seconds)}"
                    )
            case _:
                pass
