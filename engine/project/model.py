"""A project as the user already has it: services from a compose file, or one from a bare Dockerfile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from engine.model import ContainerSpec, Mount


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
    ports: tuple[str, ...] = ()
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
class Project:
    """`notes` name what the file says that is not supported yet, each with file and line. Services in start order."""

    name: str
    path: Path
    file: Path
    services: tuple[Service, ...]
    notes: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()


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
        ports=service.ports,
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
