"""`/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, as Docker writes them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import InvalidInput
from engine.network.ipam import parse_address

EMBEDDED = "127.0.0.11"
FALLBACK = ("8.8.8.8", "8.8.4.4")  # Docker's, for a host whose only name server is on its loopback
HOST_GATEWAY = "host-gateway"

_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def parse_extra_host(text: str) -> tuple[str, str]:
    """`--add-host NAME:IP` (or `NAME=IP`): (name, address or "host-gateway"). Raises InvalidInput."""
    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    address = address.strip("[]") if separator else ""
    if not name or not address or any(c.isspace() for c in text):
        raise InvalidInput(f"bad format for add-host: {text!r}", hint="write --add-host name:10.0.0.1")
    if address != HOST_GATEWAY:
        parse_address(address, "IP address in add-host")
    return name, address


def hosts(own: Iterable[tuple[str, str]], extra: Iterable[str], gateway: str) -> str:
    """The file of a container with a network of its own. `own` are (address, names); `gateway` is what host-gateway means."""
    lines = [*_LOCAL]
    lines += extra_lines(extra, gateway)
    lines += [f"{address}\t{names}" for address, names in own]
    return "".join(f"{line}\n" for line in lines)


def extra_lines(extra: Iterable[str], gateway: str) -> list[str]:
    lines = []
    for text in extra:
        name, address = parse_extra_host(text)
        lines.append(f"{gateway if address == HOST_GATEWAY else address}\t{name}")
    return lines


def own_names(hostname: str, domainname: str) -> str:
    """How a container names itself in `/etc/hosts`: `foo.example.org foo`, however that is split over the two."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    first, dot, _ = full.partition(".")
    return f"{full} {first}" if dot and first else full


def add_line(text: str, address: str, names: str) -> str:
    """A connected network's line, at the end."""
    return text + ("" if text.endswith("\n") or not text else "\n") + f"{address}\t{names}\n"


def remove_line(text: str, address: str) -> str:
    """Without the lines of an address: a network was disconnected. Everything else stays as the container has made it."""
    return "".join(line for line in text.splitlines(keepends=True) if line.split()[:1] != [address])


def remove_named(text: str, name: str) -> str:
    """Without the line whose first name this is: that of a link."""
    return "".join(line for line in text.splitlines(keepends=True) if line.split()[1:2] != [name])


# --- resolv.conf ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says (resolv.conf(5))."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines)


def parse_resolver(text: str) -> Resolver:
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), search, tuple(options))


def only_local(resolver: Resolver) -> bool:
    """Whether the host asks a server of its own alone (systemd-resolved's stub, dnsmasq)."""
    return bool(resolver.servers) and all(_is_local(server) for server in resolver.servers)


def _is_local(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


def with_flags(base: Resolver, servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> Resolver:
    """`--dns`, `--dns-search` ("." for none) and `--dns-option` in place of what the host has."""
    for server in servers:
        parse_address(server, "DNS server")
    wanted = tuple(name for name in search if name != ".") if search else base.search
    return Resolver(tuple(servers) or base.servers, wanted, tuple(options) or base.options)


def outside(base: Resolver, *, ipv6: bool) -> Resolver:
    """For a container that asks the servers itself: not those on the host's loopback, and IPv6 ones only with IPv6."""
    reachable = tuple(s for s in base.servers if not _is_local(s) and (ipv6 or ":" not in s))
    return Resolver(reachable or FALLBACK, base.search, base.options)


def embedded(base: Resolver) -> Resolver:
    """For a container with the embedded name server. `ndots:0`: a name without a dot is asked for as it is."""
    options = base.options if any(o.startswith("ndots:") for o in base.options) else (*base.options, "ndots:0")
    return Resolver((EMBEDDED,), base.search, options)
