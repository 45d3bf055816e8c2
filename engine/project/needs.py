"""Which services' images a service's build reads: `service:` contexts, FROM, COPY --from and mounts of a name that another
service of the project builds. Read from the Dockerfile, so a change of it may change the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from engine.build.dockerfile.words import expand
from engine.build.graph import find_source, plan_stages, references, target_index
from engine.build.reading import read_input
from engine.errors import EngineError
from engine.oci.reference import Reference
from engine.project.model import BuildSpec, Service, build_request


def with_needs(services: Mapping[str, Service]) -> dict[str, Service]:
    """The services with `needs_images` filled in."""
    makers: dict[str, str] = {}
    for service in services.values():
        if service.build:
            for tag in (service.image, *service.build.tags):
                makers.setdefault(_normal(tag), service.name)
    found = {}
    for service in services.values():
        needs = needed_images(service.build, makers) if service.build else frozenset()
        found[service.name] = dataclasses.replace(service, needs_images=needs - {service.name})
    return found


def needed_images(build: BuildSpec, makers: Mapping[str, str]) -> frozenset[str]:
    """`makers`: which service makes the image of a (normal) name."""
    needs = {where.removeprefix("service:") for where in build.contexts.values() if where.startswith("service:")}
    images = [where.removeprefix("docker-image://") for where in build.contexts.values() if "docker-image://" in where]
    try:
        images += [image for image in images_read(build) if image not in build.contexts]
    except EngineError:
        pass  # the build itself says what is wrong with the Dockerfile
    return frozenset(needs | {makers[name] for name in map(_normal, images) if name in makers})


def images_read(build: BuildSpec) -> Iterable[str]:
    """The images that building the target reads, as the Dockerfile names them. Raises `EngineError`."""
    source = read_input(build_request(build, "x"))
    dockerfile, scope = source.dockerfile, dict[str, str]()
    for arg in dockerfile.meta_args:
        for name, default in arg.pairs:
            scope[name] = build.args.get(name, expand(default or "", scope, dockerfile.escape))
    bases = {stage.index: expand(stage.base, scope, dockerfile.escape) for stage in dockerfile.stages}
    plans = plan_stages(dockerfile, target_index(dockerfile, build.target, str(source.file)), bases, str(source.file))
    found = [plan.base for plan in plans if plan.base_stage is None]
    for plan in plans:
        for instruction in plan.instructions:
            found += [
                name
                for name in references(instruction)
                if find_source(dockerfile, name, plan.stage.index, numbers=True) is None
            ]
    return found


def _normal(name: str) -> str:
    try:
        return str(Reference.parse(name))
    except EngineError:
        return name
