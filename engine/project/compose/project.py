"""The project of one or several compose files: its services in start order, its networks, what is left out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.model import IpamConfig, NetworkSpec
from engine.project.compose.load import load, project_environment
from engine.project.compose.positions import Map, Place, problem
from engine.project.compose.services import Services, flag, mapping, text
from engine.project.model import Project, ProjectNetwork, Service

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


def load_compose(files: Sequence[Path], default_name: str, profiles: frozenset[str] = frozenset()) -> Project:
    """Raises `DockerfileError` (with file, line and column) and `InvalidInput`."""
    folder = files[0].parent
    env, dotenv = project_environment(folder, (), os.environ)
    env.setdefault("COMPOSE_PROJECT_NAME", default_name)
    loaded = load(files, folder, env)
    notes = list(loaded.notes)

    def note(what: str, place: Place) -> None:
        notes.append(f"not supported yet, left out: {what} ({place})")

    document = loaded.document
    for section in ("models",):
        if section in document:
            note(section, document.where(section))
    name = text(document.get("name")) or env["COMPOSE_PROJECT_NAME"]
    body = document.get("services")
    if not isinstance(body, Map) or not body:
        raise problem(
            document.place, "a compose file needs a mapping of services", "services:\n    web:\n      build: ."
        )
    active = profiles | frozenset(filter(None, env.get("COMPOSE_PROFILES", "").split(",")))
    reader = Services(document, name, env, note)
    found = {key: reader.read(key, value) for key, value in body.items() if _wanted(value, active)}
    networks = _networks(document, name, note)
    for service in found.values():
        _check(service, body, found, networks)
    files_read = [*loaded.files, *dotenv, *reader.env_files]
    others = tuple(dict.fromkeys(path for path in files_read if path != files[0]))
    return Project(name, folder, files[0], _ordered(found, body), tuple(dict.fromkeys(notes)), others, networks)


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
    kind, _, other = service.network_mode.partition(":")
    if kind == "service" and other not in services:
        raise problem(place, f"{where} shares the network of {other!r}, which is not there")


def _ordered(services: Mapping[str, Service], body: Map) -> tuple[Service, ...]:
    order: list[Service] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if services[name] in order:
            return
        if name in path:
            raise problem(body.where(name), f"services depend on each other: {' → '.join([*path, name])}")
        path.append(name)
        shared = services[name].network_mode.partition("service:")[2]
        for need in (*services[name].depends_on, *([shared] if shared else [])):
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


def _networks(document: Map, project: str, note: Any) -> dict[str, ProjectNetwork]:
    """The networks of the document, and `default` for services that name none."""
    section = document.get("networks") or Map(document.place)
    found: dict[str, ProjectNetwork] = {}
    for name, body in section.items():
        for key in body or ():
            if key not in _NETWORK_KEYS and not key.startswith("x-"):
                note(f"networks.{name}.{key}", body.where(key))
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
