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
from engine.cli.containers import _row
from engine.cli.flags import Flag, Parsed, parse
from engine.cli.logs import moment
from engine.cli.project_flags import GLOBAL_ONLY, PROJECT_FLAGS, Choice, state_dir
from engine.cli.project_show import Followers, LineShow, Prefixes, colourful
from engine.cli.project_up import up
from engine.cli.tables import render, table
from engine.errors import InvalidInput, NotFound
from engine.model import ContainerSummary
from engine.project import detached
from engine.project.control import (
    down,
    each_container,
    number_of,
    project_containers,
    service_of,
    stop,
    stop_order,
)
from engine.project.model import Project
from engine.project.resources import forget_files

if TYPE_CHECKING:
    from engine.api import Engine

Verb = Callable[[Path, list[str], Choice], int]
_TIMEOUT = Flag("timeout", "Seconds to wait before killing a container", "t", kind="int")


def cmd_compose(root: Path, args: list[str]) -> int:
    parsed = parse(args, [*PROJECT_FLAGS, *GLOBAL_ONLY, Flag("help", "", "h")], "compose", stop_at_argument=True)
    if parsed.on("help") or not parsed.args:
        print(_overview())
        return 0
    choice, verb = Choice().add(parsed), parsed.args[0]
    known = _VERBS.get(verb)
    if known is None:
        from difflib import get_close_matches

        near = get_close_matches(verb, _VERBS, 1)
        hint = f"did you mean `workbench compose {near[0]}`?" if near else "`workbench compose --help` lists them"
        raise InvalidInput(f"{verb!r} is not a compose command", hint=hint)
    return known[0](root, parsed.args[1:], choice)


def cmd_down(root: Path, args: list[str]) -> int:
    return _down(root, args, Choice())


def cmd_config(root: Path, args: list[str]) -> int:
    return _config(root, args, Choice())


def _overview() -> str:
    width = max(map(len, _VERBS))
    lines = "\n".join(f"  {name:<{width}}   {text}" for name, (_, text) in _VERBS.items())
    flags = "\n".join(f"      --{flag.name:<20} {flag.help}" for flag in PROJECT_FLAGS)
    return f"Usage:  workbench compose [OPTIONS] COMMAND\n\nDocker's verbs by project and service\n\nOptions:\n{flags}\n\nCommands:\n{lines}"


def _say(what: str, how: str) -> None:
    print(f" {what}  {how}", file=sys.stderr, flush=True)


def _read(
    args: list[str], choice: Choice, usage: str, summary: str, flags: Sequence[Flag], **more: Any
) -> Parsed | None:
    """The verb's own flags and the project's, which may stand behind the verb too."""
    taken = {flag.short for flag in flags if flag.short} | {flag.name for flag in flags}
    project = [
        Flag(f.name, f.help, "" if f.short in taken else f.short, f.kind) for f in PROJECT_FLAGS if f.name not in taken
    ]
    parsed = read(args, usage, summary, [*flags, *project], **more)
    if parsed is not None:
        choice.add(parsed)
    return parsed


async def _containers(engine: Engine, choice: Choice, services: Sequence[str], **more: Any) -> list[ContainerSummary]:
    """Raises `NotFound` for a service that neither the files nor the engine know."""
    name, project, _ = choice.load_or_none()
    found = await project_containers(engine, name, services, **more)
    known = {service_of(c) for c in await project_containers(engine, name)}
    known |= {service.name for service in (*project.services, *project.others)} if project else set()
    for service in services:
        if service not in known:
            raise NotFound(f"no such service: {service}", hint=f"services: {', '.join(sorted(known)) or 'none'}")
    return found


# --- down, stop, start, restart, kill, rm ---------------------------------------------------------------


def _down(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("volumes", "Remove the project's volumes, too", "v"),
        Flag("rmi", "Remove images used by services: all, or local (those without a name of their own)", kind="str"),
        Flag("remove-orphans", "Remove containers of services that the project does not have"),
        _TIMEOUT,
    ]
    parsed = _read(
        args, choice, "down [OPTIONS] [SERVICE...]", "Stop and remove a project's containers and networks", flags
    )
    if parsed is None:
        return 0
    which = parsed.text("rmi")
    if which not in ("", "all", "local"):
        raise InvalidInput(f"--rmi {which!r} is neither all nor local")
    name, project, error = choice.load_or_none()
    if len(parsed.args) == 1 and project is None and Path(parsed.args[0]).is_dir():
        choice.folder = Path(parsed.args[0])
        parsed.args.clear()
        name, project, error = choice.load_or_none()
    if error is not None:
        print(f"note: {error.message}: by its name, {name}", file=sys.stderr)
    if not parsed.args and detached.end(state_dir(root), name):
        _say("Watcher", "Ended")

    async def work(engine: Engine) -> int:
        outcome = await down(
            engine,
            name,
            project,
            _say,
            services=parsed.args,
            timeout=parsed.number("timeout") if parsed.given("timeout") else None,
            volumes=parsed.on("volumes"),
            images=which,  # type: ignore[arg-type]  # checked above
            orphans=parsed.on("remove-orphans"),
        )
        if not parsed.args and not outcome.failed:
            forget_files(state_dir(root) / name)
            if which:
                for path in (state_dir(root) / name).glob("*.generations.json"):
                    path.unlink()
        return outcome.status

    return run(root, work)


def _each(
    verb: str,
    summary: str,
    done: str,
    flags: Sequence[Flag],
    act: Callable[[Engine, Parsed, Project | None, ContainerSummary], Any],
) -> Verb:
    def command(root: Path, args: list[str], choice: Choice) -> int:
        parsed = _read(args, choice, f"{verb} [OPTIONS] [SERVICE...]", summary, flags)
        if parsed is None:
            return 0
        name, project, _ = choice.load_or_none()
        if verb == "stop" and not parsed.args and detached.end(state_dir(root), name):
            _say("Watcher", "Ended")

        async def work(engine: Engine) -> int:
            found = await _containers(engine, choice, parsed.args)
            if not found:
                print(f"project {name} has no containers here", file=sys.stderr)
                return 0
            groups = stop_order(found)
            if verb in ("start", "restart"):
                groups.reverse()
            outcome = await each_container(groups, lambda c: act(engine, parsed, project, c), _say, done)
            return outcome.status

        return run(root, work)

    return command


def _timeout(parsed: Parsed) -> int | None:
    return parsed.number("timeout") if parsed.given("timeout") else None


async def _stop(engine: Engine, parsed: Parsed, project: Project | None, container: ContainerSummary) -> None:
    if container.running:
        await stop(engine, project, container, _timeout(parsed), _say)


async def _remove(engine: Engine, parsed: Parsed, _: Project | None, container: ContainerSummary) -> None:
    if container.running and not (parsed.on("force") or parsed.on("stop")):
        return
    if container.running:
        await engine.stop(container.id)
    await engine.remove(container.id, force=True, volumes=parsed.on("volumes"))


# --- ps, logs, images, top, port ------------------------------------------------------------------------


def _ps(root: Path, args: list[str], choice: Choice) -> int:
    flags = [
        Flag("all", "Show all stopped containers", "a"),
        Flag("quiet", "Only display IDs", "q"),
        Flag("services", "Display services"),
        Flag("format", "json, or a template of {{.Field}}", kind="str"),
        Flag("no-trunc", "Don't truncate output"),
    ]
    parsed = _read(args, choice, "ps [OPTIONS] [SERVICE...]", "List containers of a project", flags)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        found = await _containers(engine, choice, parsed.args, all=parsed.on("all"))
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
    parsed = _read(args, choice, "logs [OPTIONS] [SERVICE...]", "View output from a project's containers", flags)
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
        found = await _containers(engine, choice, parsed.args)
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
    parsed = _read(args, choice, "config [OPTIONS] [SERVICE...]", "Print the project as it is understood", flags)
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
    if parsed.text("format", "yaml") == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip()


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
    "down": (_down, "Stop and remove containers and networks"),
    "ps": (_ps, "List containers"),
    "logs": (_logs, "View output from containers"),
    "start": (
        _each("start", "Start services", "Started", [], lambda engine, _p, _, c: engine.start(c.id)),
        "Start services",
    ),
    "stop": (
        _each("stop", "Stop services", "Stopped", [_TIMEOUT], _stop),
        "Stop services",
    ),
    "restart": (
        _each(
            "restart",
            "Restart services",
            "Started",
            [_TIMEOUT],
            lambda e, p, _, c: e.restart(c.id, timeout=_timeout(p)),
        ),
        "Restart service containers",
    ),
    "kill": (
        _each(
            "kill",
            "Force stop service containers",
            "Killed",
            [Flag("signal", "SIGNAL to send to the container", "s", kind="str")],
            lambda e, p, _, c: e.kill(c.id, p.text("signal", "KILL")),
        ),
        "Force stop service containers",
    ),
    "pause": (_each("pause", "Pause services", "Paused", [], lambda e, _p, _, c: e.pause(c.id)), "Pause services"),
    "unpause": (
        _each("unpause", "Unpause services", "Unpaused", [], lambda e, _p, _, c: e.unpause(c.id)),
        "Unpause services",
    ),
    "rm": (
        _each(
            "rm",
            "Remove stopped service containers",
            "Removed",
            [
                Flag("force", "Do not ask", "f"),
                Flag("stop", "Stop them first", "s"),
                Flag("volumes", "With volumes", "v"),
            ],
            _remove,
        ),
        "Remove stopped service containers",
    ),
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
