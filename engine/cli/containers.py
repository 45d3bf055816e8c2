"""`ps`, `logs`, `start`, `stop`, `kill`, `wait`, `rm`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import parse_rfc3339, rfc3339
from engine.cli.common import clean, each, read, run
from engine.cli.flags import Flag
from engine.cli.tables import render, table
from engine.errors import InvalidInput
from engine.model import ContainerSummary
from engine.service.describe import ago, status_text

if TYPE_CHECKING:
    from engine.local import LocalEngine


def _row(container: ContainerSummary, full: bool) -> dict[str, object]:
    command = container.command
    shown = command if full or len(command) <= 20 else command[:19] + "…"
    ports = ", ".join(container.ports)
    return {
        "ID": container.id if full else container.id[:12],
        "Image": container.image,
        "Command": clean(json.dumps(shown, ensure_ascii=False)),  # quoted, as Go's strconv.Quote does it
        "CreatedAt": rfc3339(container.created),
        "RunningFor": ago(container.created),
        "Status": status_text(container),
        "State": container.status,
        "Ports": f"{ports} (host network)" if ports else "host network",
        "Names": container.name,
        "Labels": ",".join(f"{k}={v}" for k, v in container.labels.items()),
        "Networks": container.network,
    }


def cmd_ps(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Show all containers (default shows just running)", "a"),
        Flag("quiet", "Only display container IDs", "q"),
        Flag("no-trunc", "Don't truncate output"),
        Flag("latest", "Show the latest created container", "l"),
        Flag("last", "Show n last created containers", "n", kind="int"),
        Flag("filter", "Filter by name=, status=, label=, ancestor=, id=", "f", kind="list"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "ps [OPTIONS]", "List containers", flags, maximum=0)
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        last = 1 if parsed.on("latest") else parsed.number("last")
        found = [
            c
            for c in await engine.containers(all=parsed.on("all") or last > 0 or bool(parsed.items("filter")))
            if _matches(c, parsed.items("filter"))
        ]
        if not (parsed.on("all") or last or any(f.startswith("status=") for f in parsed.items("filter"))):
            found = [container for container in found if container.running]
        rows = [_row(container, parsed.on("no-trunc")) for container in (found[:last] if last else found)]
        if parsed.on("quiet"):
            print("\n".join(str(row["ID"]) for row in rows), end="\n" if rows else "")
        elif parsed.given("format"):
            print(render(parsed.text("format"), rows), end="\n" if rows else "")
        else:
            names = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
            titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
            print(table(titles, [[str(row[name]) for name in names] for row in rows]))
        return 0

    return run(root, work)


def _matches(container: ContainerSummary, filters: list[str]) -> bool:
    for text in filters:
        key, equals, value = text.partition("=")
        if key == "name":
            ok = value in container.name
        elif key == "status":
            ok = value == container.status
        elif key == "id":
            ok = container.id.startswith(value)
        elif key == "ancestor":
            ok = value in (container.image, container.image_id, f"{container.image}:latest")
        elif key == "label":
            name, has, wanted = value.partition("=")
            ok = name in container.labels and (not has or container.labels[name] == wanted)
        else:
            raise InvalidInput(f"invalid filter {text!r}", hint="name=, status=, label=, ancestor= and id= are known")
        if not ok or not equals:
            return False
    return True


def cmd_logs(root: Path, args: list[str]) -> int:
    flags = [
        Flag("follow", "Follow log output", "f"),
        Flag("tail", "Number of lines to show from the end", "n", kind="str"),
        Flag("timestamps", "Show timestamps", "t"),
        Flag("since", "Show logs since a time (RFC 3339) or a duration (10m)", kind="str"),
        Flag("until", "Show logs before a time (RFC 3339) or a duration (10m)", kind="str"),
    ]
    parsed = read(args, "logs [OPTIONS] CONTAINER", "Fetch the logs of a container", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    tail_text = parsed.text("tail", "all")
    if tail_text != "all" and not tail_text.isdigit():
        raise InvalidInput(f"--tail {tail_text!r} is not a number of lines", hint='a number, or "all"')

    async def work(engine: LocalEngine) -> int:
        tail = None if tail_text == "all" else int(tail_text)
        until = _moment("until", parsed.text("until"))
        async for line in engine.logs(
            parsed.args[0], follow=parsed.on("follow"), tail=tail, since=_moment("since", parsed.text("since"))
        ):
            if until and line.time > until:
                return 0
            stamp = f"{rfc3339(line.time)} " if parsed.on("timestamps") else ""
            out = sys.stderr if line.stream == "stderr" else sys.stdout
            print(f"{stamp}{line.text}", file=out, flush=parsed.on("follow"))
        return 0

    return run(root, work)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _moment(flag: str, text: str) -> int:
    """Nanoseconds since the epoch of `10m`, `2026-11-23T10:00:00Z`, `1763900000`."""
    if not text:
        return 0
    try:
        if text[-1] in _UNITS:
            return time.time_ns() - int(float(text[:-1]) * _UNITS[text[-1]] * 1e9)
        if text.replace(".", "", 1).isdigit():
            return int(float(text) * 1e9)
        return parse_rfc3339(text)
    except ValueError:
        raise InvalidInput(
            f"--{flag} {text!r} is neither a time nor a duration", hint="10m, 2h or 2026-11-23T10:00:00Z"
        ) from None


def cmd_start(root: Path, args: list[str]) -> int:
    parsed = read(args, "start CONTAINER [CONTAINER...]", "Start one or more stopped containers", [], minimum=1)
    return 0 if parsed is None else run(root, lambda engine: each(parsed.args, engine.start))


def cmd_stop(root: Path, args: list[str]) -> int:
    flags = [Flag("time", "Seconds to wait before killing the container", "t", kind="int")]
    parsed = read(
        args, "stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", flags, minimum=1
    )
    if parsed is None:
        return 0
    timeout = parsed.number("time") if parsed.given("time") else None
    return run(root, lambda engine: each(parsed.args, lambda name: engine.stop(name, timeout=timeout)))


def cmd_kill(root: Path, args: list[str]) -> int:
    flags = [Flag("signal", "Signal to send to the container", "s", kind="str")]
    parsed = read(
        args, "kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", flags, minimum=1
    )
    if parsed is None:
        return 0
    return run(root, lambda engine: each(parsed.args, lambda name: engine.kill(name, parsed.text("signal", "KILL"))))


def cmd_wait(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "wait CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        [],
        minimum=1,
    )
    if parsed is None:
        return 0

    async def work(engine: LocalEngine) -> int:
        for name in parsed.args:
            print(await engine.wait(name))
        return 0

    return run(root, work)


def cmd_rm(root: Path, args: list[str]) -> int:
    flags = [
        Flag("force", "Force the removal of a running container", "f"),
        Flag("volumes", "Remove anonymous volumes associated with the container", "v"),
    ]
    parsed = read(args, "rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", flags, minimum=1)
    if parsed is None:
        return 0
    return run(
        root,
        lambda engine: each(
            parsed.args, lambda name: engine.remove(name, force=parsed.on("force"), volumes=parsed.on("volumes"))
        ),
    )
