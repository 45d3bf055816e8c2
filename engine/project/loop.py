"""The inner loop: a change seen, the image rebuilt, the container replaced. Headless; the app and `up` read its events.

A build that newer changes overtake is cancelled; its finished steps stay in the cache. The old container runs until the new image
is there, and is started again when the new one does not start. One loop a project: a second one looks on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from engine.api import (
    BuildFinished,
    ChangeSeen,
    ContainerSummary,
    Engine,
    LoopEvent,
    LoopNotice,
    ProjectFound,
    PullProgress,
    Replaced,
    ServiceBuild,
    ServiceBuildFailed,
    ServiceState,
)
from engine.base.atomic import locked
from engine.base.units import brief_seconds
from engine.errors import Cancelled, EngineError, NotFound, StartFailed
from engine.project.model import Project, Service, build_request, config_hash, container_name, container_spec
from engine.project.watch import Watched, watch

_LOCK_RETRY = 0.5  # seconds


HEALTH_LOOK = 0.1  # seconds between two looks at a dependency's health


@dataclass(slots=True)
class _Running:
    """What the loop knows of one service."""

    service: Service
    pending: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    building: bool = False  # only then may the task be cancelled


class InnerLoop:
    """`state_dir` (in the engine's data root) holds the services' logs and the projects' locks."""

    def __init__(self, engine: Engine, project: Project, state_dir: Path) -> None:
        self._engine, self._project, self._state = engine, project, state_dir
        self._queue: asyncio.Queue[LoopEvent | BaseException | None] = asyncio.Queue()
        self._services = {service.name: _Running(service) for service in project.services}
        self._stop = asyncio.Event()
        self._deaf: set[str] = set()  # services whose containers cannot be asked to stop: said once
        self._tasks: set[asyncio.Task[None]] = set()
        self._undo = contextlib.ExitStack()
        self._owner = False  # of the project's lock: only its owner builds

    # --- front ends read this ---------------------------------------------------------------------------

    async def events(self, *, once: bool = False) -> AsyncIterator[LoopEvent]:
        """What happens, from the discovery on. `once`: bring everything up, then end."""
        self._spawn(self._main(once=once))
        while True:
            item = await self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    async def rebuild(self, service: str | None = None) -> None:
        """Builds and replaces now, without waiting for a change."""
        if not self._owner:
            self._say(LoopNotice("not rebuilt: another workbench looks after this project", service or ""))
            return
        for name, running in self._services.items():
            if service in (None, name):
                await self._changed(running, frozenset())

    async def close(self) -> None:
        """Stops watching. Containers go on."""
        self._stop.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._undo.close()

    # --- inside -----------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._queue.put_nowait(error)

    def _say(self, event: LoopEvent) -> None:
        self._queue.put_nowait(event)

    def log_path(self, service: Service) -> str:
        return str(self._state / self._project.name / f"{service.name}.log")

    async def _main(self, *, once: bool) -> None:
        project = self._project
        self._say(
            ProjectFound(project.name, str(project.path), str(project.file), tuple(self._services), project.notes)
        )
        if not self._lock():
            text = f"another workbench looks after {project.name}: this one shows it, and takes over when that one ends"
            self._say(LoopNotice(text))
            await self._look_on()
            if once:
                self._queue.put_nowait(None)
                return
            await self._take_over()
        await self._make_networks()
        for running in self._services.values():
            await self._act(running, first=True)
        if once:
            self._queue.put_nowait(None)
            return
        for running in self._services.values():
            if running.service.build:
                self._spawn(self._watch(running))

    async def _make_networks(self) -> None:
        """The project's networks that services are on, where they are missing. Raises NotFound for an external one."""
        used = {name for s in self._project.services if not s.network_mode for name in s.networks or ("default",)}
        for name, network in self._project.networks.items():
            if name not in used:
                continue
            try:
                await self._engine.network(network.spec.name)
            except NotFound:
                if network.external:
                    raise NotFound(
                        f"network {network.spec.name} declared as external, but could not be found",
                        hint=f"workbench network create {network.spec.name}",
                    ) from None
                await self._engine.create_network(network.spec)

    def _lock(self) -> bool:
        self._state.mkdir(mode=0o710, parents=True, exist_ok=True)
        try:
            self._undo.enter_context(locked(self._state / f"{self._project.name}.lock", blocking=False))
        except BlockingIOError:
            return False
        self._owner = True
        return True

    async def _look_on(self) -> None:
        for running in self._services.values():
            found = await self._container(running.service)
            if found:
                phase = "running" if found.running else "exited"
                self._say(ServiceState(running.service.name, phase, found.name, found.image_id, _generation(found)))  # type: ignore[arg-type]

    async def _take_over(self) -> None:
        """Waits until the lock is free: flock(2) cannot be awaited, and its holder may be killed, so it is asked for now and then."""
        while not self._lock():
            await asyncio.sleep(_LOCK_RETRY)
        self._say(LoopNotice("the other workbench has ended: this one rebuilds from now on"))

    async def _watch(self, running: _Running) -> None:
        build = running.service.build
        assert build is not None
        watched = Watched(build.context, build.dockerfile, (self._project.file, *self._project.env_files))
        async for paths in watch(watched, self._stop, lambda text: self._say(LoopNotice(text, running.service.name))):
            self._say(ChangeSeen(running.service.name, tuple(sorted(paths))))
            await self._changed(running, paths)

    async def _changed(self, running: _Running, paths: frozenset[str]) -> None:
        running.pending |= paths
        task = running.task
        if task is not None and not task.done():
            if running.building:
                task.cancel()
                self._say(LoopNotice("build overtaken by newer changes", running.service.name))
            await asyncio.gather(task, return_exceptions=True)
        running.task = self._spawn(self._act(running, first=False))

    async def _act(self, running: _Running, *, first: bool) -> None:
        """Builds or pulls, and replaces the container when the image or the way it runs has changed."""
        service, started = running.service, time.monotonic()
        try:
            running.building = True
            try:
                image, finished = await self._image(service)
            finally:
                running.building = False
            paths = sorted(running.pending)
            running.pending.clear()
            if first:
                await self._await_dependencies(service)
            await self._ensure(service, image, finished, paths, started, first=first)
        except Cancelled:
            return
        except EngineError as error:
            self._say(
                ServiceBuildFailed(
                    service.name,
                    str(error),
                    error.hint or "",
                    str(getattr(error, "file", "")),
                    int(getattr(error, "line", 0)),
                    await self._still_runs(service),
                )
            )
            self._say(ServiceState(service.name, "failed", text=error.message))

    async def _still_runs(self, service: Service) -> bool:
        try:
            found = await self._container(service)
        except EngineError:  # told already
            return False
        return found is not None and found.running

    async def _await_dependencies(self, service: Service) -> None:
        """`depends_on` with its conditions. Services start in order, so what is only to be started has been."""
        for name, condition in service.depends_on.items():
            other = self._services.get(name)
            if other is None or condition == "service_started":
                continue
            container = container_name(self._project, other.service)
            self._say(ServiceState(service.name, "waiting", text=f"{name}: {condition.removeprefix('service_')}"))
            if condition == "service_completed_successfully":
                code = await self._engine.wait(container)
                if code:
                    raise StartFailed(f"{service.name} waits for {name}, which ended with exit code {code}")
            else:
                await self._await_health(service.name, name, container)

    async def _await_health(self, service: str, name: str, container: str) -> None:
        while True:
            summary = (await self._engine.container(container)).summary
            if summary.health == "healthy":
                return
            if not summary.health:
                raise StartFailed(
                    f"{service} waits for {name} to be healthy, which has no health check",
                    hint=f"give {name} a healthcheck, or wait for service_started",
                )
            if summary.health == "unhealthy" or not summary.running:
                raise StartFailed(
                    f"{service} waits for {name}, which is {summary.health if summary.running else summary.status}",
                    hint=f"workbench logs {container}",
                )
            await asyncio.sleep(HEALTH_LOOK)

    async def _image(self, service: Service) -> tuple[str, BuildFinished | None]:
        if service.build is None:
            try:
                return (await self._engine.image(service.image)).summary.id, None
            except NotFound:
                self._say(ServiceState(service.name, "pulling"))
                async for progress in self._engine.pull(service.image):
                    self._say(ServiceBuild(service.name, progress))
                return (await self._engine.image(service.image)).summary.id, None
        self._say(ServiceState(service.name, "building"))
        request = build_request(service.build, service.image)
        finished: BuildFinished | None = None
        events = self._engine.build(request)
        try:
            async for event in events:
                self._say(ServiceBuild(service.name, event))
                if isinstance(event, BuildFinished):
                    finished = event
                elif isinstance(event, PullProgress) and event.phase == "resolving":
                    self._say(ServiceState(service.name, "pulling", text=event.reference))
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()
        assert finished is not None  # a build ends with it, or raises
        return finished.image_id, finished

    async def _container(self, service: Service) -> ContainerSummary | None:
        name = container_name(self._project, service)
        found = [c for c in await self._engine.containers(all=True) if c.name == name]
        return found[0] if found else None

    async def _ensure(
        self,
        service: Service,
        image: str,
        finished: BuildFinished | None,
        paths: list[str],
        started: float,
        *,
        first: bool,
    ) -> None:
        old = await self._container(service)
        if (
            old
            and old.running
            and old.image_id == image
            and old.labels.get("workbench.config-hash") == config_hash(service)
        ):
            if not first:
                self._say(
                    LoopNotice(
                        f"{_named(paths) or service.name}: content unchanged, the container runs on", service.name
                    )
                )
            self._say(ServiceState(service.name, "running", old.name, image, _generation(old)))
            return
        self._say(ServiceState(service.name, "starting", image=image))
        generation = _generation(old) + 1 if old else 1
        rule = _rule(old, image, finished, paths, time.monotonic() - started) if old else ""
        await asyncio.shield(self._spawn(self._replace(service, image, old, generation, rule)))
        name = container_name(self._project, service)
        if old:
            self._say(Replaced(service.name, name, generation, rule, time.monotonic() - started))
        self._say(ServiceState(service.name, "running", name, image, generation))

    async def _replace(
        self, service: Service, image: str, old: ContainerSummary | None, generation: int, rule: str
    ) -> None:
        """A published port is one container's at a time: the old one stops before the new one starts."""
        name = container_name(self._project, service)
        log_path = self.log_path(service)
        temporary = f"{name}-next" if old else name
        with contextlib.suppress(NotFound):
            if old:
                await self._engine.remove(temporary, force=True)  # left by a crash
        spec = container_spec(
            self._project, service, image=service.image, name=temporary, generation=generation, log_path=log_path
        )
        created = await self._engine.create(spec)
        if old and old.running and await self._engine.stop(old.id, hurry=True) and service.name not in self._deaf:
            self._deaf.add(service.name)
            self._say(
                LoopNotice(
                    "the container was killed at once: its first process has no handler for the stop signal. "
                    "If it should end in order: the exec form of CMD, a handler, or `init: true`",
                    service.name,
                )
            )
        if rule:
            await self._engine.write_rule(log_path, rule)
        try:
            await self._engine.start(created)
        except EngineError:
            await self._engine.remove(created, force=True)
            if old and old.running:
                await self._engine.write_rule(
                    log_path, "── the new container did not start: the one before runs again ──"
                )
                await self._engine.start(old.id)
            raise
        if old:
            await self._engine.remove(old.id, force=True)
            await self._engine.rename(created, name)


def _generation(container: ContainerSummary) -> int:
    text = container.labels.get("workbench.generation", "1")
    return int(text) if text.isdigit() else 1


def _named(paths: list[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "") if paths else ""


def _rule(
    old: ContainerSummary | None, image: str, finished: BuildFinished | None, paths: list[str], seconds: float
) -> str:
    """`── rebuilt 14:02:11 a1b2→c3d4 · app.py → step 4/5 COPY . . · 41 ms ──`"""
    before = old.image_id.removeprefix("sha256:")[:4] if old else "none"
    after = image.removeprefix("sha256:")[:4]
    step = finished.first_changed if finished else None
    cause = _named([path for path in paths if not path.endswith("/")] or paths)
    what = " → ".join(filter(None, (cause, f"step {step.number}/{step.total} {step.instruction}" if step else "")))
    verb = "rebuilt" if before != after else "restarted"
    return (
        f"── {verb} {time.strftime('%H:%M:%S')} {before}→{after} · {what or 'run again'} · {brief_seconds(seconds)} ──"
    )
