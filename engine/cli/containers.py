"""`ps` and `rm`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import go_time
from engine.base.units import human_size
from engine.cli.common import clean, each, read, run
from engine.cli.flags import Flag
from engine.cli.nouns import filters as parse_filters
from engine.cli.tables import render, table
from engine.errors import NotFound
from engine.model import ContainerSummary
from engine.service import container_filters
from engine.service.describe import ago, status_text
from engine.service.filters import check

if TYPE_CHECKING:
    from engine.api import Engine


def _row(container: ContainerSummary, full: bool) -> dict[str, object]:
    command = container.command
    shown = command if full or len(command) <= 20 else command[:19] + "…"
    return {
        "ID": container.id if full else container.id[:12],
        "Image": container.image,
        "Command": clean(json.dumps(shown, ensure_ascii=False)),  # quoted, as Go's strconv.Quote does it
        "CreatedAt": go_time(container.created),
        "RunningFor": ago(container.created),
        "Status": status_text(container),
        "State": container.status,
        "Ports": ", ".join(container.ports),
        "Names": container.name,
        "Labels": ",".join(f"{k}={v}" for k, v in container.labels.items()),
        "Networks": ",".join(container.networks),
        "Platform": None,  # of an image for several; this engine keeps one
    }


def cmd_ps(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Show all containers (default shows just running)", "a"),
        Flag("quiet", "Only display container IDs", "q"),
        Flag("no-trunc", "Don't truncate output"),
        Flag("latest", "Show the latest created container", "l"),
        Flag("last", "Show n last created containers", "n", kind="int"),
        Flag("filter", f"Filter by {', '.join(f'{name}=' for name in container_filters.KEYS)}", "f", kind="list"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
        Flag("size", "Display total file sizes", "s"),
    ]
    parsed = read(args, "ps [OPTIONS]", "List containers", flags, maximum=0)
    if parsed is None:
        return 0

    filters = parse_filters(parsed.items("filter"))
    check(filters, container_filters.KEYS)

    async def work(engine: Engine) -> int:
        last = 1 if parsed.on("latest") else parsed.number("last")
        everything = await engine.containers(all=True)
        found = container_filters.containers(everything, filters)
        if not (parsed.on("all") or last or container_filters.everything(filters)):
            found = [container for container in found if container.running]
        chosen, full = found[:last] if last else found, parsed.on("no-trunc")
        rows = [_row(container, full) for container in chosen]
        await _more(engine, chosen, rows, parsed.text("format"), size=parsed.on("size"), full=full)
        if parsed.on("quiet"):
            print("\n".join(str(row["ID"]) for row in rows), end="\n" if rows else "")
        elif parsed.text("format") == "raw":
            print("\n".join(_raw(row, size=parsed.on("size")) for row in rows), end="\n" if rows else "")
        elif parsed.text("format") not in ("", "table"):
            print(render(parsed.text("format"), rows, {"ID": "CONTAINER ID"}), end="\n" if rows else "")
        else:
            names = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
            titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
            if parsed.on("size"):
                names, titles = [*names, "Size"], [*titles, "SIZE"]
            print(table(titles, [[str(row[name]) for name in names] for row in rows]))
        return 0

    return run(root, work, plain=True)


_RAW = {
    "container_id": "ID", "image": "Image", "command": "Command", "created_at": "CreatedAt", "state": "State", "status": "Status",
    "names": "Names", "labels": "Labels", "ports": "Ports",
}  # fmt: skip


def _raw(row: Mapping[str, object], *, size: bool) -> str:
    """`--format raw`: a line for each field."""
    fields = _RAW | ({"size": "Size"} if size else {})
    return "".join(f"{name}: {row[key]}\n" for name, key in fields.items())


async def _more(
    engine: Engine,
    containers: Sequence[ContainerSummary],
    rows: Sequence[dict[str, object]],
    form: str,
    *,
    size: bool,
    full: bool,
) -> None:
    """The fields that cost more than the list itself, where they are asked for."""
    every = "json" in form
    if every or "Mounts" in form or "LocalVolumes" in form:
        for container, row in zip(containers, rows, strict=True):
            names = [str(point.get("Name") or point.get("Source") or "") for point in container.mounts]
            row["Mounts"] = ",".join(name if full or len(name) <= 15 else f"{name[:14]}…" for name in names)
            row["LocalVolumes"] = str(sum(point.get("Driver") == "local" for point in container.mounts))
    if size or every or ".Size" in form:
        usage = await engine.disk_usage()
        changed = {one.id: bytes_ for one, bytes_ in usage.containers}
        images = {one.image.id: one.image.size for one in usage.images}
        for container, row in zip(containers, rows, strict=True):
            own = changed.get(container.id, 0)
            whole = own + images.get(container.image_id, 0)
            row["Size"] = f"{human_size(own)} (virtual {human_size(whole)})"


def cmd_rm(root: Path, args: list[str]) -> int:
    flags = [
        Flag("force", "Force the removal of a running container", "f"),
        Flag("volumes", "Remove anonymous volumes associated with the container", "v"),
        Flag("link", "Remove the specified link: CONTAINER/ALIAS", "l"),
    ]
    parsed = read(args, "rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", flags, minimum=1)
    if parsed is None:
        return 0
    force, link = parsed.on("force"), parsed.on("link")

    async def work(engine: Engine) -> int:
        names = list(parsed.args)
        for name in parsed.args if force and not link else ():
            try:
                await engine.container_summary(name)
            except NotFound as error:  # told, and no failure: it is gone, as was wanted
                print(f"workbench: {error}", file=sys.stderr)
                names.remove(name)
        return await each(names, lambda name: engine.remove(name, force=force, volumes=parsed.on("volumes"), link=link))

    return run(root, work, plain=True)
