"""What happens in a build, as BuildKit tells it to its clients: vertexes, their states and their output (pure but for the clock)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.api import (
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
from engine.rest.buildkit.messages import StatusResponse, Timestamp, Vertex, VertexLog, VertexStatus, VertexWarning
from engine.rest.failures import failed_command

_SHOWN = ("FROM", "RUN", "COPY", "ADD", "WORKDIR")  # the others only write the config: no vertex of BuildKit's
_STREAMS: Mapping[str, int] = {"stdout": 1, "stderr": 2}


def vertex_digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def failure(message: str) -> str:
    """BuildKit's sentence for a command that failed, which people (and their scripts) look for."""
    failed = failed_command(message)
    if failed is None:
        return message
    return f'process "{failed[0]}" did not complete successfully: exit code: {failed[1]}'


class Progress:
    """Each event gives what to send, or None. `build` makes the vertexes of different builds differ."""

    def __init__(self, build: str) -> None:
        self._build = build
        self._names: dict[str, str] = {}
        self._open: dict[str, Vertex] = {}
        self._bases: list[str] = []  # FROM steps that are under way: what is pulled is theirs
        self._seen: dict[tuple[str, str], Timestamp] = {}

    # --- vertexes of our own -----------------------------------------------------------------------------

    def begin(self, name: str, key: str = "") -> StatusResponse:
        key = key or name
        vertex = Vertex(vertex_digest(f"{self._build}/{key}"), name=name, started=Timestamp.now())
        self._open[key] = vertex
        return StatusResponse([vertex])

    def end(self, key: str, *, cached: bool = False, error: str = "") -> StatusResponse | None:
        vertex = self._open.pop(key, None)
        if vertex is None:
            return None
        vertex.completed, vertex.cached, vertex.error = Timestamp.now(), cached, error
        return StatusResponse([vertex])

    def count(self, key: str, what: str, current: int, total: int = 0, *, done: bool = False) -> StatusResponse | None:
        """How far something of a vertex is: "transferring context:"."""
        vertex = self._open.get(key)
        return None if vertex is None else StatusResponse(statuses=[self._status(vertex, what, current, total, done)])

    def _status(self, vertex: Vertex, what: str, current: int, total: int, done: bool) -> VertexStatus:
        now = Timestamp.now()
        started = self._seen.setdefault((vertex.digest, what), now)
        return VertexStatus(what, vertex.digest, what, current, total, now, started, now if done else None)

    def fail(self, error: str) -> StatusResponse:
        """What is still open when the build has failed: the last one that began is what failed, the others were cancelled."""
        keys = list(self._open)
        vertexes = []
        for key in keys:
            answer = self.end(key, error=error if key == keys[-1] else "context canceled")
            vertexes += answer.vertexes if answer else []
        return StatusResponse(vertexes)

    def warn(self, text: str) -> StatusResponse:
        return StatusResponse(warnings=[_warning(self._build, text)])

    @property
    def failing(self) -> str:
        """The digest of the vertex that `fail` would blame."""
        return next(reversed(self._open.values())).digest if self._open else ""

    # --- the builder's events ----------------------------------------------------------------------------

    def feed(self, event: Any) -> StatusResponse | None:
        match event:
            case BuildStarted(steps=steps):
                self._names = _names(steps)
            case StepStarted(step=step) if step.key in self._names:
                if step.instruction.startswith("FROM"):
                    self._bases.append(step.key)
                return self.begin(self._names[step.key], step.key)
            case StepFinished(step=step) if step.key in self._names:
                return self._finished(step, event)
            case StepOutput(key=key, text=text, stream=stream) if key in self._open:
                data = text.encode("utf-8", "surrogateescape")
                log = VertexLog(
                    self._open[key].digest, Timestamp.now(), _STREAMS[stream], data.removesuffix(b"\n") + b"\n"
                )
                return StatusResponse(logs=[log])
            case StepProgress(key=key, current=current, total=total):
                return self.count(key, "copying files", current, total)
            case PullProgress():
                return self._pulled(event)
            case BuildNotice(text=text):
                return self.warn(text)
            case BuildFinished():
                return self._exported(event)
        return None

    def _finished(self, step: StepInfo, event: StepFinished) -> StatusResponse:
        if step.key in self._bases:
            self._bases.remove(step.key)
        if step.key not in self._open:  # it was cached: there was nothing to start
            self.begin(self._names[step.key], step.key)
        answer = self.end(step.key, cached=event.cached and not step.instruction.startswith("FROM"))
        assert answer is not None  # it was opened just now
        return answer

    def _pulled(self, event: PullProgress) -> StatusResponse | None:
        key = self._bases[-1] if self._bases else next(reversed(self._open), "")
        vertex = self._open.get(key)
        if vertex is None or not event.layer:
            return None
        done = event.phase in ("done", "exists", "mounted")
        what = f"{'extracting' if event.phase == 'extracting' else 'pushing' if event.phase == 'uploading' else ''} sha256:{event.layer}".strip()
        return StatusResponse(statuses=[self._status(vertex, what, event.current, event.total, done)])

    def _exported(self, event: BuildFinished) -> StatusResponse:
        begun = self.begin("exporting to image", "export")
        vertex = self._open["export"]
        lines = [f"writing image {event.image_id}", *(f"naming to {_whole(tag)}" for tag in event.tags)]
        begun.statuses = [self._status(vertex, line, 0, 0, True) for line in lines]
        self.end("export")
        return begun


def _whole(tag: str) -> str:
    """A tag with its registry, as BuildKit shows it."""
    first, slash, _ = tag.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"


def _names(steps: Sequence[StepInfo]) -> dict[str, str]:
    """What each step is called: `[2/4] COPY . .`, with the stage's name where there are several."""
    stages: dict[str, list[StepInfo]] = {}
    for step in steps:
        if step.instruction.split(" ", 1)[0].upper() in _SHOWN and step.instruction != "FROM scratch":
            stages.setdefault(step.key.rpartition("/")[0], []).append(step)
    names = {}
    for stage, found in stages.items():
        for number, step in enumerate(found, 1):
            shown = step.stage if not step.stage.isdecimal() else stage
            where = f"{shown} " if len(stages) > 1 else ""
            names[step.key] = f"[{where}{number}/{len(found)}] {step.instruction}"
    return names


def _warning(build: str, text: str) -> VertexWarning:
    first, _, rest = text.partition("\n")
    return VertexWarning(
        vertex_digest(f"{build}/{time.monotonic()}"),
        1,
        first.encode(),
        [line.encode() for line in rest.split("\n") if line],
    )
