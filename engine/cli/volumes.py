"""`volume create | inspect | ls | prune | rm`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.clock import rfc3339
from engine.base.units import human_size
from engine.cli.common import each, read, run
from engine.cli.flags import Flag
from engine.cli.nouns import Verb, confirmed, dispatch, filters, inspect, listing, pairs
from engine.errors import InvalidInput
from engine.model import VolumeInfo

if TYPE_CHECKING:
    from engine.api import Engine


def cmd_volume(root: Path, args: list[str]) -> int:
    verbs: dict[str, Verb] = {
        "create": _create,
        "inspect": _inspect,
        "ls": _list,
        "prune": _prune,
        "rm": _remove,
    }
    return dispatch("volume", verbs, root, args)


def _create(root: Path, args: list[str]) -> int:
    flags = [
        Flag("driver", "Specify volume driver name", "d", kind="str"),
        Flag("label", "Set metadata for a volume", kind="list"),
        Flag("opt", "Set driver specific options", "o", kind="list"),
        Flag("name", "Volume name (the argument does the same)", kind="str"),
    ]
    parsed = read(args, "volume create [OPTIONS] [VOLUME]", "Create a volume", flags, maximum=1)
    if parsed is None:
        return 0
    if parsed.args and parsed.text("name"):
        raise InvalidInput(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )

    async def work(engine: Engine) -> int:
        made = await engine.create_volume(
            parsed.args[0] if parsed.args else parsed.text("name"),
            driver=parsed.text("driver"),
            labels=pairs(parsed.items("label")),
            options=pairs(parsed.items("opt")),
        )
        print(made.name)
        return 0

    return run(root, work, plain=True)


def document(volume: VolumeInfo) -> dict[str, object]:
    """A volume as `docker volume inspect` and the API show it."""
    return {
        "CreatedAt": rfc3339(volume.created // 10**9 * 10**9),
        "Driver": volume.driver,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": volume.scope,
    }


def _inspect(root: Path, args: list[str]) -> int:
    flags = [Flag("format", "Format output with a template", "f", kind="str")]
    usage = "volume inspect [OPTIONS] VOLUME [VOLUME...]"
    parsed = read(args, usage, "Display detailed information on one or more volumes", flags, minimum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        async def look(name: str) -> Mapping[str, Any]:
            return document(await engine.volume(name))

        return await inspect(parsed, look)

    return run(root, work, plain=True)


def _row(volume: VolumeInfo) -> dict[str, object]:
    return {
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": ",".join(f"{key}={value}" for key, value in volume.labels.items()),
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope,
        "Size": "N/A",
        "Status": "N/A",
    }


def _list(root: Path, args: list[str]) -> int:
    flags = [
        Flag("filter", "Filter by dangling=, driver=, label=, name=", "f", kind="list"),
        Flag("format", "Format output: json, table, or a template of {{.Field}}", kind="str"),
        Flag("quiet", "Only display volume names", "q"),
    ]
    parsed = read(args, "volume ls [OPTIONS]", "List volumes", flags, maximum=0)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        rows = [_row(volume) for volume in await engine.volumes(filters(parsed.items("filter")))]
        return listing(parsed, rows, {"DRIVER": "Driver", "VOLUME NAME": "Name"}, "Name")

    return run(root, work, plain=True)


def _prune(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Remove all unused volumes, not just anonymous ones", "a"),
        Flag("filter", "Only volumes with label=, label!=", kind="list"),
        Flag("force", "Do not prompt for confirmation", "f"),
    ]
    parsed = read(args, "volume prune [OPTIONS]", "Remove unused local volumes", flags, maximum=0)
    if parsed is None:
        return 0
    wanted = filters(parsed.items("filter"))
    if parsed.on("all"):
        if "all" in wanted:
            raise InvalidInput("conflicting options: cannot specify both --all and --filter all=1")
        wanted["all"] = ["true"]
    kind = "all" if parsed.on("all") else "anonymous"
    text = f"This will remove {kind} local volumes not used by at least one container."
    if not parsed.on("force") and not confirmed(text):
        return 0

    async def work(engine: Engine) -> int:
        names, freed = await engine.prune_volumes(wanted)
        if names:
            print("Deleted Volumes:\n" + "\n".join(names) + "\n")
        print(f"Total reclaimed space: {human_size(freed)}")
        return 0

    return run(root, work, plain=True)


def _remove(root: Path, args: list[str]) -> int:
    flags = [Flag("force", "Force the removal of one or more volumes", "f")]
    usage = "volume rm [OPTIONS] VOLUME [VOLUME...]"
    parsed = read(args, usage, "Remove one or more volumes", flags, minimum=1)
    if parsed is None:
        return 0
    return run(
        root, lambda engine: each(parsed.args, lambda name: engine.remove_volume(name, force=parsed.on("force")))
    )
