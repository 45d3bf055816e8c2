"""What begins and ends with a container besides itself: its volumes are mounted and its networks connected before it starts,
and let go before Docker says that it died. It tells of them at each start, also at those of a restart policy (docs.docker.com/
engine/reference/commandline/events: network `connect`, `disconnect`; volume `mount`, `unmount`), in this order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.service.network_modes import mode_of
from engine.service.points import points_of

if TYPE_CHECKING:
    from engine.service.points import Point


@dataclass(frozen=True, slots=True)
class Told:
    """An event of something that a container has."""

    type: str
    action: str
    id: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Network:
    id: str
    name: str
    driver: str


def begun(container_id: str, record: dict[str, Any], networks: Iterable[Network]) -> Iterator[Told]:
    """Before its `start`."""
    yield from _mounted(container_id, record)
    for network in _of(record, networks):
        yield _network("connect", network, container_id)


def failed(container_id: str, record: dict[str, Any], networks: Iterable[Network]) -> Iterator[Told]:
    """Of one that could not start: no network is connected yet when Docker takes ports or runs the command, but each is let go."""
    yield from _mounted(container_id, record)
    yield from ended(container_id, record, networks)


def _mounted(container_id: str, record: dict[str, Any]) -> Iterator[Told]:
    for point in _volumes(record):
        more = {
            "destination": point.destination,
            "propagation": point.propagation,
            "read/write": str(point.read_write).lower(),
        }
        yield Told("volume", "mount", point.name, {"container": container_id, "driver": point.driver, **more})


def ended(container_id: str, record: dict[str, Any], networks: Iterable[Network]) -> Iterator[Told]:
    """Before its `die`."""
    for network in _of(record, networks):
        yield _network("disconnect", network, container_id)
    for point in _volumes(record):
        yield Told("volume", "unmount", point.name, {"container": container_id, "driver": point.driver})


def _network(action: str, network: Network, container_id: str) -> Told:
    attributes = {"container": container_id, "name": network.name, "type": network.driver}
    return Told("network", action, network.id, attributes)


def _of(record: dict[str, Any], networks: Iterable[Network]) -> list[Network]:
    """A container's, in the order of its interfaces; those of the mode `container:` are the other one's."""
    mode = mode_of(str(record["spec"]["network_mode"]))
    if mode in ("host", "none"):
        return [network for network in networks if network.name == mode]
    known = {network.id: network for network in networks}
    return [known[each] for each in record.get("networks", ()) if each in known]


def _volumes(record: dict[str, Any]) -> list[Point]:
    return [point for point in points_of(record) if point.type == "volume"]
