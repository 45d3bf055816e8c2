"""The loop's lines for people: what changed, what became of it, how long each part took (pure)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.base.units import brief_seconds
from engine.model import BuildFinished


def named(paths: Iterable[Path], below: Path) -> str:
    """`src/app.py and 3 more`, folders only where there is nothing else."""
    found = sorted(paths)
    files = [path for path in found if not path.is_dir()] or found
    if not files:
        return ""
    first = shown(files[0], below)
    return first + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def shown(path: Path, below: Path) -> str:
    try:
        return path.relative_to(below).as_posix()
    except ValueError:
        return str(path)


def short(image: str) -> str:
    return image.removeprefix("sha256:")[:4] or "none"


def phases_text(phases: Mapping[str, float]) -> str:
    """`noticed 6 ms, built 18 ms`: how long each phase itself took."""
    return ", ".join(f"{name} {brief_seconds(seconds)}" for name, seconds in phases.items())


def step_text(finished: BuildFinished | None) -> str:
    step = finished.first_changed if finished else None
    return f"step {step.number}/{step.total} {step.instruction}" if step else ""


def rule(before: str, after: str, cause: str, finished: BuildFinished | None, phases: Mapping[str, float]) -> str:
    """`── rebuilt 14:02:11 a1b2→c3d4 · app.py → step 4/5 COPY . . · noticed 6 ms, planned 1 ms, built 18 ms ──`"""
    what = " → ".join(filter(None, (cause, step_text(finished)))) or "run again"
    verb = "rebuilt" if before != after else "replaced"
    return f"── {verb} {_now()} {short(before)}→{short(after)} · {what} · {phases_text(phases)} ──"


def serves(generation: int, phases: Mapping[str, float]) -> str:
    return f"── generation {generation} serves {_now()} · {phases_text(phases)} ──"


def failed(generation: int, reason: str, *, goes_on: int) -> str:
    after = f"generation {goes_on} goes on" if goes_on else "nothing runs"
    return f"── generation {generation} given up {_now()} · {reason} · {after} ──"


def synced(cause: str, then: str, phases: Mapping[str, float]) -> str:
    return f"── synced {_now()} {cause}{f' · {then}' if then else ''} · {phases_text(phases)} ──"


def restarted(cause: str) -> str:
    return f"── restarted {_now()} · {cause} ──"


def _now() -> str:
    return time.strftime("%H:%M:%S")
