"""Engine records as the rows and words that panes show (pure)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from engine.api import (
    BuildFinished,
    BuildRecord,
    ContainerSummary,
    ImageSummary,
    LayerInfo,
    NetworkInfo,
    PullProgress,
    ServiceState,
    StepFinished,
    StepStarted,
    VolumeInfo,
)
from engine.base.units import brief_seconds, human_size

GLYPHS = {"running": "●", "exited": "○", "created": "◌", "dead": "✗"}
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


@dataclass(frozen=True, slots=True)
class Column:
    """How a cell is set. `grow` takes the room that is left, `short` replaces words where there is little of it."""

    grow: bool = False
    right: bool = False
    short: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, str] = field(default_factory=dict)


GREEN, DIM = "#8fbf7f", "dim"
IMAGES = (Column(grow=True), Column(short={"in use": "●"}, styles={"in use": GREEN}), Column(right=True))
LAYERS = (
    Column(grow=True),
    Column(short={"cached": "·", "built": "✓"}, styles={"built": GREEN, "cached": DIM}),
    Column(right=True),
    Column(right=True),
)
CONTAINERS = (
    Column(styles={"●": GREEN, "○": DIM, "◌": DIM, "✗": "#d9746a"}),
    Column(grow=True),
    Column(),
    Column(right=True),
)
SERVICES = (Column(styles={"●": GREEN, "✗": "#d9746a"}), Column(grow=True), Column(), Column(right=True))
VOLUMES = (Column(grow=True), Column(), Column(right=True))
NETWORKS = (Column(grow=True), Column(), Column(right=True))
BUILDS = (Column(right=True), Column(grow=True), Column(), Column(right=True), Column(right=True))
STATS = (Column(grow=True), Column(right=True), Column(right=True))
ROOMY = 50  # cells from which a list writes words out


def lay_out(rows: Sequence[Sequence[str]], columns: Sequence[Column], width: int) -> list[Text]:
    """Rows of exactly `width` cells. What does not fit is cut with an ellipsis, first in the column that grows."""
    roomy = width >= ROOMY
    shown = [[cell if roomy else columns[i].short.get(cell, cell) for i, cell in enumerate(row)] for row in rows]
    widths = [max((cell_len(row[i]) for row in shown), default=0) for i in range(len(columns))]
    gap = 2 if roomy else 1
    gaps = gap * max(0, sum(1 for i, column in enumerate(columns) if widths[i] or column.grow) - 1)
    fixed = sum(size for size, column in zip(widths, columns, strict=True) if not column.grow)
    widths = [max(0, width - fixed - gaps) if column.grow else widths[i] for i, column in enumerate(columns)]
    lines = []
    for original, row in zip(rows, shown, strict=True):
        line = Text(no_wrap=True, end="")
        for i, column in enumerate(columns):
            if widths[i]:
                line.append(" " * gap if line else "")
                line.append(_fit(row[i], widths[i], column.right), column.styles.get(original[i], ""))
        line.truncate(width)
        lines.append(line)
    return lines


def _fit(text: str, width: int, right: bool) -> str:
    if cell_len(text) > width:
        return f"{set_cell_size(text, width - 1)}…"
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)


def brief_age(seconds: float) -> str:
    """`5 s`, `3 min`, `2 h`, `4 d`."""
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{max(0, int(seconds)) // unit} {name}"
    return f"{int(seconds) // 86400} d"


def brief_port(port: str) -> str:
    """Docker's `0.0.0.0:8080->80/tcp` as `8080→80`, `8000/tcp` as `8000`."""
    host, arrow, inside = port.removesuffix("/tcp").rpartition("->")
    outside = host.rpartition(":")[2]
    return f"{outside}→{inside}" if arrow and outside != inside else inside


def image_row(image: ImageSummary) -> tuple[str, str, str]:
    """Name, whether it is in use, size."""
    name = neutral(image.tags[0]).removesuffix(":latest") if image.tags else f"<none> {image.id[7:19]}"
    return name, "in use" if image.used_by else "", human_size(image.size)


def container_row(container: ContainerSummary, now: float | None = None) -> tuple[str, str, str, str]:
    """Glyph, name, state, ports."""
    now = time.time() if now is None else now
    if container.running:
        text = f"up {brief_age(now - container.started / 1e9)}"
    elif container.status == "exited":
        text = f"exit {container.exit_code if container.exit_code is not None else '?'}"
    else:
        text = container.status
    ports = " ".join(dict.fromkeys(map(brief_port, container.ports)))
    return GLYPHS[container.status], neutral(container.name), text, ports


def service_row(state: ServiceState) -> tuple[str, str, str, str]:
    """Glyph, name, phase, generation."""
    generation = f"generation {state.generation}" if state.generation else ""
    return PHASES[state.phase], neutral(state.service), state.phase, generation


def volume_row(volume: VolumeInfo) -> tuple[str, str, str]:
    """Name, who uses it, size where it is known."""
    name = neutral(volume.name[:12] if volume.anonymous else volume.name)
    return name, neutral(" ".join(volume.used_by)), human_size(volume.size) if volume.size >= 0 else ""


def network_row(network: NetworkInfo) -> tuple[str, str, str]:
    """Name, driver, what it is apart."""
    return neutral(network.name), network.driver, "internal" if network.internal else ""


def build_row(record: BuildRecord) -> tuple[str, str, str, str, str]:
    """Number, name, how it ended, the share of cached steps, time."""
    share = f"{record.cache_share:.0%}" if record.steps else ""
    return str(record.number), neutral(record.name), record.status, share, brief_seconds(record.seconds)


def layer_row(layer: LayerInfo) -> tuple[str, str, str, str]:
    """Instruction, cached or built, size, time. A step that only changes settings has no layer, so the rest is empty."""
    instruction = neutral(layer.instruction)
    if layer.empty:
        return instruction, "", "", ""
    kind = "" if layer.cached is None else "cached" if layer.cached else "built"
    return (
        instruction,
        kind,
        human_size(layer.size),
        brief_seconds(layer.seconds) if layer.seconds is not None else "",
    )


def status_line(state: ServiceState | None, project: str, step: str = "") -> str:
    if state is None:
        return project or "no project here"
    parts = [f"{project} · {PHASES[state.phase]} {state.service} {state.phase}"]
    if state.generation > 1 and state.phase == "running":
        parts.append(f"generation {state.generation}")
    if step and state.phase == "building":
        parts.append(step)
    return " · ".join(parts)


def build_line(event: object) -> str | None:
    """One line of the build pane for an event, None for those that show nothing."""
    match event:
        case StepStarted(step, reason) if reason:
            return f"◐ {step.number}/{step.total} {neutral(step.instruction)}  {neutral(reason)}"
        case StepFinished(step, True):
            return f"· {step.number}/{step.total} {neutral(step.instruction)}  cached"
        case StepFinished(step, False, seconds, size):
            return f"✓ {step.number}/{step.total} {neutral(step.instruction)}  {brief_seconds(seconds)}, {human_size(size)}"
        case BuildFinished(_, _, tags, seconds):
            return f"✓ {', '.join(tags) or 'image'} in {brief_seconds(seconds)}"
        case PullProgress(reference, layer, phase, current, total):
            amount = f" {human_size(current)}/{human_size(total)}" if total else ""
            return f"↓ {neutral(reference)} {layer} {phase}{amount}"
        case _:
            return None
