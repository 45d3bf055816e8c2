"""What `up` prints: lines for people, or one JSON object a line for scripts and editors.

`--json` (version 1; keys are added, never renamed or removed). Every object has `event` and `time` (RFC 3339, nine digits):

    project_found         version, name, path, file, services, notes
    service_state         service, phase (waiting, pulling, building, starting, running, exited, failed), container, image, generation, text
    service_build         service, build: an object with `event` build_started, step_started, step_output, step_progress, step_finished,
                          build_notice, build_finished or pull_progress, and that event's fields (`engine.model.build`)
    service_build_failed  service, message, hint, file, line, still_runs
    change_seen           service, paths
    replaced              service, container, generation, rule, seconds, phases, paths
    synced                service, container, paths, seconds, then, drift
    loop_notice           service, text
    log                   service, container, stream (stdout, stderr, workbench), text
    ready                 everything was brought up; failed: the services that were not
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine import api
from engine.base.clock import rfc3339
from engine.base.units import brief_seconds
from engine.cli.build import BuildPrinter
from engine.cli.common import clean
from engine.errors import EngineError
from engine.model import BuildFinished, LogLine
from engine.project.words import phases_text

if TYPE_CHECKING:
    from engine.api import Engine

VERSION = 1
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # of the services' names, as compose gives them
_CAMEL = re.compile(r"(?<!^)(?=[A-Z])")


class Show(Protocol):
    """Where events and lines go."""

    def event(self, event: api.LoopEvent) -> None: ...

    def line(self, service: str, container: str, line: LogLine) -> None: ...

    def ready(self, failed: Sequence[str]) -> None: ...


# --- JSON -------------------------------------------------------------------------------------------------


def _name(value: object) -> str:
    return _CAMEL.sub("_", type(value).__name__).lower()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class JsonShow:
    def _write(self, event: str, fields: Mapping[str, object]) -> None:
        document = {"event": event, "time": rfc3339(), **fields}
        print(json.dumps(document, ensure_ascii=False), flush=True)

    def event(self, event: api.LoopEvent) -> None:
        fields = _plain(event)
        assert isinstance(fields, dict)  # events are dataclasses
        if isinstance(event, api.ProjectFound):
            fields = {"version": VERSION, **fields}
        elif isinstance(event, api.ServiceBuild):
            inner = fields.pop("event")
            fields["build"] = {"event": _name(event.event), **inner}
        self._write(_name(event), fields)

    def line(self, service: str, container: str, line: LogLine) -> None:
        self._write("log", {"service": service, "container": container, "stream": line.stream, "text": line.text})

    def ready(self, failed: Sequence[str]) -> None:
        self._write("ready", {"failed": list(failed)})


# --- lines ------------------------------------------------------------------------------------------------


def colourful(choice: str = "") -> bool:
    """`--ansi`; else colours where a person reads (https://no-color.org)."""
    if choice in ("always", "never"):
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Prefixes:
    """`web-1  | ` before every line, in a colour of its own where there are colours."""

    def __init__(self, names: Sequence[str], *, colours: bool, shown: bool = True) -> None:
        self._width = max(map(len, names), default=0)
        self._codes = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)} if colours else {}
        self._shown = shown

    def of(self, name: str) -> str:
        if not self._shown:
            return ""
        text = f"{name:<{self._width}} | "
        code = self._codes.get(name)
        return f"\x1b[{code}m{text}\x1b[0m" if code else text

    def dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._codes else text


class LineShow:
    """News on stderr, the services' own lines on stdout."""

    def __init__(self, services: Sequence[str], prefixes: Prefixes, *, timestamps: bool = False) -> None:
        self._prefixes, self._timestamps = prefixes, timestamps
        self._printers: dict[str, BuildPrinter] = {}
        self._services = services

    def _say(self, service: str, text: str) -> None:
        head = self._prefixes.of(service) if service else ""
        print(f"{head}{clean(text)}", file=sys.stderr, flush=True)

    def event(self, event: api.LoopEvent) -> None:
        match event:
            case api.ProjectFound(name, path, _, _, notes):
                self._say("", f"project {name} in {path}")
                for note in notes:
                    self._say("", f"note: {note}")
            case api.ServiceBuild(service, inner):
                printer = self._printers.setdefault(service, BuildPrinter(prefix=self._prefixes.of(service)))
                if not isinstance(inner, BuildFinished) or inner.first_changed:
                    printer.feed(inner)
            case api.ServiceBuildFailed(service, message, hint, still_runs=still_runs):
                for line in [*message.splitlines(), *(f"hint: {part}" for part in [hint] if part)]:
                    self._say(service, line)
                self._say(service, "not replaced: what ran before goes on" if still_runs else "not started")
            case api.ServiceState(service, "running", container):
                self._say(service, f"running as {container}")
            case api.ServiceState(service, "waiting", text=text):
                self._say(service, f"waits for {text}")
            case api.ServiceState(service, "exited", text=text):
                self._say(service, f"ended{f': {text}' if text else ''}")
            case api.ChangeSeen(service, paths):
                more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                self._say(service, f"changed: {paths[0]}{more}" if paths else "changed")
            case api.Replaced(service, _, generation, _, seconds, phases):
                self._say(
                    service, f"generation {generation} serves after {brief_seconds(seconds)}: {phases_text(phases)}"
                )
            case api.Synced(service, _, paths, seconds, then):
                what = f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}" if paths else "files"
                self._say(service, f"synced {what}{f', {then}' if then else ''} after {brief_seconds(seconds)}")
            case api.LoopNotice(text, service):
                self._say(service, text)
            case _:
                pass

    def line(self, service: str, container: str, line: LogLine) -> None:
        stamp = f"{rfc3339(line.time)} " if self._timestamps else ""
        text = self._prefixes.dim(line.text) if line.stream == "workbench" else line.text
        print(f"{self._prefixes.of(service)}{stamp}{text}", flush=True)

    def ready(self, failed: Sequence[str]) -> None:
        pass


class QuietShow:
    """Only what went wrong."""

    def event(self, event: api.LoopEvent) -> None:
        if isinstance(event, api.ServiceBuildFailed):
            print(f"{event.service}: {clean(event.message)}", file=sys.stderr, flush=True)

    def line(self, service: str, container: str, line: LogLine) -> None:
        pass

    def ready(self, failed: Sequence[str]) -> None:
        pass


class Followers:
    """The logs of a project's services, each container's from where its service's log was shown to."""

    def __init__(self, engine: Engine, show: Show, *, tail: int | None = None, since: int = 0, until: int = 0) -> None:
        self._engine, self._show = engine, show
        self._tail, self._since, self._until = tail, since, until
        self._offsets: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, service: str, container: str) -> None:
        before = self._tasks.get(container)
        self._tasks[container] = asyncio.get_running_loop().create_task(self._run(service, container, before))

    async def _run(self, service: str, container: str, before: asyncio.Task[None] | None) -> None:
        """What the generation before has printed is not printed again."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            async for line in self._engine.logs(
                container, follow=True, tail=self._tail, since=self._since, until=self._until
            ):
                if line.offset > self._offsets.get(container, 0):
                    self._offsets[container] = line.offset
                    self._show.line(service, container, line)
        except EngineError:
            return

    async def ended(self) -> None:
        """Until every container that is followed has ended."""
        while pending := [task for task in self._tasks.values() if not task.done()]:
            await asyncio.gather(*pending, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
