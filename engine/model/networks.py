"""Networks, endpoints and published ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PortBinding:
    """Where a container's port is published. `host_ip` "" is every address; `host_port` "" any free port, "8000-8010" the
    first free one of a range."""

    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """A container's wishes for one network; "" leaves it to the engine."""

    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    links: tuple[str, ...] = ()  # "container:alias"
    link_local: tuple[str, ...] = ()  # further addresses, of the link alone: "169.254.8.8"
    driver_options: Mapping[str, str] = field(default_factory=dict)
    gateway_priority: int = 0  # the network with the highest gives the default route; of equal ones the first by name


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """One subnet of a network, as given to `network create`."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What to make. Names of `options` are Docker's: "com.docker.network.bridge.enable_icc"."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    ipam: tuple[IpamConfig, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network; `config` is what `network inspect` prints."""

    id: str
    name: str
    driver: str
    created: int
    internal: bool
    enable_ipv6: bool
    labels: Mapping[str, str]
    config: Mapping[str, object]
    scope: str = "local"
