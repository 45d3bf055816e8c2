"""Looking into a container: its processes, what it changed of its image's files, and the page that it serves."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
import tarfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.cells import cell_len

from engine.errors import EngineError, InvalidInput, Unsupported
from workbench.screens.dialogs import Choose
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral
from workbench.table import Column
from workbench.widgets.lines_view import TextLine

if TYPE_CHECKING:
    from engine.api import ContainerSummary, Engine, ProcessList
    from workbench.app import WorkbenchApp
    from workbench.subjects import Subject

LIMIT = 1 << 20  # bytes of a file that are shown
_COLOURS = {"A": "success", "C": "warning", "D": "error"}
_PS = ("-eo", "pid,ppid,user,pcpu,pmem,etime,args")


def process_lines(found: ProcessList) -> list[TextLine]:
    """As ps prints them: the last column as long as it is, the others aligned."""
    rows = [tuple(neutral(cell) for cell in row) for row in (found.titles, *found.processes)]
    widths = [max(map(cell_len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)]
        lines.append(TextLine("  ".join([*cells, row[-1]]), "" if number else "dim"))
    return lines


async def processes(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    name = app.container_name(subjects[0])
    found = await app.bridge.engine.top(name, _PS)
    app.log_line(f"workbench top {name} {' '.join(_PS)}")
    count = len(found.processes)
    note = f"{count} process{'' if count == 1 else 'es'}"
    app.push_screen(ReadingScreen(f"processes of {name}", process_lines(found), note=note))


async def changes(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    """What `diff` says; enter on a file shows it."""
    engine, name = app.bridge.engine, app.container_name(subjects[0])
    found = await engine.changes(name)
    app.log_line(f"workbench diff {name}")
    if not found:
        app.say(f"{name} has changed nothing of its image")
        return
    lines = [
        TextLine(f"{one.kind} {neutral(one.path)}", _COLOURS[one.kind], key="" if one.kind == "D" else one.path)
        for one in found
    ]
    at = 0
    while True:
        note = f"{len(found)} paths: A added, C changed, D deleted; enter shows a file"
        path = await app.push_screen_wait(
            ReadingScreen(f"changed in {name}", lines, note=note, choices=True, cursor=at)
        )
        if not path:
            return
        at = next(number for number, line in enumerate(lines) if line.key == path)
        try:
            shown = await file_lines(engine, name, path)
        except EngineError as error:
            app.say(error.message)
            continue
        await app.push_screen_wait(ReadingScreen(f"{name} {neutral(path)}", shown))


class _Limited(io.BytesIO):
    def write(self, data: object, /) -> int:
        if self.tell() > LIMIT + (1 << 16):  # the tar around it
            raise InvalidInput("more than is shown")
        return super().write(data)  # type: ignore[arg-type]


async def file_lines(engine: Engine, container: str, path: str) -> list[TextLine]:
    """Of a text file. Raises `EngineError`, `InvalidInput` for what is none."""
    found = await engine.stat_path(container, path)
    if not stat.S_ISREG(found.mode):
        kind = "a folder" if stat.S_ISDIR(found.mode) else "no file"
        raise InvalidInput(f"{path} is {kind}")
    if found.size > LIMIT:
        raise InvalidInput(f"{path} has {found.size:,} bytes: `workbench cp {container}:{path} .` brings it")
    data = _Limited()
    await engine.get_archive(container, path, data)
    data.seek(0)
    with tarfile.open(fileobj=data) as tar:
        member = next((one for one in tar if one.isfile()), None)
        file = tar.extractfile(member) if member is not None else None
        content = file.read() if file is not None else b""
    if b"\0" in content[:8192]:
        raise InvalidInput(f"{path} is no text: `workbench cp {container}:{path} .` brings it")
    return [TextLine(neutral(line)) for line in content.decode(errors="replace").splitlines()]


# --- the page that it serves --------------------------------------------------------------------------------


def addresses(container: ContainerSummary, env: Mapping[str, str]) -> list[str]:
    """Of its published TCP ports, as a browser on the user's machine would ask for them. Each once."""
    there = urlsplit(env.get("WORKBENCH_HOST", "")).hostname or "localhost"
    found: dict[str, None] = {}
    for port in container.ports:
        outside, arrow, inside = port.rpartition("->")
        if not arrow or not inside.endswith("/tcp"):
            continue
        host, _, number = outside.rpartition(":")
        given = host.strip("[]") not in ("", "0.0.0.0", "::", "127.0.0.1", "::1")
        scheme = "https" if inside == "443/tcp" or number in ("443", "8443") else "http"
        for each in _numbers(number):
            found[f"{scheme}://{host if given else there}:{each}/"] = None
    return list(found)


def _numbers(text: str) -> list[str]:
    """`8000-8002` is three ports."""
    first, dash, last = text.partition("-")
    return [str(each) for each in range(int(first), int(last) + 1)] if dash else [text]


def opener(env: Mapping[str, str], platform: str) -> list[str]:
    """The program that opens a page, where the user would see it; [] over ssh and without a desktop."""
    if env.get("SSH_CONNECTION") or env.get("SSH_TTY"):
        return []
    if platform == "darwin":
        return ["open"]
    return ["xdg-open"] if env.get("DISPLAY") or env.get("WAYLAND_DISPLAY") else []


async def browse(app: WorkbenchApp, subjects: Sequence[Subject]) -> None:
    """Opens it, or copies its address where there is nothing to open it with."""
    name = app.container_name(subjects[0])
    container = app.lists.container(name)
    found = addresses(container, os.environ) if container is not None else []
    if not found:
        raise Unsupported(
            f"{name} publishes no port", hint="run it with -p 8080:80, or list `ports` in the compose file"
        )
    address: str | None = found[0]
    if len(found) > 1:
        rows = [(each, (each,)) for each in found]
        address = await app.push_screen_wait(Choose(f"ports of {name}", (Column(grow=True),), rows))
    if not address:
        return
    if words := opener(os.environ, sys.platform):
        try:
            process = await asyncio.create_subprocess_exec(
                *words, address, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            if await process.wait() == 0:
                app.say(f"opened {address}")
                return
        except OSError:
            pass  # no such program
    await app.copy(address, address)
