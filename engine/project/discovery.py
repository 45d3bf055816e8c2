"""Finds the project in a folder: a compose file, else a Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.build.dockerfile.ast import Expose
from engine.build.reading import read_dockerfile
from engine.errors import NotFound
from engine.model import ContainerSpec, PortBinding
from engine.network.ports import collect, parse_expose
from engine.project.compose.project import load_compose
from engine.project.model import BuildSpec, Project, Service

COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def project_name(folder: Path) -> str:
    """Compose's rule: lower case, `a-z 0-9 _ -`, beginning with a letter or digit."""
    return re.sub(r"^[_-]+", "", re.sub(r"[^a-z0-9_-]", "", folder.name.lower())) or "project"


def discover(
    folder: Path,
    *,
    files: Sequence[Path] = (),
    profiles: frozenset[str] = frozenset(),
    name: str = "",
    env_files: Sequence[Path] = (),
    named: frozenset[str] = frozenset(),
    directory: Path | None = None,
) -> Project:
    """The project in `folder`, or of the compose `files` given, whose relative paths begin at `directory` or at the first of them.
    `named` services are there whatever their profile. Raises `NotFound`, and what the files raise."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder", hint="give the folder that holds the compose.yaml or Dockerfile")
    directory = directory.resolve() if directory and files else None
    default = project_name(directory or (files[0].resolve().parent if files else folder))
    found = [file.resolve() for file in files] or compose_files(folder)
    if found:
        return load_compose(found, default, profiles, name=name, env_files=env_files, named=named, folder=directory)
    return _bare(folder, name or default)


def compose_files(folder: Path) -> list[Path]:
    """The compose file of a folder, and the override file beside it, which is read too."""
    for candidate in COMPOSE_FILES:
        if (folder / candidate).is_file():
            stem, _, ending = candidate.rpartition(".")
            overrides = [folder / f"{stem}.override.{end}" for end in dict.fromkeys((ending, "yaml", "yml"))]
            return [folder / candidate, *[o for o in overrides if o.is_file()][:1]]
    return []


def _bare(folder: Path, name: str) -> Project:
    dockerfile = folder / "Dockerfile"
    if not dockerfile.is_file():
        raise NotFound(
            f"{folder} holds neither a compose.yaml nor a Dockerfile",
            hint="go to your project's folder, or try `workbench demo`",
        )
    parsed = read_dockerfile(dockerfile)
    words = [port for i in parsed.stages[-1].instructions if isinstance(i, Expose) for port in i.ports]
    ports = [port for word in words if word.split("/")[0].replace("-", "").isdigit() for port in parse_expose(word)]
    bindings = collect((port, PortBinding("", port.partition("/")[0])) for port in ports if not port.endswith("/sctp"))
    service = Service(
        "app", f"{name}-app", BuildSpec(folder, dockerfile), ContainerSpec(image="", port_bindings=bindings)
    )
    return Project(name, folder, dockerfile, (service,))
