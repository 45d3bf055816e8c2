"""`image …` and `system …`: what takes space, and what may go."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import human_size
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.cli.images import short
from engine.cli.nouns import filters
from engine.cli.nouns import verb as verb_of
from engine.cli.tables import render, table
from engine.model import DiskUsage, Pruned
from engine.service.describe import ago, status_text

if TYPE_CHECKING:
    from engine.api import Engine

_FORCE = Flag("force", "Do not prompt for confirmation", "f")
_DRY = Flag("dry-run", "Show what would be removed, and remove nothing")
# verb of `image` -> (module, function of it)
_IMAGE = {
    "build": ("build", "cmd_build"),
    "history": ("images", "cmd_history"),
    "import": ("archives", "cmd_import"),
    "load": ("archives", "cmd_load"),
    "ls": ("images", "cmd_images"),
    "pull": ("images", "cmd_pull"),
    "push": ("push", "cmd_push"),
    "rm": ("images", "cmd_rmi"),
    "save": ("archives", "cmd_save"),
    "tag": ("images", "cmd_tag"),
}


def cmd_image(root: Path, args: list[str]) -> int:
    verb = verb_of("image", [*_IMAGE, "inspect", "prune"], args)
    if verb is None:
        return 0
    if verb == "prune":
        return _image_prune(root, args[1:])
    if verb == "inspect":
        from engine.cli.inspect import cmd_inspect

        return cmd_inspect(root, ["--type", "image", *args[1:]])
    module, function = _IMAGE[verb]
    status: int = getattr(importlib.import_module(f"engine.cli.{module}"), function)(root, args[1:])
    return status


# As Docker groups them; each is a verb of its own, too.
_CONTAINER = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "ls", "pause", "port", "prune", "rename",
    "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
)  # fmt: skip


def cmd_container(root: Path, args: list[str]) -> int:
    verb = verb_of("container", [*_CONTAINER, "ps"], args)
    if verb is None:
        return 0
    if verb == "prune":
        return container_prune(root, args[1:])
    if verb == "inspect":
        from engine.cli.inspect import cmd_inspect

        return cmd_inspect(root, ["--type", "container", *args[1:]])
    from engine.cli.main import VERBS

    name = "ps" if verb == "ls" else verb
    status: int = getattr(importlib.import_module(f"engine.cli.{VERBS[name][0]}"), f"cmd_{name}")(root, args[1:])
    return status


def cmd_system(root: Path, args: list[str]) -> int:
    verbs: dict[str, Callable[[Path, list[str]], int]] = {
        "df": _df,
        "events": _events,
        "prune": _system_prune,
        "info": _info,
        "dial-stdio": _dial_stdio,
    }
    verb = verb_of("system", list(verbs), args, "the system")
    return 0 if verb is None else verbs[verb](root, args[1:])


def _info(root: Path, args: list[str]) -> int:
    from engine.cli.system import cmd_info

    return cmd_info(root, args)


def _events(root: Path, args: list[str]) -> int:
    from engine.cli.logs import cmd_events

    return cmd_events(root, args)


def _dial_stdio(root: Path, args: list[str]) -> int:
    from engine.cli.dial import cmd_dial_stdio

    return cmd_dial_stdio(root, args)


def agreed(question: str, force: bool) -> bool:
    """Docker's question; without a terminal to ask on, no is the answer."""
    if force:
        return True
    print(f"WARNING! {question}", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline() if sys.stdin.isatty() else ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("\nnothing was removed" + ("" if sys.stdin.isatty() else " (use --force)"), file=sys.stderr)
    return False


def _image_prune(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Remove all unused images, not just dangling ones", "a"),
        Flag("filter", "Provide filter values: label, label!, until", kind="list"),
        _FORCE,
        _DRY,
    ]
    parsed = read(args, "image prune [OPTIONS]", "Remove unused images", flags, maximum=0)
    if parsed is None:
        return 0
    wanted = filters(parsed.items("filter"))
    if parsed.on("all"):
        wanted["dangling"] = ["false"]
    which = (
        "all images without at least one container associated to them" if parsed.on("all") else "all dangling images"
    )
    dry = parsed.on("dry-run")
    if not dry and not agreed(
        f"This will remove {which}.\nAre you sure you want to continue? [y/N] ", parsed.on("force")
    ):
        return 0

    async def work(engine: Engine) -> int:
        _tell(await engine.prune_images(wanted, dry_run=dry), dry)
        return 0

    return run(root, work, plain=True)


def container_prune(root: Path, args: list[str]) -> int:
    flags = [Flag("filter", "Provide filter values: label, label!, until", kind="list"), _FORCE, _DRY]
    parsed = read(args, "container prune [OPTIONS]", "Remove all stopped containers", flags, maximum=0)
    if parsed is None:
        return 0
    dry = parsed.on("dry-run")
    question = "This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
    if not dry and not agreed(question, parsed.on("force")):
        return 0

    async def work(engine: Engine) -> int:
        _tell(await engine.prune_containers(filters(parsed.items("filter")), dry_run=dry), dry)
        return 0

    return run(root, work, plain=True)


def _system_prune(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Remove all unused images not just dangling ones", "a"),
        Flag("filter", "Provide filter values: label, label!, until", kind="list"),
        Flag("volumes", "Prune anonymous volumes"),
        _FORCE,
        _DRY,
    ]
    parsed = read(args, "system prune [OPTIONS]", "Remove unused data", flags, maximum=0)
    if parsed is None:
        return 0
    everything, volumes, dry = parsed.on("all"), parsed.on("volumes"), parsed.on("dry-run")
    kinds = [
        "all stopped containers",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them" if everything else "all dangling images",
        "all build cache" if everything else "unused build cache",
    ]
    question = (
        "This will remove:\n"
        + "".join(f"  - {kind}\n" for kind in kinds)
        + "\nAre you sure you want to continue? [y/N] "
    )
    if not dry and not agreed(question, parsed.on("force")):
        return 0

    async def work(engine: Engine) -> int:
        found = await engine.prune_system(filters(parsed.items("filter")), all=everything, volumes=volumes, dry_run=dry)
        _tell(found, dry)
        return 0

    return run(root, work)


def _tell(pruned: Pruned, dry: bool) -> None:
    """Docker's report; a dry run says so in its headings."""
    parts = (
        ("Containers", pruned.containers),
        ("Volumes", pruned.volumes),
        ("Images", pruned.images),
        ("build cache objects", pruned.cache),
    )
    for title, lines in parts:
        if lines:
            head = f"Would delete {title}:" if dry else f"Deleted {title}:"
            print("\n".join([head, *lines]) + "\n")
    print(f"{'Space that would be reclaimed' if dry else 'Total reclaimed space'}: {human_size(pruned.reclaimed, 4)}")


def _df(root: Path, args: list[str]) -> int:
    flags = [
        Flag("verbose", "Show detailed information on space usage", "v"),
        Flag("format", "Format output: table, json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "system df [OPTIONS]", "Show disk usage", flags, maximum=0)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        usage = await engine.disk_usage()
        form = parsed.text("format")
        if parsed.on("verbose"):
            parts = _details(usage)
            print(render(form, [_documents(parts)], escapes=False) if form not in ("", "table") else _tables(parts))
            return 0
        rows = summary(usage)
        if form and form != "table":
            print(render(form, rows))
        else:
            names = ["Type", "TotalCount", "Active", "Size", "Reclaimable"]
            print(
                table(
                    ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], [[str(row[n]) for n in names] for row in rows]
                )
            )
        return 0

    return run(root, work, plain=True)


def summary(usage: DiskUsage) -> list[dict[str, object]]:
    """The four lines of `system df`."""

    def row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, object]:
        share = f" ({free * 100 // size}%)" if size else ""
        return {
            "Type": kind,
            "TotalCount": str(total),
            "Active": str(active),
            "Size": human_size(size, 4),
            "Reclaimable": human_size(free, 4) + share,
        }

    used = [one for one in usage.images if one.image.used_by]
    # What the images in use hold cannot go; shared layers count as theirs.
    held = min(usage.layers_size, sum(one.image.size for one in used))
    running = [pair for pair in usage.containers if pair[0].status in ("running", "paused", "restarting")]
    busy = [volume for volume in usage.volumes if volume.used_by]
    size = sum(size for _, size in usage.containers)
    volumes = sum(volume.size for volume in usage.volumes)
    cache = sum(entry.size for entry in usage.cache if not entry.in_use)
    return [
        row("Images", len(usage.images), len(used), usage.layers_size, usage.layers_size - held),
        row("Containers", len(usage.containers), len(running), size, size - sum(size for _, size in running)),
        row("Local Volumes", len(usage.volumes), len(busy), volumes, volumes - sum(volume.size for volume in busy)),
        row("Build Cache", len(usage.cache), sum(entry.in_use for entry in usage.cache), cache, cache),
    ]


Part = tuple[str, str, Sequence[str], Sequence[str], list[list[str]]]


def _tables(parts: Sequence[Part]) -> str:
    return "\n\n".join(f"{title}:\n\n" + table(heads, rows) for title, _, heads, _, rows in parts)


def _documents(parts: Sequence[Part]) -> dict[str, object]:
    return {name: [dict(zip(fields, row, strict=True)) for row in rows] for _, name, _, fields, rows in parts}


def _details(usage: DiskUsage) -> list[Part]:
    """For each kind: its title, its name in JSON, the headings, the fields' names, the rows."""
    images = [
        [
            *(((one.image.tags or ("<none>:<none>",))[0]).rpartition(":")[::2]),
            short(one.image.id),
            ago(one.image.created or 1),  # an image may say that it is of 1970
            human_size(one.image.size),
            human_size(one.shared, 4),
            human_size(one.image.size - one.shared, 4),
            str(len(one.image.used_by)),
        ]
        for one in usage.images
    ]
    containers = [
        [
            one.id[:12],
            one.image,
            clean(json.dumps(one.command if len(one.command) <= 20 else f"{one.command[:19]}…", ensure_ascii=False)),
            str(sum(point.get("Driver") == "local" for point in one.mounts)),
            human_size(size),
            ago(one.created),
            status_text(one),
            one.name,
        ]
        for one, size in usage.containers
    ]
    volumes = [[one.name, str(len(one.used_by)), human_size(one.size)] for one in usage.volumes]
    cache = [[one.id, human_size(one.size), ago(one.last_used), str(one.in_use).lower()] for one in usage.cache]
    return [
        (
            "Images space usage",
            "Images",
            ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
            ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"],
            images,
        ),
        (
            "Containers space usage",
            "Containers",
            ["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"],
            ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"],
            containers,
        ),
        ("Local Volumes space usage", "Volumes", ["VOLUME NAME", "LINKS", "SIZE"], ["Name", "Links", "Size"], volumes),
        (
            "Build cache usage",
            "BuildCache",
            ["CACHE ID", "SIZE", "LAST USED", "IN USE"],
            ["ID", "Size", "LastUsedSince", "InUse"],
            cache,
        ),
    ]
