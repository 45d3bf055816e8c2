"""Engine records as the rows and words that panes show (pure)."""

from __future__ import annotations

import re
import time

from engine.api import (
    BuildFinished,
    ContainerSummary,
    ImageSummary,
    LayerInfo,
    PullProgress,
    ServiceState,
    StepFinished,
    StepStarted,
)
from engine.base.units import brief_seconds, human_duration, human_size

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


def image_row(image: ImageSummary) -> tuple[str, str, str]:
    name = neutral(image.tags[0]) if image.tags else "<none>"
    return name, human_size(image.size), "in use" if image.used_by else ""


def container_row(container: ContainerSummary, now: float | None = None) -> tuple[str, str, str]:
    now = time.time() if now is None else now
    if container.running:
        text = f"up {human_duration(now - container.started / 1e9).lower()}"
    elif container.status == "exited":
        text = f"exit {container.exit_code if container.exit_code is not None else '?'}"
    else:
        text = container.status
    return f"{GLYPHS[container.status]} {neutral(container.name)}", text, " ".join(container.ports)


def layer_row(layer: LayerInfo) -> tuple[str, str, str, str]:
    kind = "" if layer.cached is None else "cached" if layer.cached else "built"
    cost = brief_seconds(layer.seconds) if layer.seconds is not None and not layer.empty else ""
    return (
        "" if layer.empty else human_size(layer.size),
        kind if not layer.empty else "",
        cost,
        neutral(layer.instruction),
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
