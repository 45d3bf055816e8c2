"""`compose VERB`: Docker's verbs by project and service, as `docker compose` users know them; `down` and `config` plain too.

What only reads or ends things works by the containers' labels, also when the project's files do not parse any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.common import read, run
from engine.cli.compose_common import find_containers, read_verb
from engine.cli.compose_life import down_verb, kill, pause, remove, restart, start, stop_verb, unpause
from engine.cli.containers import _row
from engine.cli.flags import Flag, Parsed, parse
from engine.cli.logs import moment
from engine.cli.project_flags import GLOBAL_ONLY, PROJECT_FLAGS, Choice, state_dir
from engine.cli.project_show import Followers, LineShow, Prefixes, colourful
from engine.cli.project_up import up
from engine.cli.tables import render, table
from engine.errors import InvalidInput
from engine.model import ContainerSummary
from engine.project import detached
from engine.project.control import (
    number_of,
    service_of,
)
from engine.project.model import Project

if TYPE_CHECKING:
    from engine.api import Engine

Verb = Callable[[Path, list[str], Choice], int]
_TIMEOUT = Flag("timeout", "Seconds to wait before killing a container", "t", kind="int")


def cmd_compose(root: Path, args: list[str]) -> int:
    parsed = parse(args, [*PROJECT_FLAGS, *GLOBAL_ONLY, Flag("help", "", "h")], "compose", stop_at_argument=True)
    if parsed.on("help") or not parsed.args:
        print(_overview())
        return 0
    choice, verb = Choice(root).add(parsed), parsed.args[0]
    known = _VERBS.get(verb)
    if known is None:
        from difflib import get_close_matches

        near = get_close_matches(verb, _VERBS, 1)
        hint = f"did you mean `workbench compose {near[0]}`?" if near else "`workbench compose --help` lists them"
        raise InvalidInput(f"{verb!r} is not a compose command", hint=hint)
    return known[0](root, parsed.args[1:], choice)


def cmd_down(root: Path, args: list[str]) -> int:
    return down_verb(root, args, Choice(root))


def cmd_config(root: Path, args: list[str]) -> int:
    return _config(root, args, Choice(root))


def _overview() -> str:
    width = max(map(len, _VERBS))
    lines = "\n".join(f"  {name:<{width}}   {text}" for name, (_, text) in _VERBS.items())
    flags = "\n".join(f"      --{flag.name:<20} {flag.help}" for flag in PROJECT_FLAGS)
    return f"Usage:  workbench compose [OPTIONS] COMMAND\n\nDocker's verbs by project and service\n\nOptions:\n{flags}\n\nCommands:\n{lines}"


# --- ps, logs, images, top, port ------------------------------------------------------------------------


def _ps(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("all", "Show all stopped containers", "a"),
        Flag("quiet", "Only display IDs", "q"),
        Flag("services", "Display services"),
        Flag("format", "json, or a template of {{.Field}}", kind="str"),
        Flag("no-trunc", "Don't truncate output"),
    ]
    parsed = read_verb(args, choice, "ps [OPTIONS] [SERVICE...]", "List containers of a project", flags)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        found = await find_containers(engine, choice, parsed.args, all=parsed.on("all"))
        rows = [
            {**_row(c, parsed.on("no-trunc")), "Name": c.name, "Service": service_of(c), "Health": c.health}
            for c in found
        ]
        if parsed.on("services"):
            print("\n".join(dict.fromkeys(str(row["Service"]) for row in rows)), end="\n" if rows else "")
        elif parsed.on("quiet"):
            print("\n".join(c.id for c in found), end="\n" if rows else "")
        elif parsed.given("format"):
            print(render(parsed.text("format"), rows), end="\n" if rows else "")
        else:
            names = ["Name", "Image", "Command", "Service", "RunningFor", "Status", "Ports"]
            titles = ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]
            print(table(titles, [[str(row[name]) for name in names] for row in rows]))
            watcher = detached.find(state_dir(root), choice.load_or_none()[0])
            if watcher:
                print(f"process {watcher.pid} watches the project: {watcher.log}", file=sys.stderr)
        return 0

    return run(root, work)


def _logs(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("follow", "Follow log output", "f"),
        Flag("tail", "Number of lines to show from the end of the logs for each container", "n", kind="str"),
        Flag("since", "Show logs since a time or a duration", kind="str"),
        Flag("until", "Show logs before a time or a duration", kind="str"),
        Flag("timestamps", "Show timestamps", "t"),
        Flag("no-log-prefix", "Don't print prefix in logs"),
        Flag("no-color", "Produce monochrome output"),
    ]
    parsed = read_verb(args, choice, "logs [OPTIONS] [SERVICE...]", "View output from a project's containers", flags)
    if parsed is None:
        return 0
    tail = parsed.text("tail", "all")
    if tail != "all" and not tail.isdigit():
        raise InvalidInput(f"--tail {tail!r} is not a number of lines", hint='a number, or "all"')
    bounds: dict[str, Any] = {
        "tail": int(tail) if tail != "all" else None,
        "since": moment("since", parsed.text("since")),
        "until": moment("until", parsed.text("until")),
    }

    async def work(engine: Engine) -> int:
        found = await find_containers(engine, choice, parsed.args)
        names = [f"{service_of(c)}-{number_of(c)}" for c in found]
        colours = colourful("never" if parsed.on("no-color") else "")
        prefixes = Prefixes(names, colours=colours, shown=not parsed.on("no-log-prefix"))
        show = LineShow(names, prefixes, timestamps=parsed.on("timestamps"))
        if not parsed.on("follow"):
            await _merged(engine, list(zip(names, found, strict=True)), show, bounds)
            return 0
        followers = Followers(engine, show, **bounds)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        try:
            for name, container in zip(names, found, strict=True):
                followers.follow(name, container.name)
            await followers.ended()
        except asyncio.CancelledError:
            return 130
        finally:
            await followers.close()
        return 0

    return run(root, work)


async def _merged(
    engine: Engine, containers: Sequence[tuple[str, ContainerSummary]], show: LineShow, bounds: dict[str, Any]
) -> None:
    """All lines in the order of their times."""
    lines = []
    for name, container in containers:
        with contextlib.suppress(InvalidInput):  # a service without a log
            lines += [(line.time, name, container.name, line) async for line in engine.logs(container.id, **bounds)]
    for _, name, container_name, line in sorted(lines, key=lambda item: item[0]):
        show.line(name, container_name, line)


# --- config ---------------------------------------------------------------------------------------------


def _config(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("services", "Print the service names, one per line"),
        Flag("volumes", "Print the volume names, one per line"),
        Flag("networks", "Print the network names, one per line"),
        Flag("profiles", "Print the profile names, one per line"),
        Flag("images", "Print the image names, one per line"),
        Flag("environment", "Print the environment used for interpolation"),
        Flag("hash", "Print a service's config hash: SERVICE, or * for all", kind="str"),
        Flag("format", "yaml or json", kind="str"),
        Flag("quiet", "Only validate", "q"),
        Flag("output", "Save to file (default to stdout)", "o", kind="str"),
    ]
    parsed = read_verb(args, choice, "config [OPTIONS] [SERVICE...]", "Print the project as it is understood", flags)
    if parsed is None:
        return 0
    project = choice.load(parsed.args)
    for note in project.notes:
        print(f"note: {note}", file=sys.stderr)
    text = _config_text(parsed, choice, project)
    if parsed.given("output"):
        Path(parsed.text("output")).write_text(text + "\n")
    elif text and not parsed.on("quiet"):
        print(text)
    return 0


def _config_text(parsed: Parsed, choice: Choice, project: Project) -> str:
    from engine.project.model import config_hash

    services = [s for s in project.services if not parsed.args or s.name in parsed.args]
    if parsed.on("services"):
        return "\n".join(sorted(s.name for s in services))
    if parsed.on("images"):
        return "\n".join(s.image for s in services)
    if parsed.on("volumes"):
        return "\n".join(project.volumes)
    if parsed.on("networks"):
        return "\n".join(project.networks)
    if parsed.on("profiles"):
        return "\n".join(sorted({name for s in services for name in s.profiles}))
    if parsed.given("hash"):
        wanted = parsed.text("hash")
        return "\n".join(f"{s.name} {config_hash(s)}" for s in services if wanted in ("*", s.name))
    if parsed.on("environment"):
        import os

        from engine.project.compose.load import project_environment

        found, _ = project_environment(project.path, [p.resolve() for p in choice.env_files], os.environ)
        return "\n".join(f"{name}={value}" for name, value in sorted(found.items()))
    document = _plain(project.document) or _bare(project)
    if parsed.args:
        document["services"] = {s.name: document["services"][s.name] for s in services}
    # Dollars doubled, as `docker compose config` does: what is printed is a compose file that means the same.
    if parsed.text("format", "yaml") == "json":
        return json.dumps(document, indent=2, ensure_ascii=False).replace("$", "$$")
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip().replace("$", "$$")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _bare(project: Project) -> dict[str, Any]:
    """A bare Dockerfile as the compose file that would mean the same."""
    service = project.services[0]
    ports = [f"{b.host_port}:{port}" for port, bindings in service.spec.port_bindings.items() for b in bindings]
    return {"name": project.name, "services": {service.name: {"build": {"context": str(project.path)}, "ports": ports}}}


def _version(root: Path, args: list[str], choice: Choice) -> int:
    from engine.cli.main import VERSION
    from engine.project.model import COMPOSE_VERSION

    print(f"container-workbench {VERSION}, compose files and labels as of compose {COMPOSE_VERSION}")
    return 0


def _ls(root: Path, args: list[str], choice: Choice) -> int:
    parsed = read(args, "ls", "List projects that have containers here", [Flag("all", "", "a"), Flag("quiet", "", "q")])
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        counts: dict[str, dict[str, int]] = {}
        files: dict[str, str] = {}
        for container in await engine.containers(all=True):
            name = container.labels.get("com.docker.compose.project", "")
            if name and (container.running or parsed.on("all")):
                counts.setdefault(name, {})
                counts[name][container.status] = counts[name].get(container.status, 0) + 1
                files[name] = container.labels.get("com.docker.compose.project.config_files", "")
        if parsed.on("quiet"):
            print("\n".join(sorted(counts)), end="\n" if counts else "")
            return 0
        rows = [
            [name, ", ".join(f"{s}({n})" for s, n in sorted(counts[name].items())), files[name]]
            for name in sorted(counts)
        ]
        print(table(["NAME", "STATUS", "CONFIG FILES"], rows))
        return 0

    return run(root, work)


def _later(module: str, name: str) -> Verb:
    """A verb whose module is imported when it runs."""

    def command(root: Path, args: list[str], choice: Choice) -> int:
        import importlib

        found: Verb = getattr(importlib.import_module(f"engine.cli.{module}"), name)
        return found(root, args, choice)

    return command


_VERBS: dict[str, tuple[Verb, str]] = {
    "up": (up, "Build, run, watch and rebuild the project"),
    "down": (down_verb, "Stop and remove containers and networks"),
    "ps": (_ps, "List containers"),
    "logs": (_logs, "View output from containers"),
    "start": (start, "Start services"),
    "stop": (stop_verb, "Stop services"),
    "restart": (restart, "Restart service containers"),
    "kill": (kill, "Force stop service containers"),
    "pause": (pause, "Pause services"),
    "unpause": (unpause, "Unpause services"),
    "rm": (remove, "Remove stopped service containers"),
    "build": (_later("compose_images", "build"), "Build or rebuild services"),
    "pull": (_later("compose_images", "pull"), "Pull service images"),
    "push": (_later("compose_images", "push"), "Push service images"),
    "images": (_later("compose_images", "images"), "List images used by the created containers"),
    "exec": (_later("compose_run", "exec_"), "Execute a command in a running container"),
    "run": (_later("compose_run", "run_"), "Run a one-off command on a service"),
    "port": (_later("compose_run", "port"), "Print the public port for a port binding"),
    "top": (_later("compose_run", "top"), "Display the running processes"),
    "config": (_config, "Parse, resolve and render the compose files"),
    "ls": (_ls, "List running projects"),
    "version": (_version, "Show the version"),
}
