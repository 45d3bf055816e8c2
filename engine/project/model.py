"""A project as the user already has it: services from a compose file, or one from a bare Dockerfile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.model import BuildRequest, ContainerSpec, EndpointSettings, NetworkSpec


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """How a service's image is built; the fields are those of `engine.model.BuildRequest`."""

    context: Path
    dockerfile: Path
    args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    contexts: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()  # beside the service's own image name
    ulimits: tuple[str, ...] = ()
    dockerfile_text: str | None = None  # `dockerfile_inline`


@dataclass(frozen=True, slots=True)
class Service:
    """`image` is what runs: the tag that `build` makes, or a name to pull. `spec` says how, but for the image, the name and
    the networks, which the project gives."""

    name: str
    image: str
    build: BuildSpec | None = None
    spec: ContainerSpec = field(default_factory=lambda: ContainerSpec(image=""))
    container_name: str = ""
    networks: Mapping[str, EndpointSettings] = field(default_factory=dict)  # by name here; none: the project's own
    network_mode: str = ""  # "", "host", "none", "bridge", "service:NAME", "container:NAME"
    depends_on: Mapping[str, str] = field(default_factory=dict)  # service: the condition to wait for


@dataclass(frozen=True, slots=True)
class ProjectNetwork:
    """A network of the project; with `external` one that must be there already."""

    spec: NetworkSpec
    external: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """`notes` name what the file says that is not supported yet, each with file and line. Services in start order."""

    name: str
    path: Path
    file: Path
    services: tuple[Service, ...]
    notes: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()  # what else was read: .env, env files, included, extended and override files
    networks: Mapping[str, ProjectNetwork] = field(
        default_factory=dict
    )  # by name in the file; empty: the default bridge


def build_request(build: BuildSpec, image: str) -> BuildRequest:
    return BuildRequest(
        build.context,
        build.dockerfile if build.dockerfile_text is None else None,
        (image, *build.tags),
        build.target,
        build.args,
        build.labels,
        no_cache=build.no_cache,
        pull=build.pull,
        dockerfile_text=build.dockerfile_text,
        contexts=build.contexts,
        network=build.network,
        add_hosts=build.add_hosts,
        ulimits=build.ulimits,
        shm_size=build.shm_size,
    )


def container_name(project: Project, service: Service) -> str:
    return service.container_name or f"{project.name}-{service.name}-1"


def container_spec(
    project: Project, service: Service, *, image: str, name: str, generation: int, log_path: str
) -> ContainerSpec:
    """What to run for one generation. `image` is pinned by id, so that a later tag does not change what an old container was."""
    labels = {
        **service.spec.labels,
        "com.docker.compose.project": project.name,
        "com.docker.compose.service": service.name,
        "com.docker.compose.container-number": "1",
        "com.docker.compose.project.working_dir": str(project.path),
        "com.docker.compose.project.config_files": str(project.file),
        "workbench.generation": str(generation),
        "workbench.config-hash": config_hash(service),
    }
    own = replace(service.spec, image=image, name=name, labels=labels, log_path=log_path)
    return replace(own, **network_fields(project, service))


def config_hash(service: Service) -> str:
    """Changes when the way a service is run does; not with its image or build."""
    document = {key: value for key, value in asdict(service).items() if key not in ("build", "image", "depends_on")}
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def network_fields(project: Project, service: Service) -> dict[str, Any]:
    """A service's part of the network: by its own name on each of its networks, so that others find it."""
    if service.network_mode:
        mode = service.network_mode
        if mode.startswith("service:"):
            other = next(each for each in project.services if each.name == mode.removeprefix("service:"))
            mode = f"container:{container_name(project, other)}"
        return {"network_mode": mode}
    if not project.networks:
        return {}
    wanted = service.networks or {"default": EndpointSettings()}
    networks = {
        project.networks[name].spec.name: replace(each, aliases=tuple(dict.fromkeys((service.name, *each.aliases))))
        for name, each in wanted.items()
    }
    return {"network_mode": next(iter(networks)), "networks": networks}
