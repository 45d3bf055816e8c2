"""`ps` and `rm`."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import rfc3339
from engine.cli.common import clean, each, read, run
from engine.cli.flags import Flag
from engine.cli.tables import render, table
from engine.errors import InvalidInput, NotFound
from engine.model import ContainerSummary
from engine.service.describe import ago, status_text

if TYPE_CHECKING:
    from engine.local import LocalEngine


_FILTERS = ("ancestor", "before", "exited", "health", "id", "label", "name", "since", "status")


def _filters(texts: Sequence[str]) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in _FILTERS:
            raise InvalidInput(f"invalid filter {text!r}", hint=f"known: {', '.join(f'{name}=' for name in _FILTERS)}")
        filters.setdefault(key, []).append(value)
    return filters


def _row(container: ContainerSummary, full: bool) -> dict[str, object]:
    command = container.command
    shown = command if full or len(command) <= 20 else command[:19] + "…"
    return {
        "ID": container.id if full else container.id[:12],
        "Image": container.image,
        "Command": clean(json.dumps(shown, ensure_ascii=False)),  # quoted, as Go's strconv.Quote does it
        "CreatedAt": rfc3339(container.created),
        "RunningFor": ago(container.created),
        "Status": status_text(container),
        "State": container.status,
        "Ports": ", ".join(container.ports),
        "Names": container.name,
        "Labels": ",".join(f"{k}={v}" for k, v in container.labels.items()),
        "Networks": ",".join(container.networks),
    }


def cmd_ps(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Show all containers (default shows just running)", "a"),
        Flag("quiet", "Only display container IDs", "q"),
        Flag("no-trunc", "Don't truncate output"),
        Flag("latest", "Show the latest created container", "l"),
        Flag("last", "Show n last created containers", "n", kind="int"),
        Flag("filter", f"Filter by {', '.join(f'{name}=' for name in _FILTERS)}", "f", kind="list"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "ps [OPTIONS]", "List containers", flags, maximum=0)
    if parsed is None:
        return 0

    filters = _filters(parsed.items("filter"))

    async def work(engine: LocalEngine) -> int:
        last = 1 if parsed.on("latest") else parsed.number("last")
        everything = await engine.containers(all=True)
        found = [c for c in everything if _matches(c, filters, everything)]
        if not (parsed.on("all") or last or filters.keys() & {"status", "exited", "before", "since"}):
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


def _matches(
    container: ContainerSummary, filters: Mapping[str, Sequence[str]], all: Sequence[ContainerSummary]
) -> bool:
    """Every key holds; of several values for one key one is enough, of labels all."""
    for key, values in filters.items():
        some = builtins.all if key == "label" else any
        if not some(_holds(container, key, value, all) for value in values):
            return False
    return True


def _holds(container: ContainerSummary, key: str, value: str, all: Sequence[ContainerSummary]) -> bool:
    match key:
        case "name":
            return re.search(value, container.name) is not None or re.search(value, f"/{container.name}") is not None
        case "status":
            return value == container.status
        case "id":
            return container.id.startswith(value)
        case "ancestor":
            return value in (container.image, container.image_id, f"{container.image}:latest")
        case "label":
            name, has, wanted = value.partition("=")
            return name in container.labels and (not has or container.labels[name] == wanted)
        case "exited":
            return container.status == "exited" and value == str(container.exit_code)
        case "health":
            return value == (container.health or "none")
        case "before" | "since":
            other = next((c for c in all if value == c.name or c.id.startswith(value)), None)
            if other is None:
                raise NotFound(f"no such container: {value}")
            return container.created < other.created if key == "before" else container.created > other.created
    raise InvalidInput(f"invalid filter {key!r}", hint=f"known: {', '.join(_FILTERS)}")


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
