"""Actions that ask for words first: a form, its command line, and what it does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.api import CommitRequest, NetworkSpec
from engine.errors import EngineError, NotFound
from workbench.screens.dialogs import Field, Form, Values
from workbench.state import DIM, brief_when, neutral
from workbench.subjects import Subject
from workbench.table import Column

if TYPE_CHECKING:
    from engine.api import ContainerSpec, Engine
    from workbench.app import WorkbenchApp
    from workbench.bridge import Generation

GENERATIONS = (
    Column(right=True, title="GEN"),
    Column(title="IMAGE", styles={"": DIM}, drop=30),
    Column(right=True, title="MADE"),
    Column(grow=True, title="CHANGED"),
)


def generation_row(one: Generation) -> tuple[str, ...]:
    changed = ", ".join(one.paths[:2]) + (f" and {len(one.paths) - 2} more" if len(one.paths) > 2 else "")
    return (
        str(one.number),
        one.image.removeprefix("sha256:")[:12],
        brief_when(one.created),
        neutral(changed or one.step),
    )


def line(*words: str) -> str:
    """A command line of words, those that are "" left out."""
    return shlex.join(["workbench", *(word for word in words if word)])


async def rename(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    name = app.container_name(subjects[0])

    def command(values: Values) -> str:
        return line("rename", name, values["name"])

    async def act(values: Values) -> None:
        if values["name"] != name:
            with app.log_command(command(values)):
                await app.bridge.engine.rename(name, values["name"])

    fields = [Field("name", "new name", name, needed=True)]
    await app.push_screen_wait(Form(f"rename {name}", fields, command, verb="Rename", act=act))


async def commit(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    name = app.container_name(subjects[0])

    def command(values: Values) -> str:
        pause = "" if values["pause"] else "--pause=false"
        message = ("-m", values["comment"]) if values["comment"] else ()
        return line("commit", pause, *message, name, values["reference"])

    async def act(values: Values) -> None:
        with app.log_command(command(values)):
            request = CommitRequest(values["reference"], values["comment"], pause=bool(values["pause"]))
            await app.bridge.engine.commit(name, request)
        app.say(f"{name} is the image {values['reference']} now")

    fields = [
        Field("reference", "image name", "", f"{name}:before-upgrade", needed=True),
        Field("comment", "comment"),
        Field("pause", "pause it meanwhile", "yes", kind="switch"),
    ]
    await app.push_screen_wait(Form(f"an image of {name}", fields, command, verb="Commit", act=act))


async def tag(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    image = subjects[0].name

    def command(values: Values) -> str:
        return line("tag", image, values["target"])

    async def act(values: Values) -> None:
        with app.log_command(command(values)):
            await app.bridge.engine.tag(image, values["target"])

    fields = [Field("target", "new name", "", "registry.example/name:tag", needed=True)]
    await app.push_screen_wait(Form(f"another name for {image}", fields, command, verb="Tag", act=act))


def run_words(image: str, values: Values) -> list[str]:
    """The words behind `workbench run -d`."""
    words = ["-d"]
    for flag, name in (("--name", "name"), ("--network", "network"), ("--restart", "restart")):
        if values[name]:
            words += [flag, values[name]]
    for flag, name in (("-p", "ports"), ("-v", "volumes"), ("-e", "env")):
        for text in _split(values[name]):
            words += [flag, text]
    if values["rm"]:
        words.append("--rm")
    return [*words, *_split(values["flags"]), image, *_split(values["command"])]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed yet
        return text.split()


async def run(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    image = subjects[0].name
    fields = [
        Field("name", "name", "", "one is picked"),
        Field("command", "command", "", "as the image says"),
        Field("ports", "ports", "", "8080:80 5353:53/udp"),
        Field("env", "environment", "", "KEY=value 'OTHER=two words'"),
        Field("volumes", "volumes", "", "data:/data ./src:/src:ro"),
        Field("network", "network", "", "bridge"),
        Field("restart", "restart", "", "no, always, on-failure:3, unless-stopped"),
        Field("flags", "more flags", "", "--memory 512m --user 1000"),
        Field("rm", "remove it when it ends", "", kind="switch"),
    ]
    identity = ""

    def command(values: Values) -> str:
        return line("run", *run_words(image, values))

    async def act(values: Values) -> None:
        nonlocal identity
        spec = app.desk_.run_spec(run_words(image, values))
        with app.log_command(command(values)):
            identity = await _create(app, spec)
            try:
                await app.bridge.engine.start(identity)
            except EngineError:  # its name is wanted for the next try
                with suppress(EngineError):
                    await app.bridge.engine.remove(identity, force=True)
                raise

    if await app.push_screen_wait(Form(f"run {image}", fields, command, verb="Run", act=act)) is None:
        return
    await app.bridge.list()
    if found := app.lists.container(identity):
        app.go_to("containers", Subject("container", found.id, found.name, found))


async def _create(app: WorkbenchApp, spec: ContainerSpec) -> str:
    """The id; an image that is missing is pulled."""
    from workbench.transfers import follow

    try:
        return await app.bridge.engine.create(spec)
    except NotFound:
        await follow(app, f"pull {spec.image}", app.bridge.engine.pull(spec.image))
        return await app.bridge.engine.create(spec)


async def create_volume(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    def command(values: Values) -> str:
        return line("volume", "create", values["name"])

    async def act(values: Values) -> None:
        with app.log_command(command(values)):
            made = await app.bridge.engine.create_volume(values["name"])
        app.go_to("volumes", Subject("volume", made.name, made.name, made))

    fields = [Field("name", "name", "", "data", needed=True)]
    await app.push_screen_wait(Form("a new volume", fields, command, verb="Create", act=act))


async def create_network(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    def command(values: Values) -> str:
        return line("network", "create", "--internal" if values["internal"] else "", values["name"])

    async def act(values: Values) -> None:
        with app.log_command(command(values)):
            spec = NetworkSpec(values["name"], internal=bool(values["internal"]))
            identity = await app.bridge.engine.create_network(spec)
        app.go_to("networks", Subject("network", identity, values["name"]))

    fields = [
        Field("name", "name", "", "backend", needed=True),
        Field("internal", "without a way out", "", kind="switch"),
    ]
    await app.push_screen_wait(Form("a new network", fields, command, verb="Create", act=act))


async def command_of(engine: Engine, subject: Subject) -> str:
    """The command line that made it, as far as its record says, or the one that shows it."""
    if subject.kind == "container":
        return run_command((await engine.container(subject.id)).spec)
    shows = {"image": "inspect", "volume": "volume inspect", "network": "network inspect", "build": "builds show"}
    if subject.kind == "service":
        return line("compose", "up", "-d", subject.name)
    return line(*shows.get(subject.kind, "inspect").split(), subject.id if subject.kind == "build" else subject.name)


def run_command(spec: ContainerSpec) -> str:
    """`workbench run` as it would make a container like this one."""
    words = ["-d", "--name", spec.name]
    words += ["-it"] if spec.tty and spec.open_stdin else ["-t"] if spec.tty else ["-i"] if spec.open_stdin else []
    if spec.auto_remove:
        words.append("--rm")
    for port, places in spec.port_bindings.items():
        inside = port.removesuffix("/tcp")
        for place in places:
            words += ["-p", ":".join(filter(None, (place.host_ip, place.host_port, inside)))]
    for mount in spec.mounts:
        if mount.bind:
            words += ["-v", mount.bind]
        else:
            parts = [f"type={mount.type}", f"src={mount.source}" if mount.source else "", f"dst={mount.target}"]
            words += ["--mount", ",".join(filter(None, [*parts, "readonly" if mount.read_only else ""]))]
    for text in spec.env:
        words += ["-e", text]
    if spec.network_mode not in ("default", "bridge"):
        words += ["--network", spec.network_mode]
    if spec.restart_policy.name not in ("", "no"):
        count = f":{spec.restart_policy.maximum_retry_count}" if spec.restart_policy.maximum_retry_count else ""
        words += ["--restart", spec.restart_policy.name + count]
    for flag, value in (("-u", spec.user), ("-w", spec.working_dir), ("-h", spec.hostname)):
        if value:
            words += [flag, value]
    if spec.entrypoint is not None:
        words += ["--entrypoint", spec.entrypoint[0] if spec.entrypoint else ""]
    if spec.privileged:
        words.append("--privileged")
    if spec.memory:
        words += ["--memory", str(spec.memory)]
    rest = [*(spec.entrypoint or ())[1:], *(spec.command or ())]
    return shlex.join(["workbench", "run", *words, spec.image, *rest])
