"""The project of one or several compose files: its services in start order, its networks, what is left out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.model import IpamConfig, NetworkSpec
from engine.project.compose.load import load, project_environment
from engine.project.compose.mounts import named
from engine.project.compose.positions import Map, Place, problem
from engine.project.compose.services import Services
from engine.project.compose.values import flag, mapping, text
from engine.project.model import Project, ProjectNetwork, ProjectVolume, Service
from engine.project.needs import with_needs

_NETWORK_KEYS = {
    "name",
    "driver",
    "driver_opts",
    "external",
    "internal",
    "attachable",
    "enable_ipv6",
    "enable_ipv4",
    "ipam",
    "labels",
}


def load_compose(
    files: Sequence[Path],
    default_name: str,
    profiles: frozenset[str] = frozenset(),
    *,
    name: str = "",
    env_files: Sequence[Path] = (),
    named: frozenset[str] = frozenset(),
    folder: Path | None = None,
) -> Project:
    """`name` wins over the file's own; `named` services are there whatever their profile; `folder`: what relative paths begin at,
    if not at the first file. Raises `DockerfileError` (with file, line and column) and `InvalidInput`."""
    folder = folder or files[0].parent
    env, dotenv = project_environment(folder, env_files, os.environ)
    default_name = name or env.get("COMPOSE_PROJECT_NAME") or default_name
    loaded = load(files, folder, {**env, "COMPOSE_PROJECT_NAME": default_name})
    notes = list(loaded.notes)

    def note(what: str, place: Place) -> None:
        notes.append(f"not supported, left out: {what} ({place})")

    document = loaded.document
    if "models" in document:
        note("models: there is no model runner here", document.where("models"))
    project = name or text(document.get("name")) or default_name
    body = document.get("services")
    if not isinstance(body, Map) or not body:
        raise problem(
            document.place, "a compose file needs a mapping of services", "services:\n    web:\n      build: ."
        )
    active = profiles | frozenset(filter(None, env.get("COMPOSE_PROFILES", "").split(",")))
    reader = Services(document, project, {**env, "COMPOSE_PROJECT_NAME": project}, note)
    wanted = {key for key, value in body.items() if key in named or _wanted(value, active)}
    found = {key: reader.read(key, value) for key, value in body.items() if key in wanted}
    _read_images(found, body, reader)
    networks = _networks(document, project, note)
    volumes = _volumes(document, project, note)
    for service in found.values():
        _check(service, body, found, networks)
    found = with_needs(found)
    files_read = [*loaded.files, *dotenv, *reader.env_files]
    others = tuple(dict.fromkeys(path for path in files_read if path != files[0]))
    return Project(
        project,
        folder,
        files[0],
        _ordered(found, body),
        tuple(dict.fromkeys(notes)),
        others,
        networks,
        _used(volumes, found),
        tuple(files),
        {**document, "name": project, "services": {key: body[key] for key in found}},
    )


def _read_images(found: dict[str, Service], body: Map, reader: Services) -> None:
    """Services whose image is a context of another one are built with it, though their profile is not active."""
    pending = list(found.values())
    while pending:
        service = pending.pop()
        for where in service.build.contexts.values() if service.build else ():
            name = where.removeprefix("service:")
            if name == where or name in found:
                continue
            if name not in body:
                raise problem(
                    body.where(service.name), f"service {service.name!r} builds on {name!r}, which is not there"
                )
            found[name] = replace(reader.read(name, body[name]), scale=0)
            pending.append(found[name])


def _wanted(body: Any, active: frozenset[str]) -> bool:
    wanted = set(body.get("profiles") or ()) if isinstance(body, Map) else set()
    return not wanted or "*" in active or bool(wanted & active)


def _check(
    service: Service, body: Map, services: Mapping[str, Service], networks: Mapping[str, ProjectNetwork]
) -> None:
    place = body.where(service.name)
    where = f"service {service.name!r}"
    for name in service.networks:
        if name not in networks:
            raise problem(place, f"{where} refers to undefined network {name}", "add it under networks:")
    if service.network_mode and service.networks:
        raise problem(place, f"{where} declares mutually exclusive `network_mode` and `networks`")
    for what, mode in (
        ("network", service.network_mode),
        ("processes", service.spec.pid_mode),
        ("IPC objects", service.spec.ipc_mode),
    ):
        kind, _, other = mode.partition(":")
        if kind == "service" and other not in services:
            raise problem(place, f"{where} shares the {what} of {other!r}, which is not there")
    for other in (entry.partition(":")[0] for entry in (*service.links, *service.volumes_from)):
        if other not in services:
            raise problem(place, f"{where} refers to {other!r}, which is not there")
    for name in service.build.contexts.values() if service.build else ():
        other = name.removeprefix("service:")
        if other != name and services[other].build is None:
            raise problem(
                place, f"{where} builds on {other!r}, which has no build", "use docker-image://NAME for an image"
            )


def _ordered(services: Mapping[str, Service], body: Map) -> tuple[Service, ...]:
    order: list[Service] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if services[name] in order:
            return
        if name in path:
            raise problem(body.where(name), f"services depend on each other: {' → '.join([*path, name])}")
        path.append(name)
        for need in (*services[name].depends_on, *sorted(_shares(services[name]))):
            if need not in services:
                settings = (body[name].get("depends_on") or {}).get(need) or {}
                if isinstance(settings, Map) and settings.get("required") is False:
                    continue
                hint = "its profile is not active: COMPOSE_PROFILES=…" if need in body else None
                raise problem(body.where(name), f"service {name!r} depends on {need!r}, which is not there", hint)
            visit(need)
        path.pop()
        order.append(services[name])

    for name in services:
        visit(name)
    return tuple(order)


def _shares(service: Service) -> set[str]:
    """What has to be there before this one, though `depends_on` does not say so."""
    modes = (service.network_mode, service.spec.pid_mode, service.spec.ipc_mode)
    shared = {mode.removeprefix("service:") for mode in modes if mode.startswith("service:")}
    return (
        shared | service.needs_images | {entry.partition(":")[0] for entry in (*service.links, *service.volumes_from)}
    )


_VOLUME_KEYS = {"name", "driver", "driver_opts", "external", "labels"}


def _volumes(document: Map, project: str, note: Any) -> dict[str, ProjectVolume]:
    section = document.get("volumes") or Map(document.place)
    found = {}
    for name, value in section.items():
        body = value or {}
        own = {"com.docker.compose.project": project, "com.docker.compose.volume": name}
        try:
            found[name] = ProjectVolume(
                named(body, name, project),
                text(body.get("driver")),
                mapping(body.get("driver_opts") or {}),
                {**mapping(body.get("labels") or {}), **own},
                bool(body.get("external")),
            )
        except (EngineError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise problem(section.where(name), f"volumes.{name}: {error}") from error
    return found


def _used(volumes: Mapping[str, ProjectVolume], services: Mapping[str, Service]) -> dict[str, ProjectVolume]:
    names = {mount.source for service in services.values() for mount in service.spec.mounts if mount.type == "volume"}
    return {name: volume for name, volume in volumes.items() if volume.name in names}


def _networks(document: Map, project: str, note: Any) -> dict[str, ProjectNetwork]:
    """The networks of the document, and `default` for services that name none."""
    section = document.get("networks") or Map(document.place)
    found: dict[str, ProjectNetwork] = {}
    for name, body in section.items():
        for key in body or ():
            if key not in _NETWORK_KEYS and not key.startswith("x-"):
                note(f"networks.{name}.{key}", body.where(key))
        if body and not flag(body.get("enable_ipv4", True)):
            note(f"networks.{name}.enable_ipv4: networks have IPv4 here", body.where("enable_ipv4"))
        try:
            found[name] = _network(project, name, body or {})
        except (EngineError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise problem(section.where(name), f"networks.{name}: {error}") from error
    found.setdefault("default", _network(project, "default", {}))
    return found


def _network(project: str, name: str, body: Mapping[str, Any]) -> ProjectNetwork:
    external = bool(body.get("external"))
    shown = text(body.get("name")) or (name if external else f"{project}_{name}")
    if external:
        return ProjectNetwork(NetworkSpec(shown), external=True)
    pools = tuple(
        IpamConfig(
            text(p.get("subnet")),
            text(p.get("gateway")),
            text(p.get("ip_range")),
            mapping(p.get("aux_addresses") or {}),
        )
        for p in (body.get("ipam") or {}).get("config") or ()
    )
    own = {"com.docker.compose.project": project, "com.docker.compose.network": name}
    return ProjectNetwork(
        NetworkSpec(
            shown,
            text(body.get("driver")) or "bridge",
            flag(body.get("internal") or False),
            flag(body.get("attachable") or False),
            flag(body.get("enable_ipv6") or False),
            pools,
            mapping(body.get("driver_opts") or {}),
            {**mapping(body.get("labels") or {}), **own},
        )
    )
