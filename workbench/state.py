"""Engine records as the rows and words that panes show (pure)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.table import Column

if TYPE_CHECKING:
    from engine.api import ServiceState

SERVICES_NAMED = 4  # services up to which the status line names each
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
GLYPHS = {
    "running": "●",
    "paused": "‖",
    "restarting": "↻",
    "removing": "◌",
    "exited": "○",
    "created": "◌",
    "dead": "✗",
}
PHASES = {
    "waiting": "◌",
    "pulling": "↓",
    "building": "◐",
    "starting": "◑",
    "running": "●",
    "exited": "○",
    "failed": "✗",
}
# Control characters but tab, and the bidirectional overrides that reorder what is read (CVE-2021-42574).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|.?)")


def neutral(text: str, *, colours: bool = False) -> str:
    """`text` without anything that drives a terminal; `colours` keeps SGR sequences."""
    parts: list[str] = []
    position = 0
    for match in _SGR.finditer(text):
        parts.append(_ESCAPE.sub("", text[position : match.start()]))
        if colours:
            parts.append(match[0])
        position = match.end()
    parts.append(_ESCAPE.sub("", text[position:]))
    clean = "".join(parts).replace("\t", "    ")
    return _CONTROL.sub("", clean)


GREEN, AMBER, RED, DIM = "success", "warning", "error", "dim"  # names of RowList's styles
STATS = (Column(grow=True), Column(right=True), Column(right=True))


def brief_when(nanoseconds: int, now: float | None = None) -> str:
    """When something was, of the local clock: `14:02` today, `3 Nov` this year, `2024-11`; "" for never."""
    if nanoseconds <= 0:
        return ""
    then, today = time.localtime(nanoseconds / 1e9), time.localtime(time.time() if now is None else now)
    if then[:3] == today[:3]:
        return f"{then.tm_hour:02d}:{then.tm_min:02d}"
    if then.tm_year == today.tm_year:
        return f"{then.tm_mday} {MONTHS[then.tm_mon - 1]}"
    return f"{then.tm_year}-{then.tm_mon:02d}"


def brief_port(port: str) -> str:
    """Docker's `0.0.0.0:8080->80/tcp` as `8080→80`, `0.0.0.0:80->80/tcp` as `80`; `8000/tcp`, which is not published, as `(8000)`."""
    host, arrow, inside = port.removesuffix("/tcp").rpartition("->")
    outside = host.rpartition(":")[2]
    return f"({inside})" if not arrow else inside if outside == inside else f"{outside}→{inside}"


def status_line(
    services: Sequence[ServiceState],
    project: str,
    steps: Mapping[str, str],
    *,
    read_only: bool = False,
) -> str:
    """The project and how its services are; of many, those that need an eye, and how many there are."""
    parts = [neutral(project)]
    shown = services if len(services) <= SERVICES_NAMED else [one for one in services if one.phase != "running"]
    for one in shown[:SERVICES_NAMED]:
        words = f"{PHASES[one.phase]} {neutral(one.service)} {one.phase}"
        if one.phase == "building" and steps.get(one.service):
            words += f" {neutral(steps[one.service])}"
        elif one.phase == "running" and one.generation > 1:
            words += f", generation {one.generation}"
        parts.append(words)
    if len(services) > SERVICES_NAMED:
        running = sum(1 for one in services if one.phase == "running")
        parts.append(f"{running} of {len(services)} services running")
    if read_only:
        parts.append("read-only")
    return " · ".join(parts)
