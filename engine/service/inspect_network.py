"""A container's network as `docker inspect` shows it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from engine.network import ports

if TYPE_CHECKING:
    from engine.model import ContainerSpec, ContainerSummary

# The monitor's words for a port that cannot be bound (runtime.ports.PortTaken): address, port, protocol.
PORT_TAKEN = re.compile(r"port \[?([0-9a-fA-F:.]+?)\]?:(\d+)/(tcp|udp): address already in use")
PORT_DENIED = re.compile(r"port \S+/(tcp|udp): permission denied")
SUBNET_TAKEN = re.compile(r"the subnet .* of network .* is in use: ")  # bridges.make


def endpoint_inspected(identity: str, settings: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, object]:
    four, six = ((live or {}).get(key) or "" for key in ("address4", "address6"))
    network = (live or {}).get("network") or {}
    internal = bool(network.get("internal"))
    wishes = (("IPv4Address", "ipv4_address"), ("IPv6Address", "ipv6_address"), ("LinkLocalIPs", "link_local"))
    config = {key: settings[name] for key, name in wishes if settings.get(name)}
    return {
        "IPAMConfig": config or None,
        "Links": list(settings["links"]) or None,
        "Aliases": list(settings["aliases"]) or None,
        "MacAddress": (live or {}).get("mac") or settings["mac_address"],
        "DriverOpts": settings.get("driver_options") or None,
        "GwPriority": settings.get("gateway_priority", 0),
        "NetworkID": identity,
        "EndpointID": (live or {}).get("id", ""),
        "Gateway": "" if internal else str(network.get("gateway4") or "").partition("/")[0],
        "IPAddress": four.partition("/")[0],
        "IPPrefixLen": int(four.partition("/")[2] or 0),
        "IPv6Gateway": "" if internal or not six else str(network.get("gateway6") or "").partition("/")[0],
        "GlobalIPv6Address": six.partition("/")[0],
        "GlobalIPv6PrefixLen": int(six.partition("/")[2] or 0),
        "DNSNames": list((live or {}).get("names") or ()) or None,
    }


def host_network(spec: ContainerSpec, *, blocked: bool) -> dict[str, object]:
    """The network's part of HostConfig. `BlockMetadata` is this engine's own."""
    return {
        "NetworkMode": spec.network_mode,
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
