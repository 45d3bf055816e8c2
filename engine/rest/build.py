"""`POST /build`: the context as a tar in the body, progress as the classic builder's lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.api import (
    BuildFinished,
    BuildNotice,
    BuildRequest,
    BuildStarted,
    Engine,
    PullProgress,
    RegistryAuth,
    StepFinished,
    StepOutput,
    StepStarted,
)
from engine.build.contexts import read_stream
from engine.build.remote import Fetched
from engine.errors import BuildFailed, DockerfileError, InvalidInput, NotFound, Unsupported
from engine.model import HostConfig
from engine.oci.reference import Reference
from engine.rest.buildkit.routes import BuildkitRoutes
from engine.rest.failures import failed_command
from engine.rest.files import BodyFile, begun
from engine.rest.http import Answer, Query, Request, Response
from engine.rest.registries import auths_of
from engine.rest.remote_context import fetched
from engine.rest.router import Router
from engine.rest.streams import json_lines, progress_document
from engine.rest.volumes import texts
from engine.service import build_wire
from engine.service.streams import on_thread

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # how the classic builder marks stderr


class BuildRoutes:
    """`scratch` is a folder for contexts while they are built; None: the system's own place for such. `buildkit` serves the
    clients that want BuildKit."""

    def __init__(self, engine: Engine, router: Router, buildkit: BuildkitRoutes, scratch: Path | None = None) -> None:
        self._engine, self._buildkit, self._scratch = engine, buildkit, scratch
        self._tidying: set[asyncio.Future[None]] = set()
        router.add("POST", "/build", self.build, keep=False)

    async def build(self, request: Request) -> Answer:
        if request.query.text("version", "1") == "2" or request.query.text("buildid").startswith("upload-request:"):
            return await self._buildkit.build(request)
        _refuse(request.query)
        auths = auths_of(request)
        kind = request.headers.get("content-type", "application/x-tar").partition(";")[0]
        if kind not in ("application/x-tar", "application/tar", "application/octet-stream", ""):
            raise InvalidInput(f"a build context is a tar stream, not {kind}")
        # What is wrong with the context or the Dockerfile is told with a status: the head goes out when the steps are known.
        return Response(200, json_lines(await begun(self._build(request, auths))))

    async def _build(self, request: Request, auths: tuple[RegistryAuth, ...]) -> AsyncIterator[dict[str, Any]]:
        folder = Path(tempfile.mkdtemp(prefix="context-", dir=self._scratch))
        body = BodyFile(request.body)
        closing = contextlib.ExitStack()
        lines = _Lines(quiet=request.query.flag("q"), no_cache=request.query.flag("nocache"))
        try:
            place = request.query.text("remote")
            if place in ("client-session", ""):
                came = await self._sent(body, folder)
            else:
                came = await self._elsewhere(place, folder, closing)
            await body.drain()
            plan = await self._without_cache(_request(request.query, came, auths))
            lines.no_cache = plan.no_cache
            own = request.headers.get(build_wire.HEADER) == "1"  # the client is a workbench as well
            async with contextlib.aclosing(_events(self._engine, plan)) as events:
                async for event in events:
                    for line in [build_wire.encode(event)] if own else lines.feed(event):
                        yield line
                    if isinstance(event, BuildStarted) and not own:
                        yield {}
        except BuildFailed as error:
            for line in lines.held:  # of a quiet build that fails everything is shown after all
                yield line
            error.file = error.file.removeprefix("client/")
            raise _failed(error) from error
        except DockerfileError as error:
            error.file = error.file.removeprefix("client/")
            raise
        finally:
            body.abandon()
            self._tidy(folder, closing)

    def _tidy(self, folder: Path, closing: contextlib.ExitStack) -> None:
        """Beside the answer: the client does not wait for the context to go."""

        def work() -> None:
            with closing:
                shutil.rmtree(folder, True)

        task = asyncio.ensure_future(asyncio.to_thread(work))
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _without_cache(self, plan: BuildRequest) -> BuildRequest:
        """The classic builder takes steps from the images that `cachefrom` names and from nowhere else: without any of them
        here, each step runs."""
        for text in plan.cache_from:
            with contextlib.suppress(NotFound):
                await self._engine.image(text.partition("ref=")[2])
                return plan
        return replace(plan, no_cache=True) if plan.cache_from else plan

    async def _sent(self, body: BodyFile, folder: Path) -> Fetched:
        unpacked = await on_thread(
            lambda: read_stream(io.BufferedReader(body, 1 << 18), folder)
        )  # as slow as the client
        return Fetched(folder, unpacked.dockerfile_text)

    async def _elsewhere(self, place: str, folder: Path, closing: contextlib.ExitStack) -> Fetched:
        """`remote=`: a git repository, or a URL of an archive or a Dockerfile."""
        return await fetched(place, folder, self._scratch.parent if self._scratch else None, closing)


async def _events(engine: Engine, plan: BuildRequest) -> AsyncGenerator[Any, None]:
    async for event in engine.build(plan):
        yield event


def _refuse(query: Query) -> None:
    """What would change the result and cannot be done ends the build."""
    if query.text("version", "1") not in ("", "1"):
        raise InvalidInput(f'invalid version "{query.text("version")}"')
    for tag in query.all("t"):
        Reference.parse(tag)
    if query.flag("squash"):
        raise Unsupported("--squash is not supported", hint="a multi-stage build with COPY --from makes one layer")
    if query.text("isolation") not in ("", "default"):
        raise Unsupported(f"isolation {query.text('isolation')!r} is for Windows")
    if query.text("securityopt") not in ("", "[]", "null"):
        raise InvalidInput("The daemon on this platform does not support setting security options on build")
    if query.text("outputs") not in ("", "[]", "null"):
        raise Unsupported("outputs need BuildKit", hint="`workbench build --output …`; docker cp or docker save")


def _limits(query: Query) -> HostConfig:
    """The classic builder's limits of RUN steps, beside memory and ulimits. Raises `InvalidInput`."""

    def number(name: str) -> int:
        return query.number(name, 0) or 0

    return HostConfig(
        memory_swap=number("memswap"),
        cpu_shares=number("cpushares"),
        cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"),
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        cgroup_parent=query.text("cgroupparent"),
    )


def _request(query: Query, fetched: Fetched, auths: tuple[RegistryAuth, ...]) -> BuildRequest:
    name = query.text("dockerfile") or "Dockerfile"
    folder, dockerfile = fetched.context, fetched.text
    args = query.document("buildargs") or {}
    if not isinstance(args, dict):
        raise InvalidInput("buildargs must be a JSON object")
    hosts = [host for text in query.all("extrahosts") for host in text.split(",") if host]
    ulimits = query.document("ulimits") or []
    cache_from = query.document("cachefrom") or []
    network = query.text("networkmode")
    return BuildRequest(
        context=folder,
        dockerfile=None if dockerfile is not None else folder / name,
        dockerfile_text=dockerfile,
        remote=query.text("remote") or "client",
        passing=True,
        tags=tuple(query.all("t")),
        target=query.text("target"),
        build_args={str(key): str(value) for key, value in args.items() if value is not None},
        labels=texts(query.document("labels"), "labels"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        platforms=tuple(part for part in query.text("platform").split(",") if part),
        network="" if network == "default" else network,
        add_hosts=tuple(hosts),
        ulimits=tuple(f"{u['Name']}={u['Soft']}:{u['Hard']}" for u in ulimits),
        shm_size=query.number("shmsize", 0) or 0,
        memory=query.number("memory", 0) or 0,
        limits=_limits(query),
        auths=auths,
        # Images that are here, which no registry is asked for, as the classic builder has it.
        cache_from=tuple(f"type=image,ref={name}" for name in cache_from),
    )


def _failed(error: BuildFailed) -> BuildFailed:
    """Clients of the classic builder look for its sentence; ours follows."""
    failed = failed_command(error.message)
    if failed is None:
        return error
    first = f"The command '{failed[0]}' returned a non-zero code: {error.exit_code}"
    return BuildFailed(f"{first}\n{error}", exit_code=error.exit_code, hint=error.hint)


class _Lines:
    """The classic builder's words for each event."""

    def __init__(self, *, quiet: bool, no_cache: bool) -> None:
        self._quiet, self.no_cache = quiet, no_cache
        self.held: deque[dict[str, Any]] = deque(maxlen=10_000)
        self._numbers: dict[str, tuple[int, int]] = {}

    def feed(self, event: Any) -> list[dict[str, Any]]:
        if isinstance(event, BuildFinished):
            return self._finished(event)
        lines = self._told(event)
        if self._quiet:
            self.held += lines
            return []
        return lines

    def _told(self, event: Any) -> list[dict[str, Any]]:
        match event:
            case BuildStarted(steps=steps):
                self._numbers = {step.key: (number, len(steps)) for number, step in enumerate(steps, 1)}
            case StepStarted(step=step):
                number, total = self._numbers.get(step.key, (step.number, step.total))
                return [{"stream": f"Step {number}/{total} : {step.instruction}\n"}]
            case StepFinished(step=step, cached=True):
                if step.number == 1:  # FROM: said when it started
                    return []
                number, total = self._numbers.get(step.key, (step.number, step.total))
                shown = [{"stream": f"Step {number}/{total} : {step.instruction}\n"}]
                return shown if self.no_cache else [*shown, {"stream": " ---> Using cache\n"}]
            case StepFinished(reason=reason):
                return [{"stream": f" ---> {reason}\n"}] if reason else []
            case StepOutput(text=text, stream=stream):
                text = text if text.endswith("\n") else text + "\n"
                return [{"stream": f"{_RED}{text}{_PLAIN}" if stream == "stderr" else text}]
            case PullProgress() if event.layer:
                return [progress_document(event)]
            case PullProgress() if event.text:
                return [{"status": event.text}]
            case BuildNotice(text=text):
                return [{"stream": f"[notice] {text}\n"}]
        return []

    def _finished(self, event: BuildFinished) -> list[dict[str, Any]]:
        short = event.image_id.removeprefix("sha256:")[:12]
        lines: list[dict[str, Any]] = [{"aux": {"ID": event.image_id}}]
        if self._quiet:
            return [*lines, {"stream": f"{event.image_id}\n"}]
        lines.append({"stream": f"Successfully built {short}\n"})
        return lines + [{"stream": f"Successfully tagged {tag}\n"} for tag in event.tags]
