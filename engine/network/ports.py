"""Published ports: `-p` and `--expose` as people write them, and as Docker shows them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from engine.errors import InvalidInput
from engine.model import Port, PortBinding

PROTOCOLS = ("tcp", "udp")
_HINT = "write -p 8080:80, -p 127.0.0.1:8080:80/udp, -p 8000-8010:80 or -p '[::1]:8080:80'"


def _range(text: str, what: str, *, zero: bool = False) -> tuple[int, int]:
    """`80` or `80-90`. Raises InvalidInput."""
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if all(word.isascii() and word.isdigit() and int(word) <= 65535 for word in numbers):
        start, end = int(numbers[0]), int(numbers[1])
        if start <= end and (start or zero):
            return start, end
    raise InvalidInput(f"Invalid {what}: {text}", hint=_HINT)


def split_protocol(text: str, whole: str) -> tuple[str, str]:
    """(ports, protocol). Raises InvalidInput."""
    ports, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol == "sctp":
        raise InvalidInput(f"{whole}: SCTP cannot be published by this engine", hint="tcp and udp can")
    if protocol not in PROTOCOLS:
        raise InvalidInput(f"Invalid proto: {protocol}", hint="tcp or udp")
    return ports, protocol


def _split_host(text: str) -> tuple[str, str, str]:
    """(host IP, host ports, container ports) of `[ip:][host:]container`."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidInput(f"invalid publish {text!r}", hint=_HINT)
        parts = rest[1:].split(":")
    else:
        words = text.split(":")
        # An IPv6 address without brackets: everything before the last two.
        address, parts = (":".join(words[:-2]), words[-2:]) if len(words) > 2 else ("", words)
    if len(parts) == 1:
        parts = ["", parts[0]]
    if len(parts) != 2:
        raise InvalidInput(f"invalid publish {text!r}", hint=_HINT)
    return address, parts[0], parts[1]


def check_host_ip(address: str) -> str:
    """The address in its usual form, "" for every one. Raises InvalidInput."""
    if not address:
        return ""
    try:
        return str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        raise InvalidInput(f"invalid IP address: {address}", hint=_HINT) from None


def parse_publish(text: str) -> list[tuple[str, PortBinding]]:
    """One `-p`: ("80/tcp", where it is bound) for each port of its range. Raises InvalidInput."""
    if any(word in text for word in ("=", ",")):
        return _long_form(text)
    ports, protocol = split_protocol(text, text)
    address, host, container = _split_host(ports)
    if not container:
        raise InvalidInput(f"No port specified: {text}<empty>", hint=_HINT)
    return _bindings(text, check_host_ip(address), host, container, protocol)


def _bindings(text: str, address: str, host: str, container: str, protocol: str) -> list[tuple[str, PortBinding]]:
    start, end = _range(container, "containerPort")
    if not host or host == "0":
        return [(f"{port}/{protocol}", PortBinding(address, "")) for port in range(start, end + 1)]
    first, last = _range(host, "hostPort")
    if last - first != end - start:
        if start != end:
            raise InvalidInput(
                f"Invalid ranges specified for container and host Ports: {container} and {host}", hint=_HINT
            )
        return [(f"{start}/{protocol}", PortBinding(address, f"{first}-{last}"))]  # one port, any of the host's range
    return [
        (f"{start + offset}/{protocol}", PortBinding(address, str(first + offset))) for offset in range(end - start + 1)
    ]


def _long_form(text: str) -> list[tuple[str, PortBinding]]:
    """`target=80,published=8080,protocol=tcp`."""
    values: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in ("target", "published", "protocol", "mode", "host_ip"):
            raise InvalidInput(f"invalid field {part!r} in publish", hint=_HINT)
        values[key] = value
    if not values.get("target"):
        raise InvalidInput(f"publish {text!r} has no target", hint=_HINT)
    _, protocol = split_protocol(f"1/{values.get('protocol', 'tcp')}", text)
    return _bindings(
        text, check_host_ip(values.get("host_ip", "")), values.get("published", ""), values["target"], protocol
    )


def parse_expose(text: str) -> list[str]:
    """One `--expose` or image `EXPOSE`: "80/tcp" for each. Raises InvalidInput."""
    ports, _, protocol = text.partition("/")
    if ":" in ports:
        raise InvalidInput(
            f"invalid port format for --expose: {text}", hint="write --expose 80 or --expose 7000-7010/udp"
        )
    start, end = _range(ports, "port")
    return [f"{port}/{(protocol or 'tcp').lower()}" for port in range(start, end + 1)]


def collect(bindings: Iterable[tuple[str, PortBinding]]) -> dict[str, tuple[PortBinding, ...]]:
    """By container port, in the order given, doubles left out."""
    found: dict[str, tuple[PortBinding, ...]] = {}
    for port, binding in bindings:
        if binding not in found.get(port, ()):
            found[port] = (*found.get(port, ()), binding)
    return found


def binding_range(binding: PortBinding) -> tuple[int, int]:
    """The host's ports of a binding, (0, 0) for any. Raises InvalidInput."""
    text = binding.host_port.strip()
    return (0, 0) if text in ("", "0") else _range(text, "hostPort")


# --- as Docker shows them -------------------------------------------------------------------------


def join_host(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def displayable(ports: Sequence[Port]) -> str:
    """The PORTS column: `0.0.0.0:8000-8002->8000-8002/tcp, 0.0.0.0:8080->80/tcp, 443/tcp`."""
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    shown: list[str] = []
    mapped: list[str] = []

    def close(key: tuple[str, str]) -> str:
        (address, kind), (first, last) = key, groups[key]
        span = str(first) if first == last else f"{first}-{last}"
        return f"{join_host(address, span)}->{span}/{kind}" if address else f"{span}/{kind}"

    for port in sorted(ports, key=lambda p: (p.private_port, p.ip, p.public_port, p.type)):
        if port.ip and port.public_port != port.private_port:
            mapped.append(f"{join_host(port.ip, str(port.public_port))}->{port.private_port}/{port.type}")
            continue
        key = (port.ip, port.type)
        if key in groups and port.private_port == groups[key][1] + 1:
            groups[key] = (groups[key][0], port.private_port)
            continue
        if key in groups:
            shown.append(close(key))
        groups[key] = (port.private_port, port.private_port)
    return ", ".join([*shown, *map(close, groups), *mapped])


def port_map(exposed: Iterable[str], published: Iterable[Port]) -> dict[str, list[dict[str, str]] | None]:
    """`NetworkSettings.Ports` of `inspect`: null for what is exposed and not published."""
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(sorted(exposed))
    for port in published:
        key = f"{port.private_port}/{port.type}"
        found[key] = [*(found.get(key) or []), {"HostIp": port.ip, "HostPort": str(port.public_port)}]
    return found


def bindings_to_api(bindings: Mapping[str, Sequence[PortBinding]]) -> dict[str, list[dict[str, str]]]:
    """`HostConfig.PortBindings`."""
    return {
        port: [{"HostIp": each.host_ip, "HostPort": each.host_port} for each in found]
        for port, found in bindings.items()
    }
