"""A container's network as `docker inspect` shows it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from engine.network import ports
from engine.service.network_modes import shown_mode

if TYPE_CHECKING:
    from engine.model import ContainerSpec, ContainerSummary

# The monitor's words for a port that cannot be bound (runtime.ports.PortTaken): address, port, protocol.
PORT_TAKEN = re.compile(r"port \[?([0-9a-fA-F:.]+?)\]?:(\d+)/(tcp|udp): address already in use")
PORT_DENIED = re.compile(r"port \S+/(tcp|udp): permission denied")
SUBNET_TAKEN = re.compile(r"the subnet .* of network .* is in use: ")  # bridges.make


def host_network(spec: ContainerSpec, *, blocked: bool) -> dict[str, object]:
    """The network's part of HostConfig. `BlockMetadata` is this engine's own."""
    return {
        "NetworkMode": shown_mode(spec.network_mode),
        "PortBindings": ports.bindings_to_api(spec.port_bindings),
        "PublishAllPorts": spec.publish_all,
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "Links": list(spec.links) or None,
        "BlockMetadata": blocked,
    }


def network_settings(summary: ContainerSummary, exposed: Iterable[str]) -> dict[str, object]:
    """NetworkSettings: what is so now. The fields beside `Networks` are the default network's, as Docker keeps them."""
    first: Mapping[str, object] = summary.networks.get("bridge", {})
    known = [port for port in summary.published if port.public_port]
    return {
        "Bridge": "",
        "SandboxID": summary.id if summary.running else "",
        "SandboxKey": f"/proc/{summary.pid}/ns/net" if summary.pid else "",
        "Ports": ports.port_map(exposed if summary.running else (), known),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: first.get(key, default) for key, default in _FIRST.items()},
        "Networks": {name: dict(endpoint) for name, endpoint in summary.networks.items()},
    }


_FIRST: dict[str, Any] = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}
