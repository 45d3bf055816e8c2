"""EXPOSE's ports (pure): `8000`, `53/udp`, `7000-7002/tcp`, and the old `ip:host:container` that is still read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from engine.errors import InvalidInput

MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Exposed:
    """`ports` as `port/protocol`; `odd_case` a protocol in capitals, `mapped` a host address or port that means nothing."""

    ports: tuple[str, ...]
    odd_case: bool
    mapped: bool


def parse_expose(text: str) -> Exposed:
    """Raises `InvalidInput`."""
    *front, container = text.rsplit(":", 1)
    address, host = "", ""
    if front:
        address, _, host = front[0].rpartition(":")
    ports, _, protocol = container.partition("/")
    if not ports:
        raise InvalidInput(f'invalid port: "{text}": no port specified')
    if protocol.lower() not in ("", "tcp", "udp", "sctp"):
        raise InvalidInput(f'invalid port: "{text}": invalid proto: {protocol}', hint="protocols are tcp, udp and sctp")
    if address:
        _check_address(address)
    low, high = _range(ports, "containerPort")
    if host:
        first, last = _range(host, "hostPort")
        if high != low and last - first != high - low:
            raise InvalidInput(f"invalid ranges specified for container and host Ports: {ports} and {host}")
    protocol_name = protocol.lower() or "tcp"
    return Exposed(
        tuple(f"{port}/{protocol_name}" for port in range(low, high + 1)),
        odd_case=protocol != protocol.lower(),
        mapped=bool(address or host),
    )


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InvalidInput(f"invalid IP address: {text}") from None


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = _number(first), _number(last) if dash else _number(first)
    if low is None or high is None or high < low:
        raise InvalidInput(f"invalid {what}: {text}", hint=f"ports are numbers up to {MAX_PORT}, a range is 7000-7002")
    return low, high


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > MAX_PORT:
        return None
    return int(text)
