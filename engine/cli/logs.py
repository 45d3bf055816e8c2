"""`logs` and `events`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote_plus

from engine.base.clock import parse_rfc3339
from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.cli.tables import Alias, render
from engine.errors import InvalidInput
from engine.model import EngineEvent, LogRecord
from engine.service.event_filters import Filters, event_document, matches, parse_filters
from engine.service.logs import full_stamp

if TYPE_CHECKING:
    from engine.api import Engine

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(flag: str, text: str) -> int:
    """Nanoseconds since the epoch of `10m` (ago), `2026-11-23T10:00:00Z`, `2026-11-23`, `1763900000.5`; 0 for ""."""
    if not text:
        return 0
    from engine.build.dockerfile.durations import parse_duration

    try:
        if text.replace(".", "", 1).isdigit():
            whole, _, part = text.partition(".")
            return int(whole) * 1_000_000_000 + int(f"{part:0<9}"[:9])
        if text[-1] in _UNITS and "T" not in text:
            if text[-1] == "d":
                return time.time_ns() - int(float(text[:-1]) * 86400e9)
            return time.time_ns() - parse_duration(text)
        return parse_rfc3339(text)
    except ValueError:
        raise InvalidInput(
            f"--{flag} {text!r} is neither a time nor a duration", hint="10m, 2h or 2026-11-23T10:00:00Z"
        ) from None


def cmd_logs(root: Path, args: list[str]) -> int:
    flags = [
        Flag("details", "Show extra details provided to logs"),
        Flag("follow", "Follow log output", "f"),
        Flag("tail", "Number of lines to show from the end of the logs", "n", kind="str"),
        Flag("timestamps", "Show timestamps", "t"),
        Flag("since", "Show logs since a time (RFC 3339) or a duration (10m)", kind="str"),
        Flag("until", "Show logs before a time (RFC 3339) or a duration (10m)", kind="str"),
    ]
    parsed = read(args, "logs [OPTIONS] CONTAINER", "Fetch the logs of a container", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    tail_text = parsed.text("tail", "all")
    if tail_text.lstrip("-").isdigit():
        tail = int(tail_text) if int(tail_text) >= 0 else None
    elif tail_text == "all":
        tail = None
    else:
        raise InvalidInput(f"--tail {tail_text!r} is not a number of lines", hint='a number, or "all"')
    printer = _Printer(stamps=parsed.on("timestamps"), details=parsed.on("details"))

    async def work(engine: Engine) -> int:
        async for batch in engine.log_records(
            parsed.args[0],
            follow=parsed.on("follow"),
            tail=tail,
            since=moment("since", parsed.text("since")),
            until=moment("until", parsed.text("until")),
        ):
            printer.show(batch)
        return 0

    return run(root, work)


class _Printer:
    """Records to stdout and stderr, byte for byte; stamps and details stand at the beginning of lines."""

    def __init__(self, *, stamps: bool, details: bool) -> None:
        self._stamps, self._details = stamps, details
        self._inside: dict[str, bool] = {}  # by stream: in the middle of a line
        self._outs: dict[str, IO[bytes]] = {"stderr": sys.stderr.buffer}

    def show(self, batch: Sequence[LogRecord]) -> None:
        start = 0
        for index in range(1, len(batch) + 1):  # runs of one stream at once
            if index == len(batch) or batch[index].stream != batch[start].stream:
                self._write(batch[start].stream, batch[start:index])
                start = index

    def _write(self, stream: str, records: Sequence[LogRecord]) -> None:
        out = self._outs.get(stream, sys.stdout.buffer)
        if self._stamps or self._details:
            text = "".join([self._head(record) + record.text for record in records])
        else:
            text = "".join([record.text for record in records])
        out.write(text.encode("utf-8", "surrogateescape"))
        out.flush()

    def _head(self, record: LogRecord) -> str:
        inside = self._inside.get(record.stream, False)
        self._inside[record.stream] = not record.text.endswith("\n")
        if inside:
            return ""
        head = f"{full_stamp(record.stamp)} " if self._stamps else ""
        if self._details:
            pairs = sorted(record.attributes.items())
            head += ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs) + " "
        return head


# --- events ------------------------------------------------------------------------------------------


def cmd_events(root: Path, args: list[str]) -> int:
    flags = [
        Flag("filter", "Filter output: container=, event=, image=, label=, type=, …", "f", kind="list"),
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
        Flag("since", "Show all events created since a time or a duration", kind="str"),
        Flag("until", "Stream events until a time or a duration", kind="str"),
    ]
    parsed = read(args, "events [OPTIONS]", "Get real time events from the engine", flags, maximum=0)
    if parsed is None:
        return 0
    filters: Filters = parse_filters(parsed.items("filter"))
    template = parsed.text("format")
    since = moment("since", parsed.text("since")) if parsed.given("since") else None
    until = moment("until", parsed.text("until")) if parsed.given("until") else None

    async def work(engine: Engine) -> int:
        async for event in engine.events(since_time=since, until=until):
            if matches(event, filters):
                print(_formatted(template, event) if template else _line(event), flush=True)
        return 0

    return run(root, work)


def _line(event: EngineEvent) -> str:
    seconds, rest = divmod(event.time, 1_000_000_000)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{rest:09d}{shown}"
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    return clean(f"{stamp} {event.type} {event.action} {event.id}" + (f" ({attributes})" if attributes else ""))


def _formatted(template: str, event: EngineEvent) -> str:
    document: Mapping[str, object] = event_document(event)
    if template == "json":
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # The names of Docker's fields, which print as JSON by those of the API.
    names = {"Status": document.get("status", ""), "ID": document.get("id", ""), "TimeNano": event.time}
    return render(template, [Alias(document, {**names, "Time": document["time"], "From": document.get("from", "")})])
