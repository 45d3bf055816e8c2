"""`push`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.images import drawn, show_pull
from engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.api import Engine

PUSH_WORDS = {
    "waiting": "Preparing",
    "packing": "Compressing",
    "uploading": "Pushing",
    "done": "Pushed",
    "exists": "Layer already exists",
    "mounted": "Mounted",
}


def cmd_push(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all-tags", "Push all tags of an image to the repository", "a"),
        Flag("quiet", "Suppress verbose output", "q"),
    ]
    usage = "push [OPTIONS] NAME[:TAG] | push ssh://[USER@]HOST[/ENGINE] IMAGE"
    parsed = read(
        args, usage, "Upload an image to a registry, or to another host over SSH", flags, minimum=1, maximum=2
    )
    if parsed is None:
        return 0
    if parsed.args[0].startswith("ssh://"):
        return _to_host(root, parsed.args)
    if len(parsed.args) > 1:
        raise InvalidInput("push takes one name", hint="or ssh://[USER@]HOST[/ENGINE] IMAGE")

    async def work(engine: Engine) -> int:
        from engine.oci.reference import Reference

        quiet = parsed.on("quiet")
        names = await _names(engine, parsed.args[0], parsed.on("all-tags"))
        if not quiet and not (Reference.parse(parsed.args[0]).tag or parsed.on("all-tags")):
            print("Using default tag: latest")
        for name in names:
            await show_pull(engine.push(name), quiet=quiet, out=sys.stdout, words=PUSH_WORDS)
            if quiet:
                print(Reference.parse(name))
        return 0

    return run(root, work)


def _to_host(root: Path, args: list[str]) -> int:
    if len(args) != 2:
        raise InvalidInput("name the image to push", hint=f"workbench push {args[0]} IMAGE")

    async def work(engine: Engine) -> int:
        with drawn(sys.stderr) as progress:
            taken = await engine.push_to_host(*args, progress=progress)
        print(f"{args[1]} is on {args[0]}, taken by {taken}")
        return 0

    return run(root, work)


async def _names(engine: Engine, name: str, every_tag: bool) -> list[str]:
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
