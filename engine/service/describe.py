"""Docker's words for what a container is doing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.base.units import human_duration

if TYPE_CHECKING:
    from engine.model import ContainerSummary


def ago(ns: int) -> str:
    """`3 hours ago`; `N/A` for a time that is not known."""
    return f"{human_duration((time.time_ns() - ns) / 1e9)} ago" if ns else "N/A"


def status_text(container: ContainerSummary) -> str:
    """`Up 5 minutes (healthy)`, `Up 2 hours (Paused)`, `Restarting (1) 3 seconds ago`, `Exited (0) 2 hours ago`, `Created`."""
    code = container.exit_code if container.exit_code is not None else "unknown"
    match container.status:
        case "running" | "paused":
            note = "Paused" if container.status == "paused" else container.health
            note = "health: starting" if note == "starting" else note
            up = f"Up {human_duration((time.time_ns() - container.started) / 1e9)}"
            return f"{up} ({note})" if note else up
        case "restarting":
            return f"Restarting ({code}) {ago(container.finished)}"
        case "exited":
            return f"Exited ({code}) {ago(container.finished)}"
        case "removing":
            return "Removal In Progress"
        case other:
            return other.capitalize()
