"""Which hosts stand for a registry, how each may be spoken to, and the credentials for it.

Sources, the first that names a registry's mirrors wins: `WORKBENCH_MIRRORS`, `<root>/registries.json`,
`/etc/workbench/registries.json`. Certificates stand in `certs.d` folders as Docker and Podman have them: `HOST[:PORT]/*.crt` are
authorities, `*.cert` with `*.key` are the client's own.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urlsplit

from engine.errors import InvalidInput
from engine.registry.credentials import HUB, HUB_HOST, Credentials, Keychain, canonical, read_json

if TYPE_CHECKING:
    from engine.registry.connections import Connections

__all__ = ["Credentials", "Endpoint", "RegistryConfig", "Retry"]

_SYSTEM_FILE = Path("/etc/workbench/registries.json")
_SYSTEM_CERTS = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))
_HOST = re.compile(r"^(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:[0-9]{1,5})?$")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a request is repeated. Delays double from `base` seconds up to `cap`."""

    tries: int = 5
    base: float = 0.25
    cap: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host that may answer for a registry: a mirror, or the registry itself."""

    label: str  # what messages call it
    host: str  # host[:port], lower case
    schemes: tuple[str, ...]  # in the order to try
    prefix: str = ""  # path before /v2, of a mirror behind a path
    verify: bool = True  # check TLS certificates
    mirror: bool = False

    @property
    def relaxed(self) -> bool:
        """Plain HTTP is allowed here: the host is loopback, or the user named it as insecure or by http://."""
        return "http" in self.schemes


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Mirrors, insecure hosts and credentials, all keyed by lower-case `host[:port]` ("docker.io" for the Hub).

    `credentials` are given outright (tests, a login under way); the `keychain` is asked for other hosts.
    """

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    retry: Retry = Retry()
    keychain: Keychain | None = field(default=None, repr=False)
    certs: tuple[Path, ...] = ()
    connections: Connections | None = field(default=None, repr=False, compare=False)  # None: a transfer has its own

    @classmethod
    def load(
        cls, root: Path, env: Mapping[str, str] | None = None, *, system_file: Path = _SYSTEM_FILE
    ) -> RegistryConfig:
        """Reads every source. `InvalidInput` names the file (or variable) that cannot be understood."""
        env = os.environ if env is None else env
        mirrors = _mirrors_of_env(env.get("WORKBENCH_MIRRORS", ""))
        insecure: set[str] = set()
        for path in (root / "registries.json", system_file):
            more, hosts = _read_registries(path)
            mirrors = {**more, **mirrors}
            insecure |= hosts
        home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or Path.home()) / ".config")
        certs = (root / "certs.d", home / "containers/certs.d", *_SYSTEM_CERTS)
        return cls(mirrors, frozenset(insecure), keychain=Keychain(env), certs=certs)

    def endpoints(self, domain: str) -> tuple[Endpoint, ...]:
        """Who to ask about images of `domain`: its mirrors in their order, the registry itself last."""
        name = canonical(domain)
        return (*(self._mirror(url) for url in self.mirrors.get(name, ())), self._registry(name))

    def registry(self, domain: str) -> Endpoint:
        """The registry itself, without its mirrors: where pushes and logins go."""
        return self._registry(canonical(domain))

    def credentials_for(self, endpoint: Endpoint) -> Credentials | None:
        """What is configured for exactly this host; a mirror never gets the credentials of what it mirrors."""
        host = canonical(endpoint.host)
        if host in self.credentials or self.keychain is None:
            return self.credentials.get(host)
        return self.keychain.get(host)

    def _registry(self, name: str) -> Endpoint:
        host = HUB_HOST if name == HUB else name
        named = name in self.insecure
        schemes = ("https", "http") if named or is_loopback(host) else ("https",)
        return Endpoint(name, host, schemes, verify=not (named or is_loopback(host)))

    def _mirror(self, url: str) -> Endpoint:
        parts = urlsplit(url)
        host = parts.netloc.lower()
        verify = not (host in self.insecure or is_loopback(host))
        return Endpoint(url, host, (parts.scheme,), parts.path.rstrip("/"), verify=verify, mirror=True)


def literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that `host` (no port) writes out, in any spelling a resolver takes (`0x7f.1`, `::ffff:10.0.0.1`)."""
    bare = host.strip("[]").split("%")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(bare))
        except (OSError, ValueError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def hostname(host: str) -> str:
    """`host[:port]` (or a bare IPv6 address) without the port and without brackets."""
    if host.startswith("["):
        return host[1:].split("]")[0]
    return host if host.count(":") > 1 else host.split(":")[0]


def is_loopback(host: str) -> bool:
    """`host[:port]` is this machine, by its name or address. Docker treats such registries as insecure, too."""
    name = hostname(host).rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = literal_address(name)
    return address is not None and address.is_loopback


def _mirrors_of_env(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        domain, equals, url = item.partition("=")
        if not equals:
            raise InvalidInput(
                f"WORKBENCH_MIRRORS: {item!r} names no registry",
                hint="write REGISTRY=URL, several with commas: docker.io=http://127.0.0.1:5000",
            )
        name = _check_host(domain.strip(), "WORKBENCH_MIRRORS")
        found[name] = (*found.get(name, ()), _check_url(url.strip(), "WORKBENCH_MIRRORS"))
    return found


def _read_registries(path: Path) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    document = read_json(path)
    unknown = sorted(set(document) - {"mirrors", "insecure"})
    if unknown:
        raise InvalidInput(f"{path}: unknown key {unknown[0]!r}", hint="the keys are mirrors and insecure")
    mirrors = document.get("mirrors", {})
    insecure = document.get("insecure", [])
    if not isinstance(mirrors, dict) or not all(_is_strings(urls) for urls in mirrors.values()):
        raise InvalidInput(
            f"{path}: mirrors is not an object of lists", hint='write {"mirrors": {"docker.io": ["http://host:5000"]}}'
        )
    if not _is_strings(insecure):
        raise InvalidInput(f"{path}: insecure is not a list", hint='write {"insecure": ["host:5000"]}')
    where = str(path)
    table = {_check_host(name, where): tuple(_check_url(url, where) for url in urls) for name, urls in mirrors.items()}
    return table, {_check_host(host, where) for host in insecure}


def _is_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_host(text: str, where: str) -> str:
    host = text.lower()
    if not _HOST.match(host):
        raise InvalidInput(f"{where}: {text!r} is not a registry", hint="write host or host:port, without http://")
    return canonical(host)


def _check_url(text: str, where: str) -> str:
    parts = urlsplit(text)
    plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("http", "https") or not plain or not _HOST.match(parts.netloc.lower()):
        raise InvalidInput(
            f"{where}: a mirror's address is wrong: {parts.scheme}://{parts.netloc.split('@')[-1]}",
            hint="write http://host:port or https://host, without user and password",
        )
    return text.rstrip("/")
