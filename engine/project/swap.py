"""Replaces a service's container by its next generation.

The next one starts beside the old one, without its names and published ports; when it is ready (`engine.project.ready`) it takes both
over, and only then does the old one stop. If it dies or does not become ready it is removed, and the old one never noticed.

Two containers of a service cannot always run beside each other. The old one stops first, and runs again when the new one does not
start, where the user said so (`up --stop-first`), and where the project itself says that there can be only one:
- a network that is the host's or another container's, a fixed address: both would be at the same place;
- a volume, or a folder of the host outside the project, that the service may write: a database's files belong to one process
  (folders of the project are sources, and fine);
- devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.api import ContainerSpec, ContainerSummary, Engine, LogLine, LoopEvent, LoopNotice, ServiceState
from engine.errors import EngineError, NotFound, StartFailed, Unsupported
from engine.project import words
from engine.project.hooks import before_stop, run_hooks
from engine.project.model import Project, Service
from engine.project.ready import NotReady, Wanted, await_ready, check_command

LAST_LINES = 8
_SLOW_STOP = 1.0  # seconds
_KILLED = 137
_SHARED_NETWORKS = ("host", "container:", "service:")


def stops_first(project: Project, service: Service) -> str:
    """Why two containers of the service cannot run beside each other; "" when they can."""
    if service.network_mode.startswith(_SHARED_NETWORKS):
        return f"network_mode {service.network_mode}"
    if any(each.ipv4_address or each.ipv6_address or each.mac_address for each in service.networks.values()):
        return "a fixed address"
    if service.spec.mac_address:
        return "a fixed address"
    for mount in service.spec.mounts:
        if mount.read_only:
            continue
        if mount.type == "volume" and mount.source:
            return f"the volume {mount.source}"
        if mount.type == "bind" and not Path(mount.source).is_relative_to(project.path):
            return f"the folder {mount.source}"
    return "devices" if service.spec.devices else ""


@dataclass(slots=True)
class Next:
    """What is to run: the spec under the service's own name, and its number. `why` gives the rule that stands before its first line in
    the log ("" for a first one); `rule` is that text, once it is written."""

    spec: ContainerSpec
    generation: int
    why: words.Why | str = ""
    phases: dict[str, float] = field(default_factory=dict)  # filled in: created, started, healthy
    overlap: bool = True
    rule: str = ""


class Swap:
    """`say` hears what happens; `spawn` takes work that goes on to its end, whoever waits for it (the old container's stop); `retired` is
    done when an old container is gone."""

    def __init__(
        self,
        engine: Engine,
        service: Service,
        say: Callable[[LoopEvent], None],
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
        retired: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._engine, self.service, self._say, self._spawn, self._retired = engine, service, say, spawn, retired
        self._killed = False  # an old one was, and that was told
        self._alone = False  # the engine cannot have two beside each other
        self.standing = False  # the new container may still be given up: newer changes may cancel

    async def run(self, new: Next, old: ContainerSummary | None) -> str:
        """The new container's id. Raises `StartFailed` and others; what ran before then runs. Cancelled while `standing`, the
        new container is removed."""
        if old is None:
            return await self._first(new)
        if not old.running:
            return await self._after(new, old)
        try:
            beside = new.overlap and not self._alone
            return await (self._beside(new, old) if beside else self._stop_first(new, old))
        except StartFailed as error:
            await self._tell_failure(new, old, error)
            raise

    async def _tell_failure(self, new: Next, old: ContainerSummary, error: StartFailed) -> None:
        with contextlib.suppress(EngineError):
            text = words.failed(new.generation, error.message.splitlines()[0], goes_on=generation_of(old))
            await self._engine.write_rule(new.spec.log_path, text)

    async def _create(self, new: Next, name: str) -> str:
        with contextlib.suppress(NotFound):
            await self._engine.remove(name, force=True)  # left by a crash
        return await self._engine.create(replace_name(new.spec, name))

    async def _first(self, new: Next) -> str:
        clock = _Clock(new.phases)
        created = await self._engine.create(new.spec)
        try:
            await self._engine.start(created)
            await self._after_start(created, new)
        except EngineError:
            await self._engine.remove(created, force=True)
            raise
        clock.tick("started")
        return created

    async def _after(self, new: Next, old: ContainerSummary) -> str:
        """The one before has ended: its name is all that it still has."""
        clock = _Clock(new.phases)
        created = await self._create(new, f"{new.spec.name}-next")
        try:
            await self._write(new)
            await self._engine.start(created)
            await self._after_start(created, new)
            clock.tick("started")
        except EngineError:
            await self._engine.remove(created, force=True)
            raise
        with contextlib.suppress(NotFound):
            await self._engine.remove(old.id, force=True)
        await self._engine.rename(created, new.spec.name)
        return created

    async def _write(self, new: Next) -> None:
        new.rule = new.why if isinstance(new.why, str) else words.rule(new.why, sum(new.phases.values()))
        if new.rule:
            await self._engine.write_rule(new.spec.log_path, new.rule)

    # --- beside -----------------------------------------------------------------------------------------

    async def _beside(self, new: Next, old: ContainerSummary) -> str:
        clock = _Clock(new.phases)
        created = await self._create(new, f"{new.spec.name}-next")
        try:
            clock.tick("created")
            await self._write(new)
            try:
                await self._engine.start(created, standby=True)
            except Unsupported as error:  # an engine that cannot: then one after the other, from now on
                await self._engine.remove(created, force=True)
                self._alone = True
                self._say(
                    LoopNotice(f"{error.message}: the old one stops before the new one starts", self.service.name)
                )
                return await self._stop_first(new, old, written=True)
            clock.tick("started")
            self.standing = True
            try:
                await self._after_start(created, new)
                wanted = await self._wanted(created, old)
                await await_ready(self._engine, created, wanted, self._waiting)
            finally:
                self.standing = False
            clock.tick("healthy")
        except StartFailed as error:
            raise await self._give_up(created, error) from error
        except BaseException:
            await asyncio.shield(self._spawn(self._remove(created)))
            raise
        await asyncio.shield(self._spawn(self._take_over(new, created, old)))
        return created

    def _waiting(self, text: str) -> None:
        self._say(ServiceState(self.service.name, "starting", text=text))

    async def _wanted(self, created: str, old: ContainerSummary) -> Wanted:
        detail = await self._engine.container(created)
        if check := check_command(detail.config):
            return Wanted(check=check)
        bound = {int(port.partition("/")[0]) for port in detail.spec.port_bindings if not port.endswith("/udp")}
        exposed = {port.private_port for port in detail.summary.published if port.type == "tcp"}
        known = frozenset(bound | exposed)
        if not known:
            return Wanted()
        open_before = await self._engine.listening(old.id) & known
        return Wanted(ports=open_before) if open_before else Wanted(some=known)

    async def _take_over(self, new: Next, created: str, old: ContainerSummary) -> None:
        name = new.spec.name
        aside = f"{name}-before-{new.generation}"
        with contextlib.suppress(NotFound):
            await self._engine.remove(aside, force=True)
        await self._engine.take_over(created, old.id, aside=aside)
        self._spawn(self._retire(old))

    async def _give_up(self, created: str, error: StartFailed) -> StartFailed:
        """The error, with what the container said last; it is removed."""
        lines = await last_lines(self._engine, created)
        await self._remove(created)
        text = "\n".join([error.message, *(f"  {line}" for line in lines)])
        kind = NotReady if isinstance(error, NotReady) else StartFailed
        return kind(text, exit_code=error.exit_code, hint=error.hint)

    async def _remove(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            await self._engine.remove(name, force=True)

    async def _retire(self, old: ContainerSummary) -> None:
        with contextlib.suppress(EngineError):
            await self.stop(old)
            await self._engine.remove(old.id, force=True)
        if self._retired is not None:
            await self._retired()

    async def _after_start(self, created: str, new: Next) -> None:
        await run_hooks(self._engine, created, self.service.post_start, "post_start", new.spec.log_path)

    async def stop(self, old: ContainerSummary) -> None:
        """With its hooks; the first time that its signal does not end it, why is told."""
        if trouble := await before_stop(self._engine, old.id, self.service.pre_stop):
            self._say(LoopNotice(trouble, self.service.name))
        began = asyncio.get_running_loop().time()
        deaf = await self._engine.stop(old.id, hurry=True)
        seconds = asyncio.get_running_loop().time() - began
        if not self._killed and (text := words.DEAF if deaf else await self._ignored(old, seconds)):
            self._killed = True
            self._say(LoopNotice(text, self.service.name))

    async def _ignored(self, old: ContainerSummary, seconds: float) -> str:
        """What there is to say of a stop that took `seconds`."""
        if seconds < _SLOW_STOP:
            return ""
        with contextlib.suppress(EngineError):
            detail = await self._engine.container(old.id)
            if detail.summary.exit_code == _KILLED:
                config = detail.config["Config"]
                signal = str(config.get("StopSignal") or "SIGTERM") if isinstance(config, Mapping) else ""
                return words.ignored(detail.summary.command, signal, seconds)
        return ""

    # --- one after the other ------------------------------------------------------------------------------

    async def _stop_first(self, new: Next, old: ContainerSummary, *, written: bool = False) -> str:
        """`written`: the rule stands in the log already."""
        created = await self._create(new, f"{new.spec.name}-next")
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def exchange() -> None:
            try:
                done.set_result(await self._exchange(new, created, old, written))
            except Exception as error:  # told to who waits, which is nobody after a cancellation
                done.set_exception(error)

        self._spawn(exchange())
        return await asyncio.shield(done)

    async def _exchange(self, new: Next, created: str, old: ContainerSummary, written: bool) -> str:
        clock = _Clock(new.phases)
        await self.stop(old)
        clock.tick("stopped")
        if not written:
            await self._write(new)
        try:
            await self._engine.start(created)
            await self._after_start(created, new)
            clock.tick("started")
            wanted = Wanted(check=check_command((await self._engine.container(created)).config))
            await await_ready(self._engine, created, wanted, self._waiting)
            clock.tick("healthy")
        except EngineError as error:
            failure = error
            if isinstance(error, StartFailed):
                failure = await self._give_up(created, error)
            await self._remove(created)
            await self._engine.start(old.id)
            raise failure from error
        with contextlib.suppress(NotFound):
            await self._engine.remove(old.id, force=True)
        await self._engine.rename(created, new.spec.name)
        return created


class _Clock:
    def __init__(self, phases: dict[str, float]) -> None:
        self._phases, self._last = phases, asyncio.get_running_loop().time()

    def tick(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        self._phases[name], self._last = now - self._last, now


def replace_name(spec: ContainerSpec, name: str) -> ContainerSpec:
    return dataclasses.replace(spec, name=name)


def generation_of(container: ContainerSummary) -> int:
    text = container.labels.get("workbench.generation", "1")
    return int(text) if text.isdigit() else 1


async def last_lines(engine: Engine, name: str) -> list[str]:
    """What a container said last, as far as it was it: its service's log goes on over generations."""
    lines: list[LogLine] = []
    with contextlib.suppress(EngineError):
        started = (await engine.container(name)).summary.started
        lines = [line async for line in engine.logs(name, tail=LAST_LINES, since=started)]
    return [line.text for line in lines if line.stream != "workbench"]
