"""A project as one command wants it: some of its services, other numbers of containers, another way to get images (pure)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from engine.errors import InvalidInput
from engine.project.model import Project, Service


def select(project: Project, names: Collection[str], *, dependencies: bool = True) -> Project:
    """Only these services (none: all) and what they need, in start order. Raises `NotFound`."""
    if not names:
        return project
    wanted: set[str] = set()
    pending = [project.service(name).name for name in names]
    while pending:
        name = pending.pop()
        if name in wanted:
            continue
        wanted.add(name)
        service = project.service(name)
        pending += sorted(service.needs_images | (needed(service) if dependencies else set()))
    present = {service.name for service in project.services}
    chosen = tuple(service for service in project.services if service.name in wanted & present)
    others = tuple(service for service in project.services if service.name not in wanted)
    return replace(project, services=chosen, others=others)


def needed(service: Service) -> set[str]:
    """The services that it cannot run without, though it may be built without them."""
    modes = (service.network_mode, service.spec.pid_mode, service.spec.ipc_mode)
    shared = {mode.removeprefix("service:") for mode in modes if mode.startswith("service:")}
    linked = {text.partition(":")[0] for text in (*service.links, *service.volumes_from)}
    return {*service.depends_on, *shared, *linked} - service.optional


def scaled(project: Project, counts: Mapping[str, int]) -> Project:
    """`--scale web=3`. Raises `NotFound`, `InvalidInput`."""
    for name, count in counts.items():
        service = project.service(name)
        if count < 0:
            raise InvalidInput(f"{count} containers of {name} cannot be run")
        if count > 1 and service.container_name:
            raise InvalidInput(
                f"{name} has a container_name, and {count} containers are asked for", hint="leave container_name out"
            )
    return replace(project, services=tuple(replace(s, scale=counts.get(s.name, s.scale)) for s in project.services))


def pulled(project: Project, policy: str) -> Project:
    """`--pull always|missing|never|build` for every service that names an image."""
    if policy not in ("always", "missing", "never", "build", "policy"):
        raise InvalidInput(f"--pull {policy!r} is none of always, missing, never, policy")
    if policy == "policy":
        return project
    return replace(project, services=tuple(replace(s, pull_policy=policy) for s in project.services))


def unbuilt(project: Project) -> Project:
    """`--no-build`: images are taken as they are; nothing is built, and so nothing is watched for builds."""
    return replace(
        project,
        services=tuple(
            replace(s, build=None, watch=(), pull_policy="never") if s.build else s for s in project.services
        ),
    )
