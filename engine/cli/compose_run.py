"""`compose exec`, `run`, `port`, `top`: containers named by their service."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine import api
from engine.base.keys import DETACH_KEYS, parse_keys
from engine.cli.common import run
from engine.cli.compose_common import find_containers, read_verb
from engine.cli.compose_images import images_of
from engine.cli.flags import Flag, Parsed
from engine.cli.images import show_pull
from engine.cli.networks import cmd_port
from engine.cli.project_flags import Choice, state_dir
from engine.cli.project_show import LineShow, Prefixes, colourful
from engine.cli.run import cmd_exec, environment
from engine.cli.session import Detached, converse
from engine.cli.tables import table
from engine.errors import EngineError, NotFound, StartFailed
from engine.model import ContainerSpec, ContainerSummary
from engine.network.ports import collect, parse_publish
from engine.project.control import number_of
from engine.project.loop import InnerLoop
from engine.project.model import Project, Service, build_request, container_spec
from engine.project.resources import given_mounts, make_resources
from engine.project.select import needed, select
from engine.service.mount_specs import parse_volume_flag

if TYPE_CHECKING:
    from engine.api import Engine

_INDEX = Flag("index", "Index of the container if service has multiple replicas", kind="int")


async def _one(engine: Engine, choice: Choice, service: str, index: int) -> ContainerSummary:
    found = await find_containers(engine, choice, [service])
    for container in found:
        if index in (0, number_of(container)) and (container.running or index):
            return container
    what = f"container {index} of service" if index else "service"
    raise NotFound(f"{what} {service!r} is not running", hint=f"workbench compose up -d {service}")


def _name(root: Path, choice: Choice, service: str, index: int) -> str:
    names: list[str] = []

    async def work(engine: Engine) -> int:
        names.append((await _one(engine, choice, service, index)).id)
        return 0

    run(root, work)
    return names[0]


def exec_(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("detach", "Detached mode: run command in the background", "d"),
        Flag("env", "Set environment variables", "e", kind="list"),
        Flag("user", "Run the command as this user", "u", kind="str"),
        Flag("workdir", "Path to workdir directory for this command", "w", kind="str"),
        Flag("privileged", "Give extended privileges to the process"),
        Flag("no-tty", "Disable pseudo-TTY allocation (default: where there is no terminal)", "T"),
        Flag("interactive", "Keep STDIN open (that is the default)", "i"),
        Flag("tty", "Allocate a pseudo-TTY (that is the default on a terminal)", "t"),
        _INDEX,
    ]
    usage = "exec [OPTIONS] SERVICE COMMAND [ARGS...]"
    parsed = read_verb(
        args, choice, usage, "Execute a command in a running container", flags, minimum=2, stop_at_argument=True
    )
    if parsed is None:
        return 0
    words = []
    for flag in ("env", "user", "workdir"):
        for value in parsed.items(flag) if flag == "env" else [parsed.text(flag)] if parsed.given(flag) else []:
            words += [f"--{flag}", value]
    words += [f"--{flag}" for flag in ("detach", "privileged") if parsed.on(flag)]
    if not parsed.on("detach"):
        words.append("-i")
        if sys.stdin.isatty() and sys.stdout.isatty() and not parsed.on("no-tty"):
            words.append("-t")
    container = _name(root, choice, parsed.args[0], parsed.number("index"))
    return cmd_exec(root, [*words, container, *parsed.args[1:]])


def port(root: Path, args: list[str], choice: Choice) -> int:
    flags = [Flag("protocol", "tcp or udp", kind="str"), _INDEX]
    usage = "port [OPTIONS] SERVICE PRIVATE_PORT"
    parsed = read_verb(args, choice, usage, "Print the public port for a port binding", flags, minimum=2, maximum=2)
    if parsed is None:
        return 0
    wanted = f"{parsed.args[1]}/{parsed.text('protocol', 'tcp')}" if "/" not in parsed.args[1] else parsed.args[1]
    return cmd_port(root, [_name(root, choice, parsed.args[0], parsed.number("index")), wanted])


def top(root: Path, args: list[str], choice: Choice) -> int:
    parsed = read_verb(args, choice, "top [SERVICE...]", "Display the running processes", [])
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        for container in await find_containers(engine, choice, parsed.args, all=False):
            found = await engine.top(container.id)
            print(f"{container.name}\n{table(found.titles, found.processes)}\n")
        return 0

    return run(root, work)


# --- run ------------------------------------------------------------------------------------------------

RUN_FLAGS = [
    Flag("detach", "Run container in background and print container ID", "d"),
    Flag("rm", "Automatically remove the container when it exits"),
    Flag("env", "Set environment variables", "e", kind="list"),
    Flag("env-from-file", "Set environment variables from file", kind="list"),
    Flag("entrypoint", "Override the entrypoint of the image", kind="str"),
    Flag("user", "Run as specified username or uid", "u", kind="str"),
    Flag("workdir", "Working directory inside the container", "w", kind="str"),
    Flag("volume", "Bind mount a volume", "v", kind="list"),
    Flag("publish", "Publish a container's port(s) to the host", "p", kind="list"),
    Flag("service-ports", "Publish the service's own ports", "P"),
    Flag("label", "Add or override a label", "l", kind="list"),
    Flag("name", "Assign a name to the container", kind="str"),
    Flag("no-deps", "Don't start linked services"),
    Flag("build", "Build image before starting container"),
    Flag("no-tty", "Disable pseudo-TTY allocation (default: where there is no terminal)", "T"),
    Flag("interactive", "Keep STDIN open even if not attached (that is the default)", "i"),
    Flag("use-aliases", "Use the service's network aliases"),
    Flag("quiet-pull", "Pull without printing progress information"),
]


def run_(root: Path, args: list[str], choice: Choice) -> int:
    usage = "run [OPTIONS] SERVICE [COMMAND] [ARGS...]"
    parsed = read_verb(
        args, choice, usage, "Run a one-off command on a service", RUN_FLAGS, minimum=1, stop_at_argument=True
    )
    if parsed is None:
        return 0
    name = parsed.args[0]
    project = choice.load([name])
    service = project.service(name)

    async def work(engine: Engine) -> int:
        state = state_dir(root)
        if not parsed.on("no-deps"):
            await _start_needed(engine, project, service, state)
        if missing := await make_resources(engine, project):
            raise missing[0]
        await _image(engine, project, service, parsed)
        spec = _spec(project, service, state / project.name, parsed)
        return await _run(engine, spec, parsed)

    return run(root, work)


async def _start_needed(engine: Engine, project: Project, service: Service, state: Path) -> None:
    names = sorted(needed(service))
    if not names:
        return
    part = select(project, names)
    loop = InnerLoop(engine, part, state)
    show = LineShow(names, Prefixes(names, colours=colourful()))
    failed: list[str] = []
    try:
        async for event in loop.events(once=True):
            if not isinstance(event, api.ProjectFound):
                show.event(event)
            if isinstance(event, api.ServiceBuildFailed):
                failed.append(event.service)
    finally:
        await loop.close()
    if failed:
        raise StartFailed(f"{service.name} needs {', '.join(failed)}, which did not start")


async def _image(engine: Engine, project: Project, service: Service, parsed: Parsed) -> None:
    with contextlib.suppress(NotFound):
        await engine.image(service.image)
        if not parsed.on("build"):
            return
    if service.build is None:
        await show_pull(engine.pull(service.image), quiet=parsed.on("quiet-pull"))
        return
    from engine.cli.build import BuildPrinter

    printer = BuildPrinter()
    async for event in engine.build(build_request(service.build, service.image, images_of(project))):
        printer.feed(event)


def _spec(project: Project, service: Service, state: Path, parsed: Parsed) -> ContainerSpec:
    name = parsed.text("name") or f"{project.name}-{service.name}-run-{secrets.token_hex(6)}"
    made = container_spec(
        project, service, image=service.image, name=name, generation=1, log_path="", mounts=given_mounts(service, state)
    )
    tty = not parsed.on("detach") and not parsed.on("no-tty") and sys.stdin.isatty() and sys.stdout.isatty()
    volumes = [parse_volume_flag(text) for text in parsed.items("volume")]
    extra = {"env-file": parsed.items("env-from-file"), "env": parsed.items("env")}
    ports = made.port_bindings if parsed.on("service-ports") else {}
    published = collect(pair for text in parsed.items("publish") for pair in parse_publish(text))
    networks = made.networks
    if not parsed.on("use-aliases"):  # the service's own container answers to its name
        networks = {
            key: dataclasses.replace(each, aliases=(), ipv4_address="", ipv6_address="")
            for key, each in networks.items()
        }
    entrypoint = parsed.text("entrypoint")
    command = tuple(parsed.args[1:])
    return dataclasses.replace(
        made,
        labels={
            **made.labels,
            "com.docker.compose.oneoff": "True",
            **dict(text.partition("=")[::2] for text in parsed.items("label")),
        },
        command=command or (made.command if not entrypoint else None),
        entrypoint=(entrypoint,) if entrypoint else made.entrypoint,
        env=(*made.env, *environment(Parsed(dict(extra)))),
        user=parsed.text("user") or made.user,
        working_dir=parsed.text("workdir") or made.working_dir,
        tty=tty,
        open_stdin=not parsed.on("detach"),
        stdin_once=not parsed.on("detach"),
        attach_stdin=not parsed.on("detach"),
        attach_stdout=not parsed.on("detach"),
        attach_stderr=not parsed.on("detach"),
        mounts=(*made.mounts, *(mount for mount in volumes if mount.source)),
        volumes=(*made.volumes, *(mount.target for mount in volumes if not mount.source)),
        networks=networks,
        port_bindings={**ports, **published},
        auto_remove=parsed.on("rm"),
        restart_policy=type(made.restart_policy)(),
    )


async def _run(engine: Engine, spec: ContainerSpec, parsed: Parsed) -> int:
    container = await engine.create(spec)
    try:
        if parsed.on("detach"):
            await engine.start(container)
            print(container)
            return 0
        stream = await engine.start_attached(container)
    except EngineError:
        with contextlib.suppress(NotFound):
            await engine.remove(container, force=True)
        raise
    try:
        await converse(
            stream,
            tty=spec.tty,
            stdin=True,
            forward=lambda signal: engine.kill(container, signal),
            keys=parse_keys(DETACH_KEYS),
            show={"stdout", "stderr"},
        )
        return await engine.wait(container)
    except Detached:
        return 0
    finally:
        await stream.close()
