"""A project's containers, networks and volumes as the engine has them, by their labels: found, stopped, removed.

Works without the project's files: what `up` has made can be taken down when they are gone or do not parse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from engine.api import ContainerSummary, Engine
from engine.errors import EngineError, NotFound
from engine.project.hooks import before_stop, run_hooks
from engine.project.model import Project, Service

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONEOFF = "com.docker.compose.oneoff"
DEPENDS = "com.docker.compose.depends_on"
Say = Callable[[str, str], None]  # what ("Container web-1"), how it went ("Removed")


async def project_containers(
    engine: Engine, name: str, services: Collection[str] = (), *, all: bool = True, oneoff: bool = False
) -> list[ContainerSummary]:
    """By service and number. `all` False: those that run; `oneoff`: those of `run` too."""
    found = [
        container
        for container in await engine.containers(all=True)
        if container.labels.get(PROJECT) == name
        and (not services or service_of(container) in services)
        and (all or container.running)
        and (oneoff or container.labels.get(ONEOFF) != "True")
    ]
    return sorted(found, key=lambda c: (service_of(c), number_of(c), c.created))


def service_of(container: ContainerSummary) -> str:
    return container.labels.get(SERVICE, "")


def number_of(container: ContainerSummary) -> int:
    text = container.labels.get(NUMBER, "1")
    return int(text) if text.isdigit() else 1


def stop_order(containers: Sequence[ContainerSummary]) -> list[list[ContainerSummary]]:
    """Groups that may be stopped at once: what depends on others before them, as their labels say."""
    needs = {service_of(c): _depends(c) for c in containers}
    left, groups = list(containers), []
    while left:
        needed = {other for c in left for other in needs[service_of(c)] if other != service_of(c)}
        group = [c for c in left if service_of(c) not in needed] or left  # a circle: all at once
        groups.append(group)
        left = [c for c in left if c not in group]
    return groups


def _depends(container: ContainerSummary) -> set[str]:
    return {entry.partition(":")[0] for entry in container.labels.get(DEPENDS, "").split(",") if entry}


def restarted_with(containers: Sequence[ContainerSummary], services: Collection[str]) -> set[str]:
    """`services`, and those whose `depends_on` says that they restart with one of them, as their containers' labels have it."""
    found, more = set(services), set(services)
    while more:
        more = {
            service_of(container)
            for container in containers
            for entry in container.labels.get(DEPENDS, "").split(",")
            if entry.endswith(":true") and entry.partition(":")[0] in more
        } - found
        found |= more
    return found


@dataclass(slots=True)
class Outcome:
    failed: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        return 1 if self.failed else 0


async def each_container(
    groups: Sequence[Sequence[ContainerSummary]],
    act: Callable[[ContainerSummary], Awaitable[object]],
    say: Say,
    done: str,
) -> Outcome:
    """`act` on every container, a group at once, groups in order; what fails is told, and the rest goes on."""
    outcome = Outcome()

    async def one(container: ContainerSummary) -> None:
        try:
            await act(container)
        except NotFound:
            pass
        except EngineError as error:
            outcome.failed.append(container.name)
            say(f"Container {container.name}", f"Error: {error.message}")
            return
        say(f"Container {container.name}", done)

    for group in groups:
        await asyncio.gather(*(one(container) for container in group))
    return outcome


async def stop(
    engine: Engine, project: Project | None, container: ContainerSummary, timeout: int | None, say: Say
) -> None:
    """With the service's `pre_stop` hooks before it, where the project's files say them."""
    await _before_stop(engine, project, container, say)
    await engine.stop(container.id, timeout=timeout)


async def start(engine: Engine, project: Project | None, container: ContainerSummary) -> None:
    """With the service's `post_start` hooks after it. Raises `EngineError`."""
    await engine.start(container.id)
    await _after_start(engine, project, container)


async def restart(
    engine: Engine, project: Project | None, container: ContainerSummary, timeout: int | None, say: Say
) -> None:
    """With both hooks. Raises `EngineError`."""
    if container.running:
        await _before_stop(engine, project, container, say)
    await engine.restart(container.id, timeout=timeout)
    await _after_start(engine, project, container)


def _service(project: Project | None, container: ContainerSummary) -> Service | None:
    services = (*project.services, *project.others) if project else ()
    return next((service for service in services if service.name == service_of(container)), None)


async def _before_stop(engine: Engine, project: Project | None, container: ContainerSummary, say: Say) -> None:
    service = _service(project, container)
    if service and (trouble := await before_stop(engine, container.id, service.pre_stop)):
        say(f"Container {container.name}", trouble)


async def _after_start(engine: Engine, project: Project | None, container: ContainerSummary) -> None:
    if service := _service(project, container):
        await run_hooks(engine, container.id, service.post_start, "post_start")


async def down(
    engine: Engine,
    name: str,
    project: Project | None,
    say: Say,
    *,
    services: Collection[str] = (),
    timeout: int | None = None,
    volumes: bool = False,
    images: Literal["", "all", "local"] = "",
    orphans: bool = False,
) -> Outcome:
    """Stops and removes the project's containers and networks, with `volumes` its volumes, with `images` its images.
    Containers of services that the project does not have (any more) stay unless `orphans`."""
    containers = await project_containers(engine, name, services, oneoff=not services)
    if project is not None and not orphans:
        known = {service.name for service in (*project.services, *project.others)}
        strange = [c for c in containers if service_of(c) not in known]
        if strange:
            say(f"Orphans {', '.join(c.name for c in strange)}", "left: --remove-orphans removes them")
        containers = [c for c in containers if c not in strange]

    async def end(container: ContainerSummary) -> None:
        if container.running:
            await stop(engine, project, container, timeout, say)
        await engine.remove(container.id, force=True, volumes=True)

    outcome = await each_container(stop_order(containers), end, say, "Removed")
    if services:
        return outcome
    await _networks(engine, name, say, outcome)
    if volumes:
        await _volumes(engine, name, project, say, outcome)
    if images:
        await _images(engine, containers, project, images, say, outcome)
    return outcome


async def _networks(engine: Engine, name: str, say: Say, outcome: Outcome) -> None:
    for network in await engine.networks({"label": [f"{PROJECT}={name}"]}):
        await _remove(f"Network {network.name}", engine.remove_network(network.id), say, outcome)


async def _volumes(engine: Engine, name: str, project: Project | None, say: Say, outcome: Outcome) -> None:
    external = {volume.name for volume in project.volumes.values() if volume.external} if project else set()
    for volume in await engine.volumes({"label": [f"{PROJECT}={name}"]}):
        if volume.name not in external:
            await _remove(f"Volume {volume.name}", engine.remove_volume(volume.name), say, outcome)


async def _images(
    engine: Engine,
    containers: Sequence[ContainerSummary],
    project: Project | None,
    which: Literal["all", "local"],
    say: Say,
    outcome: Outcome,
) -> None:
    """`local`: only those that have no name of their own in the file."""
    services = project.services if project else ()
    names = {service.image for service in services} | {container.image for container in containers}
    if which == "local":
        own = {s.image for s in services if s.build and s.image == f"{project.name if project else ''}-{s.name}"}
        names &= own
    for service in services:  # the images of the generations before
        await engine.keep_images(f"{project.name if project else ''}-{service.name}", [])
    for container in containers:
        names.add(container.image_id)
    for image in sorted(names):
        try:
            await engine.image(image)
        except EngineError:
            continue
        await _remove(f"Image {image}", engine.remove_image(image), say, outcome)


async def _remove(what: str, work: Awaitable[object], say: Say, outcome: Outcome) -> None:
    try:
        await work
    except NotFound:
        return
    except EngineError as error:
        outcome.failed.append(what)
        say(what, f"Error: {error.message}")
        return
    say(what, "Removed")
