"""The loop's lines for people: what changed, what became of it, how long each part took (pure)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.base.units import brief_seconds
from engine.model import BuildFinished

WIDTH = 80  # columns of a rule
DEAF = (
    "the container was killed at once: its first process has no handler for the stop signal. "
    "If it should end in order: the exec form of CMD, a handler, or `init: true`"
)
_SHELL = re.compile(r"(\S*/)?(ba|da|a|z|k)?sh\b")
_MORE = re.compile(r" and (\d+) more$")


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
    return ", ".join(f"{name} {brief_seconds(seconds)}" for name, seconds in phases.items() if seconds >= 0.0005)


def step_text(finished: BuildFinished | None) -> str:
    step = finished.first_changed if finished else None
    return f"step {step.number}/{step.total} {step.instruction}" if step else ""


@dataclass(frozen=True, slots=True)
class Why:
    """What a swap is for: images before and after, the changed files or another cause, the step they invalidated."""

    before: str
    after: str
    cause: str
    step: str = ""


def rule(why: Why, seconds: float) -> str:
    """`── rebuilt 14:02:11 a1b2→c3d4 · src/app.py → step 5/6 COPY . . · 18 ms ──`: `seconds` from the save to the new container's start.

    Fits into 80 columns: of a path its end stays, of a step its beginning."""
    verb = "rebuilt" if why.before != why.after else "replaced"
    head = f"── {verb} {_now()} {short(why.before)}→{short(why.after)} · "
    tail = f" · {brief_seconds(seconds)} ──"
    room = WIDTH - len(head) - len(tail)
    cause, step = _MORE.sub(r" +\1", why.cause) or ("" if why.step else "run again"), why.step
    if cause and step:
        arrow = " → "
        room -= len(arrow)
        least = len(" ".join(step.split(" ")[:3])) + 1  # step 5/6 COPY…
        cause = _cut_front(cause, max(room - len(step), room - least))
        return f"{head}{cause}{arrow}{_cut_end(step, room - len(cause))}{tail}"
    return f"{head}{_cut_front(cause, room) or _cut_end(step, room)}{tail}"


def _cut_front(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - max(width - 1, 0) :]


def _cut_end(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def failed(generation: int, reason: str, *, goes_on: int) -> str:
    after = f"generation {goes_on} goes on" if goes_on else "nothing runs"
    return f"── generation {generation} given up {_now()} · {reason} · {after} ──"


def ignored(command: str, signal: str, seconds: float) -> str:
    """Of a container that was killed when its grace was over, though its first process hears the signal."""
    head = f"the container did not end {brief_seconds(seconds)} after {signal or 'its stop signal'} and was killed: its first process"
    if _SHELL.match(command):
        return (
            f"{head} is a shell, which passes no signal on and comes to its own traps only between two commands. "
            "The exec form of CMD, or `exec` before the program, lets that one hear it"
        )
    return (
        f"{head} (`{command}`) has a handler for it and goes on. If it ends at another one: `stop_signal`; "
        "if it never does: a shorter `stop_grace_period`"
    )


def rolled_back(number: int) -> str:
    return f"── rolled back {_now()} to generation {number} ──"


def synced(cause: str, then: str, seconds: float) -> str:
    """`seconds` from the save to the files being there."""
    head, tail = f"── synced {_now()} ", f"{f' · {then}' if then else ''} · {brief_seconds(seconds)} ──"
    return f"{head}{_cut_front(cause, WIDTH - len(head) - len(tail))}{tail}"


def restarted(cause: str) -> str:
    return f"── restarted {_now()} · {cause} ──"


def _now() -> str:
    return time.strftime("%H:%M:%S")
