"""Which hosts stand for a registry, how each may be spoken to, and the credentials for it.

Sources, the first that names a registry's mirrors wins: `WORKBENCH_MIRRORS`, `<root>/registries.json`,
`/etc/workbench/registries.json`. Credentials come from Docker's own `config.json`, so `docker login` serves both.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit

from engine.errors import InvalidInput, from_os_error

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
_HUB_ALIASES = {HUB, "index.docker.io", HUB_HOST}
_SYSTEM_FILE = Path("/etc/workbench/registries.json")
_HOST = re.compile(r"^(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:[0-9]{1,5})?$")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or an identity token (OAuth2 refresh token) in the password's place."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


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
    """Mirrors, insecure hosts and credentials, all keyed by lower-case `host[:port]` ("docker.io" for the Hub)."""

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    retry: Retry = Retry()

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
        return cls(mirrors, frozenset(insecure), _read_docker_config(env))

    def endpoints(self, domain: str) -> tuple[Endpoint, ...]:
        """Who to ask about images of `domain`: its mirrors in their order, the registry itself last."""
        name = _canonical(domain)
        return (*(self._mirror(url) for url in self.mirrors.get(name, ())), self._registry(name))

    def registry(self, domain: str) -> Endpoint:
        """The registry itself, without its mirrors: where pushes and logins go."""
        return self._registry(_canonical(domain))

    def credentials_for(self, endpoint: Endpoint) -> Credentials | None:
        """What is configured for exactly this host; a mirror never gets the credentials of what it mirrors."""
        return self.credentials.get(_canonical(endpoint.host))

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


def _canonical(host: str) -> str:
    host = host.lower()
    return HUB if host in _HUB_ALIASES else host


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
    document = _read_json(path)
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
    return _canonical(host)


def _check_url(text: str, where: str) -> str:
    parts = urlsplit(text)
    plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("http", "https") or not plain or not _HOST.match(parts.netloc.lower()):
        raise InvalidInput(
            f"{where}: a mirror's address is wrong: {parts.scheme}://{parts.netloc.split('@')[-1]}",
            hint="write http://host:port or https://host, without user and password",
        )
    return text.rstrip("/")


def _read_json(path: Path) -> dict[str, object]:
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise from_os_error(error, "reading the registry configuration") from error
    try:
        document = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}", hint="mend or remove the file") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a JSON object", hint="mend or remove the file")
    return document


def _read_docker_config(env: Mapping[str, str]) -> dict[str, Credentials]:
    folder = env.get("DOCKER_CONFIG") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".docker")
    path = Path(folder) / "config.json"
    auths = _read_json(path).get("auths")
    found: dict[str, Credentials] = {}
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        # Docker writes bare hosts, older versions whole addresses ("https://index.docker.io/v1/").
        host = _canonical(key.split("://")[-1].split("/")[0])
        credentials = _credentials(entry, f"{path}: auths[{host!r}]") if isinstance(entry, dict) else None
        if credentials is not None:
            found[host] = credentials
    return found


def _credentials(entry: Mapping[str, object], where: str) -> Credentials | None:
    username, password = entry.get("username"), entry.get("password")
    packed, token = entry.get("auth"), entry.get("identitytoken")
    if isinstance(packed, str) and packed:
        try:
            # Docker pads the decoded text with NULs in old files.
            text = base64.b64decode(packed, validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            text = ""
        username, colon, password = text.partition(":")
        if not colon:
            raise InvalidInput(f"{where}: auth is not base64 of user:password", hint="run `docker login` again")
    token = token if isinstance(token, str) else ""
    username = username if isinstance(username, str) else ""
    password = password if isinstance(password, str) else ""
    return Credentials(username, password, token) if token or username else None
