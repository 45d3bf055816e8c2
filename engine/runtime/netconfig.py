"""The network section of a container's `config.json` ("workbench" → "network"): what the monitor sets up, and a running
container's record of it. Plain data, standard library only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.linux.rtnetlink import Address, Interface

METADATA_ADDRESSES = ("169.254.169.254", "fd00:ec2::254")


class NetworkError(Exception):
    """A network that cannot be set up, in words for the user."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One bridge network. `gateway4` and `gateway6` are the bridge's own addresses with the prefix length ("" for none)."""

    id: str
    name: str
    bridge: str  # name of the link, and of the nf_tables tables
    gateway4: str = ""
    gateway6: str = ""
    internal: bool = False
    masquerade: bool = True
    icc: bool = True  # whether its containers reach each other
    mtu: int = 1500
    resolves: bool = True  # whether its containers find each other by name; not on the default network, as with Docker

    def gateways(self) -> list[Interface]:
        return [ipaddress.ip_interface(text) for text in (self.gateway4, self.gateway6) if text]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in one network. Addresses carry the prefix length."""

    id: str
    network: NetworkConfig
    link: str  # the name inside: "eth0"
    address4: str = ""
    address6: str = ""
    mac: str = ""
    names: tuple[str, ...] = ()  # what other containers of the network resolve to it
    default: bool = False  # the default route goes this way, and ports are published here
    serial: str = ""  # of this start: the pair of the one before may still be on its way out
    link_local: tuple[str, ...] = ()  # further addresses without a prefix length

    @property
    def host_link(self) -> str:
        """The other end of the pair, a port of the bridge."""
        return f"wv{self.id[:8]}{self.serial}"

    def link_local_addresses(self) -> list[Interface]:
        """With the prefix lengths of Docker's network library."""
        return [ipaddress.ip_interface(f"{text}/{64 if ':' in text else 16}") for text in self.link_local]

    def addresses(self) -> list[Interface]:
        return [ipaddress.ip_interface(text) for text in (self.address4, self.address6) if text]

    def gateways(self) -> list[Interface]:
        """Those of the families that it has an address of; none on an internal network."""
        families = set() if self.network.internal else {address.version for address in self.addresses()}
        return [gateway for gateway in self.network.gateways() if gateway.version in families]


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A published port. `host_ip` "" is every address of both families; `host_port` 0 is any free one; with `host_end`
    the first free one of a range."""

    container_port: int
    protocol: str  # "tcp" or "udp"
    host_ip: str = ""
    host_port: int = 0
    host_end: int = 0


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """What a binding became."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Dns:
    """The embedded server at 127.0.0.11. `servers` are asked what it does not know; none asks the host's own."""

    servers: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)  # --link: alias → name of the other container


@dataclass(frozen=True, slots=True)
class ContainerNetwork:
    """`mode` host, none, bridge (any set of endpoints) or container."""

    mode: str = "host"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    dns: Dns = Dns()
    block_metadata: bool = False
    standby: bool = False  # its ports and names are another container's until it takes over
    way_out: tuple[str, ...] = ()  # an ordinary user's: programs that lead out of its network namespace (see `usernet`)

    def publishing(self) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.default), None)


def to_json(config: ContainerNetwork) -> dict[str, Any]:
    return asdict(config) | {"endpoints": [endpoint_to_json(each) for each in config.endpoints]}


def endpoint_to_json(endpoint: Endpoint) -> dict[str, Any]:
    """Without what is not used: a monitor from before knows nothing of it."""
    document = asdict(endpoint)
    if not endpoint.link_local:
        del document["link_local"]
    return document


def network_from_json(document: dict[str, Any]) -> NetworkConfig:
    return NetworkConfig(**document)


def endpoint_from_json(document: dict[str, Any]) -> Endpoint:
    values = {**document, "network": NetworkConfig(**document["network"]), "names": tuple(document["names"])}
    return Endpoint(**values)


def from_json(document: dict[str, Any] | None) -> ContainerNetwork:
    """The section as records. None (a spec without it) is the host's network."""
    if not document:
        return ContainerNetwork()
    dns = document.get("dns")
    return ContainerNetwork(
        mode=str(document["mode"]),
        endpoints=tuple(endpoint_from_json(each) for each in document["endpoints"]),
        ports=tuple(PortBinding(**each) for each in document["ports"]),
        dns=Dns(tuple(dns["servers"]), dict(dns["links"])) if dns else Dns(),
        block_metadata=bool(document["block_metadata"]),
        standby=bool(document.get("standby")),
        way_out=tuple(document.get("way_out") or ()),
    )


def published_from_json(documents: Iterable[dict[str, Any]]) -> tuple[PublishedPort, ...]:
    return tuple(PublishedPort(**each) for each in documents)


def mac_of(address: Address) -> str:
    """Docker's MAC address for an IPv4 address: who gets the address next has the same."""
    if address.version == 4:
        return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed[-4:])
