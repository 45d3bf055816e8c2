"""`run` and `create`: Docker's flags about the network."""

from __future__ import annotations

from typing import Any

from engine.cli.flags import Flag, Parsed
from engine.errors import InvalidInput
from engine.model import EndpointSettings
from engine.network import files, ports

NETWORK_FLAGS = [
    Flag("publish", "Publish a container's port(s) to the host: [IP:][HOST:]CONTAINER[/udp]", "p", kind="list"),
    Flag("publish-all", "Publish all exposed ports to random ports", "P"),
    Flag("expose", "Expose a port or a range of ports", kind="list"),
    Flag(
        "network",
        "Connect a container to a network: bridge, host, none, container:NAME, or a network's name",
        kind="list",
    ),
    Flag("net", "The same as --network", kind="list"),
    Flag("network-alias", "Add network-scoped alias for the container", kind="list"),
    Flag("net-alias", "The same as --network-alias", kind="list"),
    Flag("ip", "IPv4 address (e.g., 172.30.100.104)", kind="str"),
    Flag("ip6", "IPv6 address (e.g., 2001:db8::33)", kind="str"),
    Flag("link-local-ip", "Container IPv4/IPv6 link-local addresses", kind="list"),
    Flag("mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)", kind="str"),
    Flag("link", "Add link to another container: NAME[:ALIAS]", kind="list"),
    Flag("dns", "Set custom DNS servers", kind="list"),
    Flag("dns-search", "Set custom DNS search domains", kind="list"),
    Flag("dns-option", "Set DNS options", kind="list"),
    Flag("dns-opt", "The same as --dns-option", kind="list"),
    Flag("add-host", "Add a custom host-to-IP mapping (host:ip, host:host-gateway)", kind="list"),
    Flag("hostname", "Container host name", "h", kind="str"),
    Flag("domainname", "Container NIS domain name", kind="str"),
    Flag("no-metadata", "Refuse the cloud's metadata addresses (169.254.169.254, fd00:ec2::254)"),
]


def network_values(parsed: Parsed) -> dict[str, Any]:
    """The flags as fields of `ContainerSpec`. Raises `InvalidInput`."""
    wanted = [*parsed.items("network"), *parsed.items("net")]
    first, settings = _network(wanted[0]) if wanted else ("default", EndpointSettings())
    own = EndpointSettings(
        aliases=(*settings.aliases, *parsed.items("network-alias"), *parsed.items("net-alias")),
        ipv4_address=parsed.text("ip") or settings.ipv4_address,
        ipv6_address=parsed.text("ip6") or settings.ipv6_address,
        mac_address=settings.mac_address,
        link_local=(*settings.link_local, *parsed.items("link-local-ip")),
        driver_options=settings.driver_options,
        gateway_priority=settings.gateway_priority,
    )
    networks = {first: own} if own != EndpointSettings() else {}
    for text in wanted[1:]:
        name, more = _network(text)
        if name in networks or name == first:
            raise InvalidInput(f"network {name!r} is specified multiple times")
        networks[name] = more
    for text in parsed.items("add-host"):
        files.parse_extra_host(text)
    bindings = [each for text in parsed.items("publish") for each in ports.parse_publish(text)]
    return {
        "hostname": parsed.text("hostname"),
        "domainname": parsed.text("domainname"),
        "network_mode": first,
        "networks": networks,
        "port_bindings": ports.collect(bindings),
        "publish_all": parsed.on("publish-all"),
        "exposed_ports": tuple(port for text in parsed.items("expose") for port in ports.parse_expose(text)),
        "dns": tuple(parsed.items("dns")),
        "dns_search": tuple(parsed.items("dns-search")),
        "dns_options": (*parsed.items("dns-option"), *parsed.items("dns-opt")),
        "extra_hosts": tuple(text.replace("=", ":", 1) if "=" in text else text for text in parsed.items("add-host")),
        "mac_address": parsed.text("mac-address"),
        "links": tuple(parsed.items("link")),
        "block_metadata": parsed.on("no-metadata") if parsed.given("no-metadata") else None,
    }


def _network(text: str) -> tuple[str, EndpointSettings]:
    """`NAME`, or Docker's long form `name=NAME,alias=A,ip=…,ip6=…,mac-address=…`."""
    if "=" not in text:
        return text, EndpointSettings()
    aliases: list[str] = []
    local: list[str] = []
    options: dict[str, str] = {}
    values: dict[str, str] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key == "alias":
            aliases.append(value)
        elif key == "link-local-ip":
            local.append(value)
        elif key == "driver-opt":
            option, _, setting = value.partition("=")
            options[option] = setting
        elif key in ("name", "ip", "ip6", "mac-address", "gw-priority"):
            values[key] = value
        else:
            raise InvalidInput(
                f"invalid field key {key} in --network {text}",
                hint="name, alias, ip, ip6, mac-address, link-local-ip, driver-opt, gw-priority",
            )
    if not values.get("name"):
        raise InvalidInput(f"network name is missing in --network {text}")
    return values["name"], EndpointSettings(
        tuple(aliases),
        values.get("ip", ""),
        values.get("ip6", ""),
        values.get("mac-address", ""),
        link_local=tuple(local),
        driver_options=options,
        gateway_priority=_priority(values.get("gw-priority", "0")),
    )


def _priority(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"invalid gw-priority {text!r}: it is a number") from None
