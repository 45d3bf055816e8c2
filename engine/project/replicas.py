"""The second and further containers of a service that is scaled. The first one is the service loop's: it is replaced first, and only
when it is ready do these follow, one after the other, each stopped before its next one starts."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from engine.api import ContainerSpec, ContainerSummary, Engine, Mount
from engine.errors import EngineError, NotFound
from engine.project.control import NUMBER, number_of, project_containers
from engine.project.hooks import before_stop, run_hooks
from engine.project.model import Project, Service, config_hash, container_name, container_spec


@dataclass(frozen=True, slots=True)
class Replicas:
    """`state` is the project's folder: each container has a log of its own there."""

    engine: Engine
    project: Project
    service: Service
    state: Path

    async def ensure(
        self,
        image: str,
        generation: int,
        mounts: tuple[Mount, ...],
        *,
        force: bool = False,
        rule: str = "",
        ended: bool = False,
    ) -> list[str]:
        """As many as the service is scaled to, of this image. The names of those that were started; `rule` stands in the log of each
        one that was another before; `ended`: those that have ended stay so. Raises `EngineError`."""
        have = await self._have()
        for number, container in have.items():
            if number > max(self.service.scale, 1):
                await self._end(container)
        started = []
        for number in range(2, self.service.scale + 1):
            old = have.get(number)
            if old and not force and old.image_id == image and self._same(old):
                if not old.running and not ended:
                    await self._again(old)
                    started.append(old.name)
                continue
            started.append(await self._replace(number, old, generation, mounts, rule))
        return started

    async def remove_all(self) -> None:
        """For a service that is scaled to none."""
        for container in await project_containers(self.engine, self.project.name, [self.service.name]):
            await self._end(container)

    async def restart(self) -> None:
        for number, container in (await self._have()).items():
            if number > 1:
                await self.engine.restart(container.id)

    async def _have(self) -> dict[int, ContainerSummary]:
        found = await project_containers(self.engine, self.project.name, [self.service.name])
        return {number_of(c): c for c in found if c.name == container_name(self.project, self.service, number_of(c))}

    def _same(self, old: ContainerSummary) -> bool:
        return old.labels.get("workbench.config-hash") == config_hash(self.service)

    async def _again(self, container: ContainerSummary) -> None:
        await self.engine.start(container.id)
        log = self._log(number_of(container))
        await run_hooks(self.engine, container.id, self.service.post_start, "post_start", log)

    async def _end(self, container: ContainerSummary) -> None:
        with contextlib.suppress(NotFound):
            if container.running:
                await before_stop(self.engine, container.id, self.service.pre_stop)
                await self.engine.stop(container.id, hurry=True)
            await self.engine.remove(container.id, force=True)

    async def roll(self, spec: ContainerSpec, rule: str) -> None:
        """Each becomes what `spec` (the first one's) says, as many as there are."""
        for number, container in (await self._have()).items():
            if number > 1:
                log_path = self._log(number)
                labels = {**spec.labels, NUMBER: str(number)}
                name = container_name(self.project, self.service, number)
                again = replace(spec, name=name, labels=labels, log_path=log_path)
                await self._exchange(container, again, rule)

    def _log(self, number: int) -> str:
        return str(self.state / f"{self.service.name}-{number}.log")

    async def _replace(
        self, number: int, old: ContainerSummary | None, generation: int, mounts: tuple[Mount, ...], rule: str
    ) -> str:
        name = container_name(self.project, self.service, number)
        spec = container_spec(
            self.project,
            self.service,
            image=self.service.image,
            name=name,
            generation=generation,
            log_path=self._log(number),
            number=number,
            mounts=mounts,
        )
        await self._exchange(old, spec, rule)
        return name

    async def _exchange(self, old: ContainerSummary | None, spec: ContainerSpec, rule: str) -> None:
        """The next one is there before the old one goes: a log stays as long as a container writes into it."""
        if old is None:
            created = await self.engine.create(spec)
        else:
            aside = f"{spec.name}-next"
            with contextlib.suppress(NotFound):
                await self.engine.remove(aside, force=True)  # left by a crash
            created = await self.engine.create(replace(spec, name=aside))
            await self._end(old)
            await self.engine.rename(created, spec.name)
            if rule:
                await self.engine.write_rule(spec.log_path, rule)
        try:
            await self.engine.start(created)
        except EngineError:
            await self.engine.remove(created, force=True)
            raise
        await run_hooks(self.engine, created, self.service.post_start, "post_start", spec.log_path)
