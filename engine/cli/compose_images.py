"""`compose build`, `pull`, `push`, `images`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import human_size
from engine.cli.build import BuildPrinter
from engine.cli.build_flags import build_args
from engine.cli.common import run
from engine.cli.compose_common import find_containers, read_verb, say
from engine.cli.flags import Flag
from engine.cli.images import show_pull
from engine.cli.project_flags import Choice
from engine.cli.project_show import Prefixes, colourful
from engine.cli.push import PUSH_WORDS
from engine.cli.tables import table
from engine.errors import EngineError, InvalidInput, NotFound
from engine.project.model import Project, Service, build_request
from engine.project.select import select

if TYPE_CHECKING:
    from engine.api import Engine


def build(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("build-arg", "Set build-time variables for services", kind="list"),
        Flag("no-cache", "Do not use cache when building the image"),
        Flag("pull", "Always attempt to pull a newer version of the image"),
        Flag("push", "Push service images"),
        Flag("with-dependencies", "Also build dependencies (transitively)"),
        Flag("quiet", "Suppress the build output", "q"),
    ]
    parsed = read_verb(args, choice, "build [OPTIONS] [SERVICE...]", "Build or rebuild services", flags)
    if parsed is None:
        return 0
    project = select(choice.load(parsed.args), parsed.args, dependencies=parsed.on("with-dependencies"))
    if not any(service.build for service in project.services):
        print("no service of the project is built", file=sys.stderr)
    values = build_args(parsed.items("build-arg"))

    async def work(engine: Engine) -> int:
        prefixes = Prefixes([s.name for s in project.services], colours=colourful())
        for service in project.services:  # in the order of who builds on whom
            if service.build is None:
                continue
            spec = dataclasses.replace(
                service.build,
                args={**service.build.args, **values},
                no_cache=service.build.no_cache or parsed.on("no-cache"),
                pull=service.build.pull or parsed.on("pull"),
            )
            printer = None if parsed.on("quiet") else BuildPrinter(prefix=prefixes.of(service.name))
            async for event in engine.build(build_request(spec, service.image, images_of(project))):
                if printer:
                    printer.feed(event)
            say(service.image, "Built")
            if parsed.on("push"):
                await show_pull(engine.push(service.image), quiet=parsed.on("quiet"), words=PUSH_WORDS)
        return 0

    return run(root, work)


def images_of(project: Project) -> dict[str, str]:
    return {service.name: service.image for service in (*project.services, *project.others)}


def pull(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("quiet", "Pull without printing progress information", "q"),
        Flag("ignore-pull-failures", "Pull what it can and ignore images with pull failures"),
        Flag("ignore-buildable", "Ignore images that can be built"),
        Flag("include-deps", "Also pull services declared as dependencies"),
        Flag("policy", "always or missing", kind="str"),
    ]
    parsed = read_verb(args, choice, "pull [OPTIONS] [SERVICE...]", "Pull service images", flags)
    if parsed is None:
        return 0
    if parsed.text("policy") not in ("", "always", "missing"):
        raise InvalidInput(f"--policy {parsed.text('policy')!r} is neither always nor missing")
    project = select(choice.load(parsed.args), parsed.args, dependencies=parsed.on("include-deps"))

    async def work(engine: Engine) -> int:
        status = 0
        for service in project.services:
            if service.build is not None:  # it is made here; an image of that name elsewhere is another one
                say(service.name, "Skipped: it is built")
                continue
            if service.image.partition(":")[0] == "workbench/base":
                await engine.ensure_base()
                say(service.image, "Made here")
                continue
            if parsed.text("policy") == "missing" and await _present(engine, service):
                say(service.image, "Present")
                continue
            try:
                await show_pull(engine.pull(service.image), quiet=parsed.on("quiet"))
            except EngineError as error:
                say(service.image, f"Error: {error.message}")
                status = 0 if parsed.on("ignore-pull-failures") else 1
                continue
            say(service.image, "Pulled")
        return status

    return run(root, work)


async def _present(engine: Engine, service: Service) -> bool:
    try:
        await engine.image(service.image)
    except NotFound:
        return False
    return True


def push(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("quiet", "Push without printing progress information", "q"),
        Flag("ignore-push-failures", "Push what it can and ignores images with push failures"),
        Flag("include-deps", "Also push images of services declared as dependencies"),
    ]
    parsed = read_verb(args, choice, "push [OPTIONS] [SERVICE...]", "Push service images", flags)
    if parsed is None:
        return 0
    project = select(choice.load(parsed.args), parsed.args, dependencies=parsed.on("include-deps"))

    async def work(engine: Engine) -> int:
        status = 0
        for service in project.services:
            if service.build is None:
                continue
            try:
                await show_pull(engine.push(service.image), quiet=parsed.on("quiet"), words=PUSH_WORDS)
            except EngineError as error:
                say(service.image, f"Error: {error.message}")
                status = 0 if parsed.on("ignore-push-failures") else 1
                continue
            say(service.image, "Pushed")
        return status

    return run(root, work)


def images(root: Path, args: list[str], choice: Choice) -> int:
    flags = [Flag("quiet", "Only display IDs", "q")]
    parsed = read_verb(
        args, choice, "images [OPTIONS] [SERVICE...]", "List images used by the created containers", flags
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        rows = []
        for container in await find_containers(engine, choice, parsed.args):
            name, _, tag = (
                container.image.rpartition(":") if ":" in container.image else (container.image, "", "latest")
            )
            try:
                size = human_size((await engine.image(container.image_id)).summary.size)
            except NotFound:
                size = "?"
            rows.append([container.name, name, tag, container.image_id.removeprefix("sha256:")[:12], size])
        if parsed.on("quiet"):
            print("\n".join(dict.fromkeys(row[3] for row in rows)), end="\n" if rows else "")
        else:
            print(table(["CONTAINER", "REPOSITORY", "TAG", "IMAGE ID", "SIZE"], rows))
        return 0

    return run(root, work)
