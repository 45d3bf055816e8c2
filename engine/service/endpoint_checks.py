"""What a container's network flags may be together, by Docker's rules, and what its mode means on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import InvalidInput, Unsupported
from engine.linux import rtnetlink as rt
from engine.linux import userns
from engine.model import ContainerSpec, EndpointSettings
from engine.network import files, ipam, ports
from engine.service import links
from engine.service.network_modes import mode_of, no_bridges

if TYPE_CHECKING:
    from engine.service.networks import NetworkRecord


def check(spec: ContainerSpec) -> None:
    """Docker's rules on what goes together. Raises InvalidInput."""
    mode = mode_of(spec.network_mode)
    if mode == "bridge" and no_bridges():
        raise Unsupported(
            f"--network {spec.network_mode}: an ordinary user cannot make networks here: {userns.network_note()}",
            hint="host (the default here) and none are there; or run it with sudo",
        )
    if mode == "container":
        if spec.network_mode == "container:":
            raise InvalidInput("--network container: names no container")
        for given, what in (
            (spec.port_bindings or spec.publish_all, "port publishing and the container type network mode"),
            (spec.exposed_ports, "port exposing and the container type network mode"),
            (spec.hostname or spec.domainname, "hostname and the network mode"),
            (spec.links, "container type network can't be used with links"),
            (spec.dns or spec.dns_search or spec.dns_options, "dns and the network mode"),
            (spec.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (spec.mac_address, "mac-address and the network mode"),
        ):
            if given:
                raise InvalidInput(f"conflicting options: {what}")
    if mode == "host" and spec.links:
        raise InvalidInput("conflicting options: host type networking can't be used with links")
    if mode != "bridge" and (spec.networks or (mode == "host" and spec.mac_address)):
        raise InvalidInput(
            f"conflicting options: network settings and the network mode {spec.network_mode}",
            hint="addresses and aliases belong to networks; leave them out",
        )
    if mode in ("host", "container") and spec.block_metadata:
        raise InvalidInput(
            f"--no-metadata: the container shares the network of {'the host' if mode == 'host' else 'another one'}",
            hint="it can be refused where the container has a network of its own",
        )
    for text in spec.extra_hosts:
        files.parse_extra_host(text)
    for server in spec.dns:
        ipam.parse_address(server, "DNS server")
    for port, bindings in spec.port_bindings.items():
        ports.split_protocol(port, port)
        for binding in bindings:
            ports.binding_range(binding)
            ports.check_host_ip(binding.host_ip)
    for settings in (EndpointSettings(mac_address=spec.mac_address), *spec.networks.values()):
        if settings.mac_address:
            check_mac(settings.mac_address)


def check_mac(text: str) -> None:
    try:
        raw = rt.mac_bytes(text)
    except ValueError:
        raise InvalidInput(f"{text} is not a valid mac address", hint="write it as 02:42:ac:11:00:02") from None
    if raw[0] & 1 or not any(raw):
        raise InvalidInput(f"{text} is not the address of one machine")


def check_settings(record: NetworkRecord, settings: EndpointSettings) -> None:
    """Docker's rules for addresses and aliases on a network. Raises InvalidInput."""
    for text, version in ((settings.ipv4_address, 4), (settings.ipv6_address, 6)):
        if not text:
            continue
        if record.predefined:
            raise InvalidInput("user specified IP address is supported on user defined networks only")
        pool = record.pool(version)
        if pool is None or not pool.given:
            raise InvalidInput(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
                hint="make the network with --subnet",
            )
        address = ipam.parse_address(text, "address")
        if address.version != version:
            raise InvalidInput(f"{text} is no IPv{version} address")
        ipam.allocate(pool, (), address)
    for text in settings.link_local:
        if not ipam.parse_address(text, "link-local address").is_link_local:
            raise InvalidInput(f"invalid link-local IP address: {text}", hint="169.254.0.0/16 or fe80::/10")
    links.parse(settings.links)
    if settings.aliases and record.predefined:
        raise InvalidInput("network-scoped alias is supported only for containers in user defined networks")
