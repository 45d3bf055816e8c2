"""One service's part of the inner loop: what has changed is gathered, judged and acted on, one act at a time.

The newest change wins: a build, and a new container that is not ready yet, are given up for it; the builder's finished steps stay in
its cache. What an act was for is forgotten when it is done, never before: after a failure or a cancellation it is judged again
together with what comes next, so that no change is lost. What did not fail for the files' sake (no room, a port that is taken) is
tried again by itself, ever more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from engine.api import (
    BuildFinished,
    ChangeSeen,
    ContainerSummary,
    LoopNotice,
    Mount,
    Replaced,
    ServiceBuildFailed,
    ServiceState,
    Synced,
)
from engine.errors import (
    BuildFailed,
    Cancelled,
    Conflict,
    DockerfileError,
    EngineError,
    InvalidInput,
    NotFound,
    StartFailed,
)
from engine.project import words
from engine.project.batch import Batch
from engine.project.generations import Generations, made
from engine.project.hooks import run_hook, run_hooks
from engine.project.initial import initial_entries
from engine.project.judge import Judge
from engine.project.keeping import Keeping
from engine.project.making import Making
from engine.project.model import Hook, Service, config_hash, container_name, container_spec
from engine.project.plan import NOTHING, Act
from engine.project.ready import NotReady
from engine.project.replicas import Replicas
from engine.project.resources import check_volumes, given_mounts, make_resources
from engine.project.shared import Shared
from engine.project.swap import Next, Swap, generation_of, stops_first

BEHIND = 1.0  # seconds after the last sync until the image is built behind it
PATIENCE = (
    5  # acts that are given up in a row for newer changes; then one comes to its end, though changes go on coming
)
FIRST = "start"  # the reason to act when the loop begins
_RETRY_FIRST, _RETRY_MOST = 1.0, 30.0
_FILES_FAULT = (
    BuildFailed,
    NotReady,
    DockerfileError,
    InvalidInput,
    NotFound,
)  # another try gives the same, until something changes


class ServiceLoop:
    """`start` brings the service up, `run` acts on changes until it is cancelled; `changed` and `want` tell it of reasons."""

    def __init__(self, shared: Shared, service: Service) -> None:
        self._shared, self.service = shared, service
        self._hash = config_hash(service)
        self._engine, self._say = shared.engine, shared.say
        self.judge = Judge(shared.project, service, shared.sync)
        self.generations = Generations(shared.state, service.name)
        self._making = Making(shared, lambda: self.service)
        owner = f"{shared.project.name}-{service.name}"
        self._keeping = Keeping(shared.engine, owner, self.generations, shared.keep)
        self._swap = Swap(shared.engine, service, shared.say, shared.finish, self._keeping.retired)
        self.in_vain = False  # what it depends on is not there
        self._forced = False  # every container is to be a new one, this time
        self._pending, self._unsettled = Batch(), Batch()
        self._wake = asyncio.Event()
        self._job: asyncio.Task[None] | None = None
        self._retry, self._said = 0.0, ""
        self._overtakes = 0  # acts in a row that were given up
        self._again = False
        self._synced: dict[str, str] = {}  # paths in the container that its image may not have, and what they came from
        self._equal = ""  # an image that was built behind the container, and has just what runs
        self._mourner: asyncio.Task[None] | None = None
        self._stops_first_said = False
        self._told: dict[Path, tuple[int, ...] | None] = {}  # each changed path as it was when it was told of

    @property
    def name(self) -> str:
        return container_name(self._shared.project, self.service)

    @property
    def log_path(self) -> str:
        return str(self._shared.state / f"{self.service.name}.log")

    @property
    def idle(self) -> bool:
        """Nothing is left to be done, or is being done."""
        return not self._pending and self._job is None and not self._synced

    # --- reasons to act ---------------------------------------------------------------------------------

    def changed(self, paths: Iterable[Path]) -> None:
        """What was told in the same state before (by an editor, then by the watching) is no change."""
        now = {path: _state(path) for path in paths}
        batch = Batch.of(path for path, state in now.items() if self._told.get(path, ()) != state)
        self._told |= now
        act = self.judge.decide(batch.paths | self._unsettled.paths, running=True)
        if act.kind == "nothing":
            return
        self._say(ChangeSeen(self.service.name, tuple(words.shown(p, self._folder) for p in sorted(batch.paths))))
        self._add(batch)

    def try_again(self, why: str) -> None:
        """What failed may go well now."""
        if self._unsettled:
            self.want(rebuild=why)

    def want(self, *, rebuild: str = "", restart: str = "") -> None:
        now = time.monotonic()
        self._add(Batch(rebuild=rebuild, restart=restart, saved=now, noticed=now))

    def _add(self, batch: Batch) -> None:
        self._pending.add(batch)
        self._wake.set()
        if self._job is not None and (self._making.busy or self._swap.standing) and self._overtakes < PATIENCE:
            self._job.cancel()

    @property
    def _folder(self) -> Path:
        return self.service.build.context if self.service.build else self._shared.project.path

    # --- the loop -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Builds or pulls, and starts what does not run as it should."""
        self._pending.rebuild = self._pending.restart = ""  # others are new: so will this one be
        await self._turn(Batch(rebuild=FIRST, noticed=time.monotonic(), saved=time.monotonic()), first=True)

    def update(self, service: Service) -> None:
        """The project's files were read again: from now on it is this one."""
        self.service, self._hash = service, config_hash(service)
        self.judge = Judge(self._shared.project, service, self._shared.sync)
        self._swap.service = service

    @property
    def _replicas(self) -> Replicas:
        return Replicas(self._engine, self._shared.project, self.service, self._shared.state)

    async def end(self) -> None:
        """The service is no longer in the project: its containers go."""
        with contextlib.suppress(EngineError):
            await self._replicas.remove_all()
        self._say(ServiceState(self.service.name, "exited", text="no longer in the project"))

    def waits_in_vain(self, error: EngineError) -> None:
        """What it depends on did not come up: told, and tried again when it does, or with the next change."""
        self.in_vain = True
        self._unsettled.add(Batch(rebuild=FIRST, noticed=time.monotonic(), saved=time.monotonic()))
        self._say(ServiceBuildFailed(self.service.name, error.message, error.hint or ""))
        self._say(ServiceState(self.service.name, "failed", text=error.message))

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._patience())
            self._wake.clear()
            if self._pending or (self._retry and self._unsettled):
                self._again = not self._pending  # nothing new: what the first try said is not said again
                batch, self._pending = self._pending, Batch()
                batch.add(self._unsettled)
                self._unsettled = Batch()
                await self._turn(batch)
            elif self._synced:
                await self._turn(Batch(), behind=True)

    def _patience(self) -> float | None:
        if self._pending:
            return 0
        if self._retry and self._unsettled:
            return self._retry
        return BEHIND if self._synced and self.service.build else None

    async def _turn(self, batch: Batch, *, first: bool = False, behind: bool = False) -> None:
        """One act, to its end or until newer changes overtake it."""
        work = self._build_behind() if behind else self._act(batch, first=first)
        self._job = asyncio.get_running_loop().create_task(work)
        try:
            await self._job
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._job.cancel()
                await asyncio.gather(self._job, return_exceptions=True)
                raise
            self._overtaken(batch)
        except Cancelled:
            self._overtaken(batch)
        except EngineError as error:
            if self._pending and not behind:  # it may have failed for what is written by now: a file read half
                self._overtaken(batch)
                return
            self._unsettled.add(batch)
            self._overtakes = 0
            await self._failed(error)
        else:
            self._retry, self._said, self._overtakes = 0.0, "", 0
            self._making.acted()
        finally:
            self._job = None

    def _overtaken(self, batch: Batch) -> None:
        self._overtakes += 1
        self._pending.add(batch)
        self._wake.set()
        if batch:
            self._say(LoopNotice("overtaken by newer changes", self.service.name))

    async def _failed(self, error: EngineError) -> None:
        # A command that is not there (127) or cannot be executed (126) is the image's fault too.
        ours = isinstance(error, _FILES_FAULT) or (isinstance(error, StartFailed) and error.exit_code != 125)
        self._retry = 0.0 if ours else min(max(self._retry * 2, _RETRY_FIRST), _RETRY_MOST)
        text = str(error)
        if self._retry and text == self._said:
            return
        self._said = text
        file, line = str(getattr(error, "file", "")), int(getattr(error, "line", 0))
        running = (await self._container_or_none()) is not None
        self._say(ServiceBuildFailed(self.service.name, text, error.hint or "", file, line, running))
        self._say(ServiceState(self.service.name, "failed", text=error.message.splitlines()[0]))

    async def _container_or_none(self) -> ContainerSummary | None:
        try:
            found = await self._container()
        except EngineError:  # told already
            return None
        return found if found is not None and found.running else None

    async def _container(self) -> ContainerSummary | None:
        try:
            found = await self._engine.container_summary(self.name)
        except NotFound:
            return None
        return found if found.name == self.name else None

    async def _act(self, batch: Batch, *, first: bool) -> None:
        begin = time.monotonic()
        old: ContainerSummary | None = None
        act = self._judge(batch, running=True)
        if act.kind in ("sync", "restart"):  # only then does it matter what runs now
            old = await self._container()
            act = self._judge(batch, running=old is not None and old.running)
        phases = {"noticed": max(batch.noticed - batch.saved, 0.0), "planned": time.monotonic() - begin}
        if act.kind == "rebuild":
            await self._rebuild(batch, phases, first=first)
        elif act.kind != "nothing" and old is not None:
            await self._in_place(batch, act, old, phases)

    def _judge(self, batch: Batch, *, running: bool) -> Act:
        act = self.judge.decide(batch.paths, running=running) if batch.paths else NOTHING
        if batch.rebuild:
            return Act("rebuild", batch.rebuild)
        if batch.restart and act.kind in ("nothing", "sync"):
            return Act("restart" if running else "rebuild", batch.restart, act.syncs, hooks=act.hooks)
        return act

    # --- sync and restart -----------------------------------------------------------------------------------

    async def _in_place(self, batch: Batch, act: Act, old: ContainerSummary, phases: dict[str, float]) -> None:
        begin = time.monotonic()
        cause = words.named(batch.paths, self._folder) or act.why
        if act.syncs:
            result = await self._engine.sync(old.id, act.syncs)
            phases["synced"] = time.monotonic() - begin
            sources = {entry.target: words.shown(entry.source, self._folder) for entry in act.syncs}
            self._synced |= {path: sources.get(path, path) for path in (*result.written, *result.removed)}
            self._equal = ""
            for path in result.skipped[:1]:
                self._say(LoopNotice(f"{path} is a folder of this host in the container already", self.service.name))
            then = "restart" if act.restart else "exec" if act.hooks else ""
            await self._engine.write_rule(self.log_path, words.synced(cause, then, time.monotonic() - batch.saved))
        elif act.kind == "restart":
            await self._engine.write_rule(self.log_path, words.restarted(cause))
        if act.restart or act.kind == "restart":
            await self._swap.stop(old)
            await self._engine.start(old.id)
            self._watch_end(old.id)
            await run_hooks(self._engine, old.id, self.service.post_start, "post_start", self.log_path)
            await self._replicas.restart()
            self._shared.replaced(self.service.name, False)
        for hook in act.hooks:
            await self._run_hook(old.id, hook)
        seconds = time.monotonic() - batch.saved
        if act.syncs:
            then = "restart" if act.restart else "exec" if act.hooks else ""
            paths = tuple(words.shown(entry.source, self._folder) for entry in act.syncs)
            self._say(Synced(self.service.name, self.name, paths, seconds, then, len(self._synced)))
        self._say(ServiceState(self.service.name, "running", self.name, old.image_id, generation_of(old)))

    async def _run_hook(self, container: str, hook: Hook) -> None:
        """What it says goes into the service's log. Its failure is told, and no reason to do again what went well."""
        command = " ".join(hook.command)
        try:
            if code := await run_hook(self._engine, container, hook, self.log_path):
                self._say(LoopNotice(f"`{command}` ended with exit code {code}", self.service.name))
        except StartFailed as error:
            self._say(LoopNotice(f"`{command}` cannot run in the container: {error.message}", self.service.name))

    # --- rebuild ------------------------------------------------------------------------------------------

    async def _rebuild(self, batch: Batch, phases: dict[str, float], *, first: bool) -> None:
        begin = time.monotonic()
        image, finished = await self._making.image(quietly=self._again)
        self.in_vain = False
        phases["built"] = time.monotonic() - begin
        if not self.service.scale:
            await self._replicas.remove_all()
            self._say(ServiceState(self.service.name, "exited", image=image, text="scaled to 0"))
            self._shared.replaced(self.service.name, finished is not None and finished.first_changed is not None)
            return
        await check_volumes(self._engine, self._shared.project, self.service)
        mounts = given_mounts(self.service, self._shared.state)
        old = await self._container()  # now: it may have ended, or been rolled back, while the image was built
        if old is None and not first:  # taken down, perhaps with its networks
            await make_resources(self._engine, self._shared.project)
        self._forced = first and self._shared.force
        same = old is not None and old.labels.get("workbench.config-hash") == self._hash and not self._forced
        if old is None or not same or image not in (old.image_id, self._equal):
            await self._replace(batch, old, image, finished, phases, mounts)
        elif batch.restart and old.running:
            await self._in_place(batch, Act("restart", batch.restart), old, phases)
        else:
            await self._as_it_is(batch, old, image, mounts, first=first)

    async def _as_it_is(
        self, batch: Batch, old: ContainerSummary, image: str, mounts: tuple[Mount, ...], *, first: bool
    ) -> None:
        """Its container is what is wanted: it runs on, or is started again with the files that it has, as Docker Compose does."""
        name, number = self.service.name, generation_of(old)
        ended = not old.running
        if not first and not ended:
            what = words.named(batch.paths, self._folder) or name
            self._say(LoopNotice(f"{what}: content unchanged, the container runs on", name))
        if ended and not self._stays(old, first):
            await self._engine.write_rule(self.log_path, words.restarted("it had ended"))
            await self._engine.start(old.id)
            await run_hooks(self._engine, old.id, self.service.post_start, "post_start", self.log_path)
            ended = False
            self._shared.replaced(name, False)
        self._synced.clear()
        code = f"exit code {old.exit_code}" if ended else ""
        self._say(ServiceState(name, "exited" if ended else "running", old.name, image, number, code))
        if not ended:
            self._watch_end(old.id)
        await self._replicate(image, number, mounts, ended=first and self._shared.adopt)

    def _stays(self, old: ContainerSummary, first: bool) -> bool:
        """What has done its work is not done again by who only goes on from another process."""
        return first and self._shared.adopt and old.status == "exited"

    async def _replicate(
        self, image: str, generation: int, mounts: tuple[Mount, ...], rule: str = "", *, ended: bool = False
    ) -> None:
        """The further containers of a service that is scaled. `ended`: those that have ended stay so."""
        for name in await self._replicas.ensure(image, generation, mounts, force=self._forced, rule=rule, ended=ended):
            self._say(ServiceState(self.service.name, "running", name, image, generation))

    async def _replace(
        self,
        batch: Batch,
        old: ContainerSummary | None,
        image: str,
        finished: BuildFinished | None,
        phases: dict[str, float],
        mounts: tuple[Mount, ...],
    ) -> None:
        service = self.service
        self._say(ServiceState(service.name, "starting", image=image))
        listed = self.generations.read()
        number = max(listed.next_number, generation_of(old) + 1 if old else 1)
        cause = words.named(batch.paths, self._folder) or (batch.rebuild if old else "")
        if cause == FIRST and old is not None:
            cause = "other settings"
        step = words.step_text(finished)
        spec = container_spec(
            self._shared.project,
            service,
            image=service.image,
            name=self.name,
            generation=number,
            log_path=self.log_path,
            mounts=mounts,
            hashed=self._hash,
        )
        why = words.Why(old.image_id, image, cause, step) if old else ""
        new = Next(spec, number, why, phases, self._overlaps(old))
        with self.generations.swapping():
            created = await self._swap.run(new, old)
            if entries := initial_entries(self.judge.rules()):
                await self._engine.sync(created, entries)
            paths = [words.shown(path, self._folder) for path in sorted(batch.paths)]
            accepted = made(number, image, spec, paths, step, phases)
            dropped = self._keeping.accept(accepted)
        new_image = old is None or old.image_id != image
        self._synced.clear()
        self._equal = ""
        if old is not None:
            seconds = time.monotonic() - batch.saved
            self._say(Replaced(service.name, self.name, number, new.rule, seconds, dict(phases), tuple(paths)))
        self._say(ServiceState(service.name, "running", self.name, image, number))
        self._shared.finish(self._keeping.settle(dropped))  # beside the rest, and also when that fails
        self._watch_end(created)
        self._shared.replaced(service.name, new_image and old is not None)
        await self._replicate(image, number, mounts, new.rule)

    def _overlaps(self, old: ContainerSummary | None) -> bool:
        why = "as you asked" if self._shared.stop_first else stops_first(self._shared.project, self.service)
        if why and old is not None and not self._stops_first_said:
            self._stops_first_said = True
            self._say(LoopNotice(f"the old container stops before the new one starts: {why}", self.service.name))
        return not why

    async def _build_behind(self) -> None:
        """After syncs: an image that has what was synced, for the next container. The one that runs goes on."""
        old = await self._container()
        begin = time.monotonic()
        try:
            image, finished = await self._making.image(quietly=True)
        except (BuildFailed, DockerfileError, InvalidInput, NotFound) as error:
            self._synced.clear()
            text = f"the image cannot be built as the container is now: {error.message}"
            self._say(LoopNotice(text, self.service.name))
            return
        paths, self._synced = sorted(self._synced.values()), {}
        if old is None or image == old.image_id:
            return
        self._equal = image
        number = self.generations.read().next_number
        phases = {"built": time.monotonic() - begin}
        spec = container_spec(
            self._shared.project,
            self.service,
            image=self.service.image,
            name=self.name,
            generation=number,
            log_path=self.log_path,
        )
        step = words.step_text(finished)
        accepted = made(number, image, spec, paths, step, phases, synced=True)
        dropped = self._keeping.accept(accepted)
        await self._keeping.settle(dropped)
        self._say(
            LoopNotice(f"generation {number} built behind: the next container has what was synced", self.service.name)
        )
        self._shared.replaced(self.service.name, True)

    # --- the end of a container -------------------------------------------------------------------------------

    def _watch_end(self, container: str) -> None:
        if self._mourner is not None:
            self._mourner.cancel()
        self._mourner = self._shared.spawn(self._mourn(container))

    async def _mourn(self, container: str) -> None:
        """Tells of its end, unless another one has its place by then."""
        with contextlib.suppress(EngineError):
            code: int | str = "unknown"
            with contextlib.suppress(Conflict, NotFound):
                code = await self._engine.wait(container)
            while (
                self._job is not None
            ):  # it may put another one in its place: then that is watched, and this task cancelled
                await asyncio.wait([self._job])
                await asyncio.sleep(0)
            now = await self._container()
            if now is not None and now.id == container and not now.running:
                text = f"exit code {code}"
                self._say(ServiceState(self.service.name, "exited", self.name, now.image_id, generation_of(now), text))
            elif now is not None and now.id != container and now.running:  # somebody else replaced it: a rollback
                number = generation_of(now)
                self._say(ServiceState(self.service.name, "running", self.name, now.image_id, number))
                self._watch_end(now.id)


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode
