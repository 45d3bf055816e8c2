"""Builds on another engine: the context streamed to `POST /build`, the classic builder's words as build events.

The endpoint is the one that Docker, Podman and this engine's own server have in common. What it has no parameter for (secrets, ssh,
further contexts, outputs, a cache in a registry) is refused by name before anything is sent. Another workbench answers with its
own events (`engine.service.build_wire`), so that reasons, times and cached steps are seen as if they were here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from engine.build.dockerfile.ast import Dockerfile
from engine.build.reading import Input, read_input
from engine.errors import BuildFailed, EngineError, NotFound
from engine.model import (
    BuildDetail,
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildRecord,
    BuildRequest,
    BuildStarted,
    FileDifference,
    StepFinished,
    StepInfo,
    StepOutput,
    StepStarted,
    WhyReport,
)
from engine.oci.reference import Reference
from engine.remote import read
from engine.remote.client import registry_auth
from engine.remote.context import SENT_DOCKERFILE, packed
from engine.remote.errors import beyond, failed_in_stream
from engine.remote.images import ImagesPart, credentials, progress
from engine.service import build_wire

_BASE = "workbench/base"
_HISTORY = "the history of builds"
_STEP = re.compile(r"^step (\d+)/(\d+) ?: (.*)$", re.IGNORECASE | re.DOTALL)
_BUILT = re.compile(r"^Successfully built ([0-9a-f]+)")
_RED = re.compile(r"\x1b\[91m(.*)\x1b\[0m", re.DOTALL)
_REASON = "not in the other engine's cache"
_LIMIT_OF_TAIL = 20  # lines of a failed step's output that the error has
_QUIET = re.compile(
    r"^ ---> (Running in )?[0-9a-f]{12}\n?$|^--> [0-9a-f]+\n?$|^Removing intermediate container |^Successfully (built|tagged) "
)


class BuildsPart(ImagesPart):
    """Builds; of their history and their whys another engine keeps none that could be asked for."""

    async def build(self, request: BuildRequest) -> AsyncIterator[BuildEvent]:
        _refuse(request)
        begun = time.monotonic()
        given = await asyncio.to_thread(read_input, request)
        if (
            any(stage.base.partition(":")[0] == _BASE for stage in given.dockerfile.stages)
            and not await self._is_workbench()
        ):
            await self.ensure_base()
        steps = _steps(given.dockerfile, request.target)
        said = _Said(steps, given)
        started = BuildStarted(str(given.file), tuple(steps))
        params, extra, keep = _parameters(request)
        ignored = given.matcher
        content = packed(request.context, ignored, keep, extra)
        headers = {
            "content-type": "application/x-tar",
            build_wire.HEADER: "1",
            "x-registry-config": registry_auth(await asyncio.to_thread(_registries, given.dockerfile)),
        }
        lines = self._client.lines("POST", "/build", params, content=content, headers=headers)
        async with contextlib.aclosing(lines):
            async for line in lines:
                if error := failed_in_stream(line, build=True):
                    raise said.failed(error)
                if (event := build_wire.decode(line)) is not None:
                    said.take(event)
                    yield (
                        dataclasses.replace(event, dockerfile=started.dockerfile)
                        if isinstance(event, BuildStarted)
                        else event
                    )
                    continue
                if not said.begun:
                    said.begun = True
                    yield started
                for event in said.hear(line):
                    yield event
        for event in said.end():
            yield event
        if not said.finished:
            yield await self._finished(request, said, time.monotonic() - begun)

    async def _finished(self, request: BuildRequest, said: _Said, seconds: float) -> BuildFinished:
        name = said.image or (request.tags[0] if request.tags else "")
        if not name:
            raise EngineError("the engine does not say which image it built", hint="give it a name with -t")
        found = (await self.image(name)).summary
        tags = tuple(Reference.parse(tag).with_default_tag().familiar for tag in request.tags)
        return BuildFinished(found.id, found.digest, tags, seconds, said.first)

    async def ensure_base(self) -> str:
        """Another workbench makes it of its own host's files when a build asks for it. Raises `Unsupported` where nobody can."""
        try:
            await self.image(_BASE)
        except NotFound:
            if not await self._is_workbench():
                raise beyond(
                    f"making {_BASE}", f"pull another base image there, or load {_BASE} there from a workbench"
                ) from None
            with tempfile.TemporaryDirectory() as empty:
                async for _ in self.build(BuildRequest(Path(empty), dockerfile_text=f"FROM {_BASE}\n")):
                    pass
        return f"{_BASE}:latest"

    # --- what Docker's API has not ----------------------------------------------------------------------

    async def builds(self, *, search: str = "", limit: int | None = None) -> Sequence[BuildRecord]:
        found: Sequence[BuildRecord] = await self._own("builds", _HISTORY, search=search, limit=limit)
        return found

    async def build_detail(self, number: int) -> BuildDetail:
        found: BuildDetail = await self._own("build_detail", _HISTORY, number=number)
        return found

    async def build_diff(self, first: int, second: int) -> Sequence[FileDifference]:
        found: Sequence[FileDifference] = await self._own("build_diff", "comparing builds", first=first, second=second)
        return found

    async def remove_build(self, number: int) -> None:
        await self._own("remove_build", _HISTORY, number=number)

    async def why(self, request: BuildRequest, paths: Sequence[str]) -> Sequence[WhyReport]:
        raise beyond("saying what a change would invalidate")


_BEYOND: tuple[tuple[str, str], ...] = (
    ("secrets", "--secret"),
    ("ssh", "--ssh"),
    ("contexts", "--build-context"),
    ("cache_to", "--cache-to"),
    ("outputs", "--output"),
    ("annotations", "--annotation"),
    ("allow", "--allow"),
    ("no_cache_filter", "--no-cache-filter"),
    ("host_ca", "--host-ca"),
    ("keep_failed", "--shell-on-error"),
    ("allow_metadata", "reaching the cloud's metadata"),
)


def _refuse(request: BuildRequest) -> None:
    for name, flag in _BEYOND:
        if getattr(request, name):
            raise beyond(f"building with {flag}", "the API's /build has no word for it: build on that host itself")
    if len(request.platforms) > 1:
        raise beyond("building for several platforms at once", "build for one --platform after the other")


def _parameters(request: BuildRequest) -> tuple[dict[str, Any], dict[str, bytes], frozenset[str]]:
    """The query, files for the tar that the context does not have, and names that are sent though they are ignored."""
    extra: dict[str, bytes] = {}
    file = request.dockerfile or request.context / "Dockerfile"
    if request.dockerfile_text is not None:
        name, extra[SENT_DOCKERFILE] = SENT_DOCKERFILE, request.dockerfile_text.encode()
    elif file.is_relative_to(request.context) and not file.is_symlink():
        name = file.relative_to(request.context).as_posix()
    else:
        name, extra[SENT_DOCKERFILE] = SENT_DOCKERFILE, file.read_bytes()
    images = [_image_of(text) for text in request.cache_from]
    params: dict[str, Any] = {
        "t": list(request.tags),
        "dockerfile": name,
        "target": request.target,
        "nocache": request.no_cache,
        "pull": request.pull,
        "platform": "".join(request.platforms),
        "networkmode": request.network,
        "extrahosts": list(request.add_hosts),
        "shmsize": request.shm_size or "",
        "memory": request.memory or "",
        "buildargs": json.dumps(dict(request.build_args)) if request.build_args else "",
        "labels": json.dumps(dict(request.labels)) if request.labels else "",
        "ulimits": json.dumps([_ulimit(text) for text in request.ulimits]) if request.ulimits else "",
        "cachefrom": json.dumps(images) if images else "",
        "rm": True,
        "forcerm": True,
        "version": "1",
    }
    return params, extra, frozenset((name, ".dockerignore"))


def _ulimit(text: str) -> dict[str, object]:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _image_of(text: str) -> str:
    """A `--cache-from` that an engine behind the API can use: an image that it has."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if "type" not in fields:
        return text
    if fields["type"] in ("image", "registry") and fields.get("ref"):
        return fields["ref"]
    raise beyond(f"--cache-from {text}", "name an image: --cache-from IMAGE")


def _registries(dockerfile: Dockerfile) -> dict[str, dict[str, str]]:
    """X-Registry-Config: credentials for the registries that the stages' images are in."""
    found = {}
    for stage in dockerfile.stages:
        with contextlib.suppress(EngineError):  # a name with variables, a stage's name
            domain = Reference.parse(stage.base).domain
            if document := credentials(domain):
                found[document["serveraddress"]] = document
    return found


def _steps(dockerfile: Dockerfile, target: str) -> list[StepInfo]:
    """Every instruction up to the target's end: the classic builder goes through all of them."""
    stages = list(dockerfile.stages)
    for index, stage in enumerate(stages):
        if target and target.lower() in (stage.name, str(index)):
            stages = stages[: index + 1]
            break
    steps = []
    for stage in stages:
        label = stage.name or f"stage-{stage.index}"
        texts = [(stage.line, " ".join((stage.keyword, *stage.words)))]
        texts += [(each.line, each.source) for each in stage.instructions]
        for number, (line, text) in enumerate(texts, 1):
            steps.append(StepInfo(f"{label}/{number}", label, number, len(texts), text, line))
    return steps


class _Said:
    """What the stream has said so far."""

    def __init__(self, steps: Sequence[StepInfo], given: Input) -> None:
        self._left, self._given = list(steps), given
        self.image = ""
        self.first: StepInfo | None = None
        self._step: StepInfo | None = None
        self._cached = self._said_started = False
        self._begun = 0.0
        self._tail: list[str] = []
        self.begun = self.finished = False

    def take(self, event: BuildEvent) -> None:
        """One of another workbench's own."""
        self.begun = True
        match event:
            case StepStarted(step):
                self._step, self._tail = step, []
            case StepOutput(key, _, text) if self._step is not None and key == self._step.key:
                self._tail = [*self._tail, *text.splitlines()][-_LIMIT_OF_TAIL:]
            case StepFinished(step) if step == self._step:
                self._step = None
            case BuildFinished():
                self.finished, self._step = True, None
            case _:
                pass

    def hear(self, line: Mapping[str, object]) -> list[BuildEvent]:
        aux = read.mapping(line.get("aux"))
        if aux.get("ID"):
            self.image = str(aux["ID"])
        text = line.get("stream")
        if isinstance(text, str):
            return self._text(text)
        if event := progress("", line):
            return [event]
        status = str(line.get("status") or "")
        return [BuildNotice(status)] if status and not line.get("id") and not status.startswith("Digest:") else []

    def _text(self, text: str) -> list[BuildEvent]:
        if match := _STEP.match(text.strip("\n")):
            return self._next(int(match[1]), int(match[2]), match[3])
        if match := _BUILT.match(text):
            self.image = self.image or match[1]
        if " ---> Using cache" in text:
            self._cached = True
            return []
        if not text.strip() or _QUIET.match(text):
            return self._started() if text.startswith(" ---> Running in ") else []
        if self._step is None:
            return [BuildNotice(text.strip())]
        stream: Literal["stdout", "stderr"] = "stdout"
        if match := _RED.fullmatch(text):  # so the classic builder marks stderr
            stream, text = "stderr", match[1]
        if not text:
            return self._started()
        self._tail = [*self._tail, *text.splitlines()][-_LIMIT_OF_TAIL:]
        return [*self._started(), StepOutput(self._step.key, stream, text)]

    def _next(self, number: int, total: int, text: str) -> list[BuildEvent]:
        events = self.end()
        words = text.split()
        found = next((index for index, step in enumerate(self._left) if step.instruction.split() == words), None)
        if found is None:
            self._step = StepInfo(f"step-{number}", "", number, total, text, 0)
        else:
            self._step = self._left[found]
            del self._left[: found + 1]
        self._cached, self._tail, self._said_started = False, [], False
        self._begun = time.monotonic()
        return events

    def _started(self) -> list[BuildEvent]:
        if self._said_started or self._step is None:
            return []
        self._said_started = True
        return [StepStarted(self._step, _REASON)]

    def end(self) -> list[BuildEvent]:
        """Of the step that was."""
        step, self._step = self._step, None
        if step is None:
            return []
        # FROM is never told to be cached: it is there, or was pulled.
        cached = self._cached or step.instruction.upper().startswith("FROM ")
        if not cached and self.first is None:
            self.first = step
        started: list[BuildEvent] = [] if cached or self._said_started else [StepStarted(step, _REASON)]
        return [*started, StepFinished(step, cached, time.monotonic() - self._begun, 0)]

    def failed(self, error: EngineError) -> EngineError:
        """With the place in the Dockerfile, and what was said last."""
        if not isinstance(error, BuildFailed) or self._step is None:
            return error
        failure = BuildFailed(
            error.message,
            exit_code=error.exit_code,
            file=str(self._given.file),
            line=self._step.line,
            hint=error.hint,
        )
        if self._step.line:
            lines = self._given.dockerfile.lines
            failure.excerpt = tuple(lines[self._step.line - 1 : self._step.line])
        failure.output = tuple(self._tail)
        return failure
