"""Builds on the way, in the forms that `--progress` names: a live tree, plain lines, BuildKit's raw JSON, the id alone, nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from engine.base.clock import rfc3339
from engine.base.units import brief_seconds, human_size
from engine.cli.common import clean, output_lines
from engine.errors import InvalidInput
from engine.model import (
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildStarted,
    PullProgress,
    StepFinished,
    StepInfo,
    StepOutput,
    StepProgress,
    StepStarted,
)

REFRESH = 0.1  # seconds between two drawings of the tree
TAIL_LINES = 6  # of a running step's output
FORMS = ("auto", "plain", "tty", "quiet", "rawjson", "none")


class Progress(Protocol):
    """`feed` takes each event, `tick` is called about every `REFRESH` seconds, `close` ends (with the error, if there is one)."""

    def feed(self, event: BuildEvent) -> None: ...

    def tick(self) -> None: ...

    def close(self, error: BaseException | None = None) -> None: ...


def make_progress(form: str, out: TextIO | None = None) -> Progress:
    """Raises `InvalidInput` for a form that is not known."""
    out = out or sys.stderr
    if form == "auto":
        form = os.environ.get("BUILDKIT_PROGRESS") or "auto"
    if form not in FORMS:
        raise InvalidInput(f"--progress={form} is not known", hint=f"it is one of {', '.join(FORMS)}")
    if form == "auto":
        form = "tty" if out.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if form == "tty":
        return TreeProgress(out)
    if form == "plain":
        return PlainProgress(out)
    return RawJsonProgress(out) if form == "rawjson" else SilentProgress(quiet=form == "quiet")


def title(step: StepInfo) -> str:
    """`[build 2/5] RUN make`; a heredoc or continued line shows its first line."""
    lines = step.instruction.splitlines() or [""]
    return f"[{step.stage} {step.number}/{step.total}] {clean(lines[0])}" + (" …" if len(lines) > 1 else "")


def transfer(reference: str) -> str:
    """A base is pulled; what else moves says so itself, in front of the name (`push app:1`)."""
    return reference if " " in reference else f"pull {reference}"


class SilentProgress:
    """`quiet` prints the image's id at the end."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def feed(self, event: BuildEvent) -> None:
        if self._quiet and isinstance(event, BuildFinished) and event.image_id:
            print(event.image_id)

    def tick(self) -> None: ...

    def close(self, error: BaseException | None = None) -> None: ...


class PlainProgress:
    """BuildKit's plain lines (`#4 [2/3] RUN make`, `#4 0.21 output`, `#4 DONE 1.2s`), with the reason that a step ran."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._numbers: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._shown: set[tuple[str, str, str]] = set()

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _number(self, key: str) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def feed(self, event: BuildEvent) -> None:
        match event:
            case StepStarted(step, reason):
                number = self._number(step.key)
                self._started[step.key] = time.monotonic()
                if reason:
                    self._say(f"#{number} {title(step)}\n#{number} ({clean(reason)})")
            case StepOutput(key, _, text):
                since = time.monotonic() - self._started.get(key, time.monotonic())
                for line in output_lines(text):
                    self._say(f"#{self._number(key)} {since:.3f} {line}")
            case StepFinished(step, True):
                self._say(f"#{self._number(step.key)} {title(step)}\n#{self._number(step.key)} CACHED\n")
            case StepFinished(step, False, seconds, size):
                more = f" {human_size(size)}" if size else ""
                self._say(f"#{self._number(step.key)} DONE {seconds:.1f}s{more}\n")
            case PullProgress(reference, layer, phase, _, total, text):
                if (reference, layer, phase) not in self._shown:
                    self._shown.add((reference, layer, phase))
                    more = f" {human_size(total)}" if phase == "downloading" and total else ""
                    what = clean(text or f"{layer} {phase}".strip())
                    key = transfer(reference)
                    self._say(f"#{self._number(key)} {clean(key)}: {what}{more}")
            case BuildNotice(text):
                self._say(f"note: {clean(text)}")
            case BuildFinished(image_id, _, tags, seconds):
                self._say(_result(image_id, tags, seconds))
            case _:
                pass

    def tick(self) -> None: ...

    def close(self, error: BaseException | None = None) -> None: ...


def _result(image_id: str, tags: tuple[str, ...], seconds: float) -> str:
    name = ", ".join(tags) or image_id.removeprefix("sha256:")[:12] or "the result"
    return f"built {clean(name)} in {brief_seconds(seconds)}"


@dataclass(slots=True)
class _Live:
    """A step that runs, or an image that is pulled."""

    text: str
    started: float
    reason: str = ""
    tail: list[str] = field(default_factory=list)
    current: int = 0
    total: int = 0


class TreeProgress:
    """Finished steps are printed once and scroll away; those at work are drawn again below them, with time, bytes and last lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = not os.environ.get("NO_COLOR")
        self._began = time.monotonic()
        self._live: dict[str, _Live] = {}
        self._pulled: dict[str, dict[str, tuple[int, int]]] = {}
        self._drawn = 0
        self._done = self._total = 0
        self._last: list[str] = []

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def feed(self, event: BuildEvent) -> None:
        now = time.monotonic()
        match event:
            case BuildStarted(_, steps):
                self._total = len(steps)
            case StepStarted(step, reason) if reason:
                self._live[step.key] = _Live(title(step), now, clean(reason))
            case StepProgress(key, current, total) if key in self._live:
                self._live[key].current, self._live[key].total = current, total
            case StepOutput(key, _, text) if key in self._live:
                self._live[key].tail = [*self._live[key].tail, *output_lines(text)][-200:]
            case StepFinished(step, cached, seconds, size):
                self._done += 1
                self._finish(step, self._live.pop(step.key, None), cached, seconds, size)
            case PullProgress():
                self._pull(event, now)
            case BuildNotice(text):
                self._commit(f"{self._paint('note', '33')} {clean(text)}")
            case BuildFinished(image_id, _, tags, seconds):
                self._commit(_result(image_id, tags, seconds))
            case _:
                pass

    def _finish(self, step: StepInfo, live: _Live | None, cached: bool, seconds: float, size: int) -> None:
        if cached:
            self._commit(self._paint(f"= {title(step)}   cached", "2"))
            return
        more = f", {human_size(size)}" if size else ""
        why = f"   {self._paint(live.reason, '2')}" if live and live.reason else ""
        self._commit(f"{self._paint('✔', '32')} {title(step)}   {brief_seconds(seconds)}{more}{why}")

    def _pull(self, event: PullProgress, now: float) -> None:
        key = transfer(event.reference)
        if event.phase == "done" and not event.layer:
            live = self._live.pop(key, None)
            took = brief_seconds(now - live.started) if live else ""
            self._commit(f"{self._paint('✔', '32')} {clean(key)}   {took}")
            return
        live = self._live.setdefault(key, _Live(clean(key), now))
        layers = self._pulled.setdefault(key, {})
        if event.layer and event.phase in ("downloading", "uploading", "done", "exists", "mounted"):
            layers[event.layer] = (event.current, event.total)
        live.current, live.total = (sum(pair[i] for pair in layers.values()) for i in (0, 1))

    # --- drawing --------------------------------------------------------------------------------------

    def _commit(self, line: str) -> None:
        """A line that stays: printed where the live part begins; the live part is drawn again below."""
        self._erase()
        self._out.write(line + "\n")
        self._draw()

    def _erase(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._drawn = 0

    def tick(self) -> None:
        self._erase()
        self._draw()
        self._out.flush()

    def _draw(self) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = self._lines(columns - 1, max(2, rows - 2))
        self._out.write("".join(f"{line}\n" for line in lines))
        self._drawn = len(lines)

    def _lines(self, width: int, height: int) -> list[str]:
        now = time.monotonic()
        if not self._live:
            return []
        head = f"building {brief_seconds(now - self._began)} ({self._done}/{self._total})"
        lines = [self._paint(head[:width], "1")]
        spare = max(0, (height - 1 - len(self._live)) // len(self._live))
        for live in list(self._live.values())[: height - 1]:
            moved = f"  {human_size(live.current)}" if live.current else ""
            moved += f"/{human_size(live.total)}" if live.total else ""
            right = f"{moved}  {brief_seconds(now - live.started)}"
            text = f"> {live.text}" + (f"   ({live.reason})" if live.reason else "")
            lines.append(f"{_cut(text, width - len(right)).ljust(width - len(right))}{right}")
            tail = live.tail[-min(TAIL_LINES, spare) :] if spare else []
            lines += [self._paint(_cut(f"    {line}", width), "2") for line in tail]
        return lines

    def close(self, error: BaseException | None = None) -> None:
        """What a step had said when the build broke off stays on the screen."""
        self._erase()
        for live in self._live.values():
            if error is not None:
                self._out.write(
                    f"{self._paint('✘', '31')} {live.text}   {brief_seconds(time.monotonic() - live.started)}\n"
                )
                self._out.write("".join(f"    {line}\n" for line in live.tail[-20:]))
        self._live.clear()
        self._out.flush()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


class RawJsonProgress:
    """`client.SolveStatus` of BuildKit, one JSON document a line: vertexes, statuses, logs, warnings."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._vertexes: dict[str, dict[str, Any]] = {}

    def _write(self, document: Mapping[str, object]) -> None:
        print(json.dumps(document, separators=(",", ":")), file=self._out, flush=True)

    def _vertex(self, key: str, name: str, **more: object) -> None:
        vertex = self._vertexes.setdefault(key, {"digest": _digest(key), "name": name})
        vertex |= more
        self._write({"vertexes": [vertex]})

    def feed(self, event: BuildEvent) -> None:
        now = rfc3339()
        match event:
            case BuildStarted(_, steps):
                for step in steps:
                    before = [s for s in steps if s.stage == step.stage and s.number == step.number - 1]
                    inputs: dict[str, object] = {"inputs": [_digest(s.key) for s in before]} if before else {}
                    self._vertex(step.key, title(step), **inputs)
            case StepStarted(step, _):
                self._vertex(step.key, title(step), started=now)
            case StepProgress(key, current, total):
                status = {"id": "copying", "vertex": _digest(key), "total": total, "current": current, "timestamp": now}
                self._write({"statuses": [status]})
            case StepOutput(key, stream, text):
                data = base64.b64encode(f"{text}\n".encode("utf-8", "replace")).decode()
                log = {"vertex": _digest(key), "stream": 2 if stream == "stderr" else 1, "data": data, "timestamp": now}
                self._write({"logs": [log]})
            case StepFinished(step, cached):
                started = self._vertexes.get(step.key, {}).get("started", now)
                self._vertex(
                    step.key, title(step), started=started, completed=now, **({"cached": True} if cached else {})
                )
            case PullProgress(reference, layer, phase, current, total):
                key = transfer(reference)
                if key not in self._vertexes:
                    self._vertex(key, key, started=now)
                status = {
                    "id": layer or phase,
                    "vertex": _digest(key),
                    "name": phase,
                    "total": total,
                    "current": current,
                    "timestamp": now,
                }
                self._write({"statuses": [status]})
                if phase == "done" and not layer:
                    self._vertex(key, key, completed=now)
            case BuildNotice(text):
                self._write({"warnings": [{"level": 1, "short": base64.b64encode(text.encode()).decode()}]})
            case _:
                pass

    def tick(self) -> None: ...

    def close(self, error: BaseException | None = None) -> None:
        if error is None:
            return
        for key, vertex in self._vertexes.items():
            if "started" in vertex and "completed" not in vertex:
                self._vertex(key, vertex["name"], completed=rfc3339(), error=str(error))


def _digest(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
