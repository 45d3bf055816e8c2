"""`--filter` of containers: Docker's keys, meanings and refusals, for the command line and the API. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidInput, NotFound
from engine.model import ContainerSummary, Port
from engine.service.filters import Filters, check, labelled

KEYS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status",
    "volume",
)  # fmt: skip
_STATUS = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTH = ("starting", "healthy", "unhealthy", "none")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?")


def everything(filters: Filters) -> bool:
    """Whether containers that do not run are looked at without `--all`."""
    return "status" in filters


def containers(found: Sequence[ContainerSummary], filters: Filters) -> list[ContainerSummary]:
    """Those that hold: of each key one of its values, of labels all. Raises InvalidInput, NotFound."""
    check(filters, KEYS)
    _check_values(filters)
    kept = list(found)
    for key, values in filters.items():
        if key == "isolation":
            continue  # Windows' alone: on Linux it leaves all
        if key == "label":
            kept = [one for one in kept if labelled(one.labels, {"label": values})]
        elif key in ("before", "since"):
            other = _named(found, values[0])
            kept = [one for one in kept if (one.created < other if key == "before" else one.created > other)]
        elif key == "volume":
            kept = [one for one in kept if any(_mounted(value, one.mounts) for value in values)]
        else:
            kept = [one for one in kept if any(_holds(one, key, value) for value in values)]
    return kept


def _check_values(filters: Filters) -> None:
    for value in filters.get("status", ()):
        if value not in _STATUS:
            raise InvalidInput(f"invalid filter 'status={value}'", hint=f"one of {', '.join(_STATUS)}")
    for value in filters.get("health", ()):
        if value not in _HEALTH:
            raise InvalidInput(f"unrecognised filter value for health: {value}", hint=f"one of {', '.join(_HEALTH)}")
    for value in filters.get("exited", ()):
        if not re.fullmatch(r"-?[0-9]+", value):
            raise InvalidInput(f"invalid filter 'exited={value}': an exit code is a number")
    for value in filters.get("is-task", ()):
        if value.lower() not in ("true", "false", "1", "0"):
            raise InvalidInput(f"invalid filter 'is-task={value}'", hint="it is true or false")
    for key in ("publish", "expose"):
        for value in filters.get(key, ()):
            match = _PORT.fullmatch(value)
            if match is None or max(int(match[1]), int(match[2] or 0)) > 65535:
                raise InvalidInput(f"error while looking up for {key} {value}: it is PORT[-PORT][/PROTOCOL]")


def _named(found: Sequence[ContainerSummary], name: str) -> int:
    other = next((one for one in found if name == one.name or (name and one.id.startswith(name))), None)
    if other is None:
        raise NotFound(f"No such container: {name}")
    return other.created


def _holds(one: ContainerSummary, key: str, value: str) -> bool:
    match key:
        case "id":
            return one.id.startswith(value)
        case "name":
            return any(_found(value, name) for name in (one.name, f"/{one.name}"))
        case "status":
            return one.status == value
        case "health":
            return (one.health or "none") == value
        case "exited":
            return one.status == "exited" and str(one.exit_code) == value
        case "ancestor":
            names = (one.image, f"{one.image}:latest", one.image_id)
            hexadecimal = value.removeprefix("sha256:")
            return value in names or (
                len(hexadecimal) >= 4 and one.image_id.removeprefix("sha256:").startswith(hexadecimal)
            )
        case "network":
            ids = (str(settings.get("NetworkID", "")) for settings in one.networks.values())
            return value in one.networks or (bool(value) and any(identity.startswith(value) for identity in ids))
        case "publish" | "expose":
            return any(_meets(value, port, published=key == "publish") for port in one.published)
    return value.lower() in ("false", "0")  # is-task: there are no swarm tasks here


def _found(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return pattern in name


def _meets(value: str, port: Port, *, published: bool) -> bool:
    match = _PORT.fullmatch(value)
    assert match is not None
    first = int(match[1])
    last = int(match[2] or first)
    number = port.public_port if published else port.private_port
    return bool(number) and first <= number <= last and port.type == (match[3] or "tcp")


def _mounted(value: str, mounts: Sequence[Mapping[str, Any]]) -> bool:
    return any(value in (mount.get("Name"), mount.get("Source"), mount.get("Destination")) for mount in mounts)
