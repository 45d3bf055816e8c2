"""`stats`, `top` and `update`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.units import binary_size, human_size
from engine.cli.common import each, read, run
from engine.cli.flags import Flag
from engine.cli.host_flags import LIMIT_FLAGS, limit_values
from engine.cli.tables import render, table
from engine.errors import Conflict, InvalidInput, NotFound
from engine.model import ContainerStats, HostStats, Resources
from engine.service.life_config import parse_restart

if TYPE_CHECKING:
    from engine.api import Engine

_FIELDS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_TITLES = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
_CLEAR = "\x1b[H\x1b[J"


def row(
    name: str, now: ContainerStats | None, before: ContainerStats | None, *, full: bool = False
) -> dict[str, object]:
    """Docker's fields of one container; dashes when there is nothing to say."""
    if now is None:
        dashes = {"CPUPerc": "--", "MemUsage": "-- / --", "MemPerc": "--", "NetIO": "--", "BlockIO": "--", "PIDs": "--"}
        return {"Container": name, "ID": "--", "Name": "--", **dashes}
    received = sum(one.rx_bytes for one in now.networks.values())
    sent = sum(one.tx_bytes for one in now.networks.values())
    return {
        "Container": name if full or name != now.id else name[:12],
        "ID": now.id if full else now.id[:12],
        "Name": now.name,
        "CPUPerc": f"{now.cpu_percent(before):.2f}%",
        "MemUsage": f"{binary_size(now.memory.used)} / {binary_size(now.memory.limit)}",
        "MemPerc": f"{now.memory_percent:.2f}%",
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "BlockIO": f"{human_size(now.block_bytes('read'))} / {human_size(now.block_bytes('write'))}",
        "PIDs": str(now.pids),
    }


def host_row(now: HostStats, before: HostStats) -> dict[str, object]:
    """The host in the same columns; a host has no number of processes here."""
    return {
        "Container": "host",
        "ID": "host",
        "Name": "host",
        "CPUPerc": f"{now.cpu_percent(before):.2f}%",
        "MemUsage": f"{binary_size(now.memory_used)} / {binary_size(now.memory_total)}",
        "MemPerc": f"{100.0 * now.memory_used / now.memory_total if now.memory_total else 0:.2f}%",
        "NetIO": f"{human_size(now.received)} / {human_size(now.sent)}",
        "BlockIO": f"{human_size(now.read)} / {human_size(now.written)}",
        "PIDs": "--",
    }


def cmd_stats(root: Path, args: list[str]) -> int:
    flags = [
        Flag("all", "Show all containers (default shows just running)", "a"),
        Flag("no-stream", "Disable streaming stats and only pull the first result"),
        Flag("no-trunc", "Do not truncate output"),
        Flag("with-host", "A row of the host itself first"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
    ]
    parsed = read(args, "stats [OPTIONS] [CONTAINER...]", "Display a live stream of resource usage", flags)
    if parsed is None:
        return 0

    async def names(engine: Engine) -> list[str]:
        if parsed.args:
            return parsed.args
        return [container.id for container in await engine.containers(all=parsed.on("all"))]

    async def reading(engine: Engine, name: str, *, strict: bool) -> ContainerStats | None:
        try:
            return await engine.stats(name)
        except Conflict:
            return None
        except NotFound:
            if strict:
                raise
            return None

    def show(rows: list[dict[str, object]], *, clear: bool) -> None:
        template = parsed.text("format")
        if template:
            text = render(template, rows)
        else:
            text = table(_TITLES, [[str(one[field]) for field in _FIELDS] for one in rows])
        sys.stdout.write(f"{_CLEAR if clear else ''}{text}\n" if text or clear else "")
        sys.stdout.flush()

    async def work(engine: Engine) -> int:
        before: dict[str, ContainerStats] = {}
        host = await engine.host_stats() if parsed.on("with-host") else None
        for name in await names(engine):
            if (first := await reading(engine, name, strict=True)) is not None:
                before[name] = first
        clear = not parsed.on("no-stream") and sys.stdout.isatty()
        while True:
            await asyncio.sleep(1)
            rows, latest = [], {}
            if host is not None:
                host, earlier = await engine.host_stats(), host
                rows.append(host_row(host, earlier))
            for name in await names(engine):
                now = await reading(engine, name, strict=False)
                if now is not None:
                    latest[name] = now
                if now is not None or parsed.args or parsed.on("all"):
                    rows.append(row(name, now, before.get(name), full=parsed.on("no-trunc")))
            show(rows, clear=clear)
            if parsed.on("no-stream"):
                return 0
            before = latest

    return run(root, work)


def cmd_top(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "top CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        [],
        minimum=1,
        stop_at_argument=True,
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        found = await engine.top(parsed.args[0], parsed.args[1:])
        print(table(found.titles, found.processes, minimum=20))
        return 0

    return run(root, work, plain=True)


def cmd_update(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "update [OPTIONS] CONTAINER [CONTAINER...]",
        "Update configuration of one or more containers",
        [*LIMIT_FLAGS, Flag("restart", "Restart policy to apply when a container exits", kind="str")],
        minimum=1,
    )
    if parsed is None:
        return 0
    values = limit_values(parsed)
    policy = parse_restart(parsed.text("restart")) if parsed.text("restart") else None
    if not values and not parsed.given("restart"):
        raise InvalidInput("you must provide one or more flags when using this command")
    changes = Resources(**values)

    async def one(engine: Engine, name: str) -> None:
        for note in await engine.update(name, changes, restart_policy=policy):
            print(f"WARNING: {note}", file=sys.stderr)

    return run(root, lambda engine: each(parsed.args, lambda name: one(engine, name)), plain=True)
