"""Writes a container's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, and changes them while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.model import ContainerSpec
from engine.network import files
from engine.runtime.netconfig import Endpoint
from engine.runtime.spec import BindMount

HOST_RESOLV = Path("/etc/resolv.conf")
SYSTEMD_RESOLV = Path("/run/systemd/resolve/resolv.conf")


def own_files(
    folder: Path,
    spec: ContainerSpec,
    hostname: str,
    endpoints: Sequence[Endpoint],
    links: Sequence[tuple[str, str]] = (),
    *,
    resolves: bool = False,
) -> list[BindMount]:
    """Of a container with a network of its own. `links` are (address, names) of others. `resolves`: it asks the embedded
    name server, whatever its networks are."""
    named = files.own_names(hostname, spec.domainname)
    own = [(str(address.ip), named) for endpoint in endpoints for address in endpoint.addresses()]
    gateway = next(
        (str(g.ip) for e in sorted(endpoints, key=lambda e: not e.default) for g in e.network.gateways()), "127.0.0.1"
    )
    hosts = files.hosts([*links, *own], spec.extra_hosts, gateway)
    text = resolver(
        spec,
        resolves=resolves or any(endpoint.network.resolves for endpoint in endpoints),
        ipv6=any(endpoint.address6 for endpoint in endpoints),
    )
    return _write(folder, hosts, hostname, text)


def resolver(spec: ContainerSpec, *, resolves: bool, ipv6: bool) -> str:
    """resolv.conf: the embedded name server where there are names to resolve, else servers that the container reaches."""
    base = files.with_flags(host_resolver(), spec.dns, spec.dns_search, spec.dns_options)
    if resolves:
        return files.embedded(base).text()
    return (base if spec.dns else files.outside(base, ipv6=ipv6)).text()


def shared_files(folder: Path, spec: ContainerSpec, hostname: str, mode: str) -> list[BindMount]:
    """Of a container on the host's network, or on none."""
    if mode == "none":
        hosts = files.hosts((), spec.extra_hosts, "127.0.0.1")
    else:
        hosts = _read(Path("/etc/hosts")) or "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
        hosts = hosts.rstrip("\n") + "\n"
        hosts += "".join(f"{line}\n" for line in files.extra_lines(spec.extra_hosts, "127.0.0.1"))
        if spec.hostname:
            hosts += f"127.0.1.1\t{files.own_names(hostname, spec.domainname)}\n"
    text = _read(HOST_RESOLV)
    if spec.dns or spec.dns_search or spec.dns_options:
        base = files.parse_resolver(text)
        text = files.with_flags(base, spec.dns, spec.dns_search, spec.dns_options).text()
    return _write(folder, hosts, hostname, text)


def host_resolver() -> files.Resolver:
    """The host's, or what is behind systemd-resolved's stub, which a container cannot reach."""
    found = files.parse_resolver(_read(HOST_RESOLV))
    if files.only_local(found):
        behind = _read(SYSTEMD_RESOLV)
        if behind:
            return files.parse_resolver(behind)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _write(folder: Path, hosts: str, hostname: str, resolver: str) -> list[BindMount]:
    for name, text in (("hosts", hosts), ("hostname", f"{hostname}\n"), ("resolv.conf", resolver)):
        path = folder / name
        path.write_text(text, errors="surrogateescape")
        path.chmod(0o644)
    return mounts_of(folder)


def mounts_of(folder: Path) -> list[BindMount]:
    return [BindMount(str(folder / name), f"/etc/{name}", mapped=True) for name in ("resolv.conf", "hostname", "hosts")]


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    """In place: the container has this very file mounted."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "r+", errors="surrogateescape") as file:
        text = change(file.read())
        file.seek(0)
        file.write(text)
        file.truncate()
