"""A project as the user already has it: services from a compose file, or one from a bare Dockerfile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.model import ContainerSpec, EndpointSettings, Mount, NetworkSpec, PortBinding


@dataclass(frozen=True, slots=True)
class BuildSpec:
    context: Path
    dockerfile: Path
    args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """`image` is what runs: the tag that `build` makes, or a name to pull."""

    name: str
    image: str
    build: BuildSpec | None = None
    container_name: str = ""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    port_bindings: Mapping[str, tuple[PortBinding, ...]] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    networks: Mapping[str, EndpointSettings] = field(default_factory=dict)  # by name here; none: the project's own
    network_mode: str = ""  # "", "host", "none", "bridge", "service:NAME", "container:NAME"
    hostname: str = ""
    domainname: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    mac_address: str = ""
    mounts: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    memory: int = 0
    cpus: float = 0.0
    pids_limit: int = 0
    read_only: bool = False
    tty: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()


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
    env_files: tuple[Path, ...] = ()
    networks: Mapping[str, ProjectNetwork] = field(
        default_factory=dict
    )  # by name in the file; empty: the default bridge


def container_name(project: Project, service: Service) -> str:
    return service.container_name or f"{project.name}-{service.name}-1"


def container_spec(
    project: Project, service: Service, *, image: str, name: str, generation: int, log_path: str
) -> ContainerSpec:
    """What to run for one generation. `image` is pinned by id, so that a later tag does not change what an old container was."""
    spec = ContainerSpec(
        image=image,
        name=name,
        command=service.command,
        entrypoint=service.entrypoint,
        env=service.env,
        user=service.user,
        working_dir=service.working_dir,
        tty=service.tty,
        mounts=service.mounts,
        **network_fields(project, service),
        read_only=service.read_only,
        privileged=service.privileged,
        cap_add=service.cap_add,
        cap_drop=service.cap_drop,
        memory=service.memory,
        cpus=service.cpus,
        pids_limit=service.pids_limit,
        stop_signal=service.stop_signal,
        stop_timeout=service.stop_timeout,
        log_path=log_path,
    )
    labels = {
        **service.labels,
        "com.docker.compose.project": project.name,
        "com.docker.compose.service": service.name,
        "com.docker.compose.container-number": "1",
        "com.docker.compose.project.working_dir": str(project.path),
        "com.docker.compose.project.config_files": str(project.file),
        "workbench.generation": str(generation),
        "workbench.config-hash": config_hash(service),
    }
    return replace(spec, labels=labels)


def config_hash(service: Service) -> str:
    """Changes when the way a service is run does; not with its image or build."""
    document = {key: value for key, value in asdict(service).items() if key not in ("build", "image", "depends_on")}
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def network_fields(project: Project, service: Service) -> dict[str, Any]:
    """A service's part of the network: by its own name on each of its networks, so that others find it."""
    fields: dict[str, Any] = {
        "port_bindings": service.port_bindings,
        "exposed_ports": service.exposed_ports,
        "hostname": service.hostname,
        "domainname": service.domainname,
        "dns": service.dns,
        "dns_search": service.dns_search,
        "dns_options": service.dns_options,
        "extra_hosts": service.extra_hosts,
        "mac_address": service.mac_address,
    }
    if service.network_mode:
        mode = service.network_mode
        if mode.startswith("service:"):
            other = next(each for each in project.services if each.name == mode.removeprefix("service:"))
            mode = f"container:{container_name(project, other)}"
        return {**fields, "network_mode": mode}
    if not project.networks:
        return fields
    wanted = service.networks or {"default": EndpointSettings()}
    networks = {
        project.networks[name].spec.name: replace(each, aliases=tuple(dict.fromkeys((service.name, *each.aliases))))
        for name, each in wanted.items()
    }
    return {**fields, "network_mode": next(iter(networks)), "networks": networks}
