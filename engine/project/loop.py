"""The inner loop: a change seen, the smallest act that is enough, the container replaced. Headless; the app and `up` read its events.

    loop = InnerLoop(engine, discover(Path(".")), root / "projects")
    async for event in loop.events():   # `engine.api.LoopEvent`
        ...

What a change means is decided in `plan`, what is done about it by a `ServiceLoop` for each service, how containers are exchanged in
`swap`. This module joins them: the project's lock, its networks, the order in which services start, who depends on whom, and the
watching. One loop a project: a second one looks on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path

from engine.api import BuildRequest, Engine, LoopEvent, LoopNotice, ProjectFound, ServiceBuildFailed, ServiceState
from engine.base.atomic import locked
from engine.base.settings import ProjectSettings, project_settings
from engine.errors import EngineError, NotFound, StartFailed
from engine.project import words
from engine.project.initial import everything
from engine.project.model import Project, Service, container_name, service_request
from engine.project.plan import SyncMode
from engine.project.reload import compare, project_files
from engine.project.resources import make_resources
from engine.project.service_loop import ServiceLoop
from engine.project.shared import Shared
from engine.project.swap import generation_of
from engine.project.watch import Watched, Watcher

_LOCK_RETRY = 0.5  # seconds
HEALTH_LOOK = 0.1  # seconds between two looks at a dependency's health
RESOURCE_LOOK = 1.0  # seconds between two looks for an external network or volume that is missing
HALF_WRITTEN = 0.1  # seconds that a save of a project file may take between emptying and writing it


class InnerLoop:
    """`state_dir` (in the engine's data root) holds the services' logs and the projects' locks.

    `sync`: "files" brings files that the build only copies into the running container instead of rebuilding, for programs that
    load them again by themselves; "restart" restarts the container after it. "" rebuilds, which is always right. Services with
    `develop.watch` go by its rules in any case. `stop_first`: the old container stops before the new one starts.
    `force`: at the start every container is a new one; `adopt`: what has ended stays so. `reload` reads the project again when one of its own files changes.
    `show_only`: tells how the services are, and builds, makes and replaces nothing. `keep`: how
    many generations stay; None: as the data root's settings say. Raises `InvalidInput` for settings that cannot be read."""

    def __init__(
        self,
        engine: Engine,
        project: Project,
        state_dir: Path,
        *,
        sync: SyncMode = "",
        stop_first: bool = False,
        force: bool = False,
        adopt: bool = False,
        reload: Callable[[], Project] | None = None,
        show_only: bool = False,
        keep: ProjectSettings | None = None,
    ) -> None:
        self._engine, self._project, self._state = engine, project, state_dir
        self._queue: asyncio.Queue[LoopEvent | BaseException | None] = asyncio.Queue()
        self._shared = Shared(
            engine, project, state_dir / project.name, self._say, self._spawn, self._finish, self._replaced, sync,
            stop_first, force, adopt, keep or project_settings(state_dir.parent),
        )  # fmt: skip
        self._reload, self._show_only = reload, show_only
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._followed: dict[tuple[Path, Path | None], list[ServiceLoop]] = {}  # who hears of a folder's changes
        self._services = {service.name: ServiceLoop(self._shared, service) for service in project.services}
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Task[None]] = (
            set()
        )  # a swap once begun: half of one would leave two containers, or none
        self._undo = contextlib.ExitStack()
        self._waiting = False  # for networks and volumes that the user makes
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
            why = "read-only" if self._show_only else "another workbench looks after this project"
            self._say(LoopNotice(f"not rebuilt: {why}", service or ""))
            return
        for name, each in self._services.items():
            if service in (None, name):
                each.want(rebuild="asked for")

    def request(self, service: str) -> BuildRequest | None:
        """How a service is built now; of "" the first that is. None: there is none, or it is not built."""
        found = (service_request(self._project, each) for each in self._project.services if service in ("", each.name))
        return next((request for request in found if request is not None), None)

    def changed(self, paths: Iterable[Path]) -> None:
        """For callers who know of changes before the watching does (an editor): absolute paths, written, made or removed."""
        found = list(paths)
        for each in self._services.values():
            each.changed(found)

    async def close(self) -> None:
        """Stops watching, and ends `events`, when a swap that has begun has ended. Containers go on."""
        self._stop.set()
        while self._tasks:  # one that ends may have begun another
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._finishing:
            await asyncio.gather(*self._finishing, return_exceptions=True)
        self._undo.close()
        self._queue.put_nowait(None)

    # --- inside -----------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _finish(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._finishing.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._finishing.discard(task)
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
        if self._show_only:
            self._say(LoopNotice("read-only: nothing is built or replaced here"))
            await self._keep_looking()
            return
        if not self._lock():
            text = f"another workbench looks after {project.name}: this one shows it, and takes over when that one ends"
            self._say(LoopNotice(text))
            missing = await self._look_on()
            if once:
                for name in missing:
                    text = f"not started: another workbench looks after {project.name}, and does not run it"
                    self._say(ServiceBuildFailed(name, text))
                self._queue.put_nowait(None)
                return
            await self._take_over()
        if not once:  # what changes while the first images are built is a change too
            await self._watch_all()
        await self._make_resources(wait=not once)
        for each in list(self._services.values()):
            await self._bring_up(each)
        if once:
            self._queue.put_nowait(None)
            return
        for name, each in self._services.items():
            self._runs[name] = self._spawn(each.run())
        if self._reload is not None:
            self._spawn(self._watch_files(self._reload))

    async def _bring_up(self, each: ServiceLoop) -> None:
        try:
            await self._await_dependencies(each.service)
        except EngineError as error:
            each.waits_in_vain(error)
            return
        await each.start()

    async def _after_all(self, each: ServiceLoop, other: str) -> None:
        """What it waited for in vain is there now."""
        with contextlib.suppress(EngineError):
            await self._await_dependencies(each.service)
            each.want(rebuild=f"{other} is there now")

    async def _make_resources(self, *, wait: bool = True) -> None:
        """What cannot be made is told; the services that need it say so themselves, and the others start. `wait`: when what only the
        user can make is there, they are tried again."""
        try:
            missing = await make_resources(self._engine, self._project)
        except EngineError as error:
            self._say(LoopNotice(f"{error.message}{f' ({error.hint})' if error.hint else ''}"))
            return
        for each in missing:
            self._say(LoopNotice(f"{each.message} ({each.hint})"))
        if missing and wait and not self._waiting:
            self._waiting = True
            self._spawn(self._await_resources({each.message for each in missing}))

    async def _await_resources(self, missing: set[str]) -> None:
        """Another process makes them, and tells nobody: they are asked for now and then."""
        while missing:
            await asyncio.sleep(RESOURCE_LOOK)
            with contextlib.suppress(EngineError):
                left = {error.message for error in await make_resources(self._engine, self._project)}
                if missing - left:
                    for each in self._services.values():
                        each.try_again("what it needs is there now")
                missing = left
        self._waiting = False

    # --- the project's own files ----------------------------------------------------------------------------

    async def _watch_files(self, read: Callable[[], Project]) -> None:
        """The compose files, env files, secrets and Dockerfiles: a change of one is a change of the project."""
        said = ""
        while not self._stop.is_set():
            files = project_files(self._project)
            watcher = Watcher(Watched(files[0], None, files[1:]), self._stop, lambda text: None)
            try:
                await watcher.next()
                said = await self._read_again(read, said)  # what changed since the project was read last
                while not self._stop.is_set() and files == project_files(self._project):
                    if changed := await watcher.next():
                        paths = [Path(os.path.normpath(files[0] / path)) for path in changed]
                        said = await self._read_again(read, said, words.named(paths, self._project.path))
            finally:
                watcher.close()

    async def _read_again(self, read: Callable[[], Project], said: str, cause: str = "") -> str:
        try:
            try:
                project = await asyncio.to_thread(read)
            except EngineError:  # perhaps emptied by a save that is under way: looked at once more before it is told
                await asyncio.sleep(HALF_WRITTEN)
                project = await asyncio.to_thread(read)
        except EngineError as error:
            if not self._project.path.is_dir():
                if self._project.path not in {root for root, _ in self._followed}:  # else its watcher tells
                    text = f"{self._project.path} is gone: what runs goes on; it is read again when it is back"
                    self._say(LoopNotice(text))
            elif str(error) != said:
                hint = f"\n{error.hint}" if error.hint else ""
                self._say(LoopNotice(f"{error}{hint}\nnot taken over: what runs goes on as it is"))
            return str(error)
        cause = cause or project.file.name
        if said:
            self._say(LoopNotice(f"{cause} is read again"))
        await self._take(project, cause)
        return ""

    async def _take(self, project: Project, cause: str) -> None:
        """The project as its files have it now: what changed is built and run anew, the rest is left alone."""
        before, self._project = self._project, project
        found = compare(before, project)
        self._shared.project = project
        if not found:
            return
        self._say(LoopNotice(f"{cause}: {found}"))
        for note in project.notes:
            if note not in before.notes:
                self._say(LoopNotice(f"note: {note}"))
        gone = [self._services.pop(name) for name in found.removed]
        fresh = {
            service.name: ServiceLoop(self._shared, service)
            for service in project.services
            if service.name in found.added
        }
        for service in project.services:
            if service.name in self._services:
                self._services[service.name].update(service)
        self._services = {s.name: fresh.get(s.name) or self._services[s.name] for s in project.services}
        await self._watch_all()
        await self._make_resources()
        for each in gone:
            if run := self._runs.pop(each.service.name, None):
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
            await each.end()
        for name in found.changed:
            self._services[name].want(rebuild=f"{cause} changed")
        for name, each in fresh.items():
            await self._bring_up(each)
            self._runs[name] = self._spawn(each.run())

    def _lock(self) -> bool:
        self._state.mkdir(mode=0o710, parents=True, exist_ok=True)
        try:
            self._undo.enter_context(locked(self._state / f"{self._project.name}.lock", blocking=False))
        except BlockingIOError:
            return False
        self._owner = True
        return True

    async def _look_on(self) -> list[str]:
        """Tells how the services are; the names of those that have no container."""
        missing = []
        for each in self._services.values():
            try:
                found = await self._engine.container_summary(each.name)
            except NotFound:
                missing += [each.service.name] if each.service.scale else []
                continue
            phase = "running" if found.running else "exited"
            self._say(ServiceState(each.service.name, phase, found.name, found.image_id, generation_of(found)))  # type: ignore[arg-type]
        return missing

    async def _keep_looking(self) -> None:
        """As `_look_on`, and again whenever a container has changed."""
        since = time.time_ns()  # so that nothing falls between the first look and the first event
        await self._look_on()
        async for event in self._engine.events(since_time=since):
            if event.type == "container" and event.action in ("start", "die", "rename", "destroy"):
                await self._look_on()

    async def _take_over(self) -> None:
        """Waits until the lock is free: flock(2) cannot be awaited, and its holder may be killed, so it is asked for now and then."""
        while not self._lock():
            await asyncio.sleep(_LOCK_RETRY)
        self._shared.adopt = True
        self._say(LoopNotice("the other workbench has ended: this one rebuilds from now on"))

    async def _watch_all(self) -> None:
        """One look at everything; from then on each folder is followed for all services that it matters to."""
        folders: dict[tuple[Path, Path | None], list[ServiceLoop]] = {}
        for each in self._services.values():
            for folder in _folders(each.service):
                folders.setdefault((folder.root, folder.dockerfile), []).append(each)
        known = set(self._followed)
        for key in known - folders.keys():
            self._followed[key].clear()  # nobody asks for it any more
        for key, services in folders.items():
            self._followed.setdefault(key, [])[:] = services
        for root, dockerfile in folders.keys() - known:
            watched = Watched(root, dockerfile)
            self._spawn(self._follow(await self._watcher(watched), watched, self._followed[root, dockerfile]))

    async def _watcher(self, watched: Watched) -> Watcher:
        watcher = Watcher(watched, self._stop, lambda text: self._say(LoopNotice(text)))
        self._undo.callback(watcher.close)
        await watcher.next()
        return watcher

    async def _follow(self, watcher: Watcher, watched: Watched, services: Sequence[ServiceLoop]) -> None:
        while not self._stop.is_set():
            if changed := await watcher.next():
                paths = [Path(os.path.normpath(watched.root / path)) for path in changed]
                if watcher.outgrown:
                    watcher.close()
                    watcher = await self._watcher(watched)
                    paths += everything(watched.root)
                for each in list(services):
                    each.changed(paths)

    # --- who depends on whom ------------------------------------------------------------------------------

    def _replaced(self, service: str, new_image: bool) -> None:
        """A service has a new container: what is built on its image is built again, what restarts with it restarts."""
        for each in self._services.values():
            if each.in_vain and service in each.service.depends_on:
                self._spawn(self._after_all(each, service))
            if new_image and service in each.service.needs_images:
                each.want(rebuild=f"image of {service} is new")
            elif service in each.service.restart_with:
                each.want(restart=f"{service} was replaced")
            elif f"service:{service}" in (
                each.service.network_mode,
                each.service.spec.ipc_mode,
                each.service.spec.pid_mode,
            ):
                each.want(rebuild=f"{service}, whose namespaces it shares, was replaced")

    async def _await_dependencies(self, service: Service) -> None:
        """`depends_on` with its conditions. Services start in order, so what is only to be started has been."""
        for name in service.depends_on:
            try:
                await self._await_dependency(service, name)
            except EngineError as error:
                if name not in service.optional:
                    raise
                self._say(LoopNotice(f"{error.message}; not required", service.name))

    async def _await_dependency(self, service: Service, name: str) -> None:
        """Raises `StartFailed`, `NotFound`."""
        condition = service.depends_on[name]
        other = self._services.get(name)
        if other is None or condition == "service_started":
            return
        container = container_name(self._project, other.service)
        self._say(ServiceState(service.name, "waiting", text=f"{name}: {condition.removeprefix('service_')}"))
        try:
            await self._engine.container(container)
        except NotFound:
            raise StartFailed(f"{service.name} waits for {name}, which did not start") from None
        if condition == "service_completed_successfully":
            code = await self._engine.wait(container)
            if code:
                raise StartFailed(f"{service.name} waits for {name}, which ended with exit code {code}")
        else:
            await self._await_health(service.name, name, container)

    async def _await_health(self, service: str, name: str, container: str) -> None:
        while True:
            summary = await self._engine.container_summary(container)
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


def _folders(service: Service) -> list[Watched]:
    """What is watched for a service: its build context, the folders of its rules, and contexts of other names."""
    build = service.build
    found = [Watched(build.context, build.dockerfile)] if build else []
    others = [Path(where) for where in (build.contexts.values() if build else ()) if where.startswith("/")]
    for path in [*others, *(rule.path for rule in service.watch)]:
        if not any(path.is_relative_to(each.root) for each in found):
            found.append(Watched(_there(path)))
    return found


def _there(path: Path) -> Path:
    """The path, or the first of the folders on the way to it that is missing: when that is made, it is seen."""
    return next((each for each in reversed(path.parents) if not each.exists()), path)
