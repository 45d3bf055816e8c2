"""Legacy links (`--link NAME[:ALIAS]`): names of other containers, lines in /etc/hosts, and variables that tell of their ports.

On networks of users a link is a name that the name server knows; on the default network, which has none, it is a line in
/etc/hosts and Docker's variables (docs.docker.com, "Legacy container links").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.runtime.netconfig import Endpoint
    from engine.service.networks import NetworkService

_OWN = ("HOME", "PATH")  # variables of the other one that say nothing to its neighbour


@dataclass(frozen=True, slots=True)
class Linked:
    """What links give a container on the default network: (address, names) for /etc/hosts, and its variables."""

    lines: Sequence[tuple[str, str]] = ()
    env: Sequence[str] = ()


def parse(texts: Iterable[str]) -> list[tuple[str, str]]:
    """(container, alias) of each. Raises InvalidInput."""
    found = []
    for text in texts:
        name, _, alias = text.partition(":")
        if not name:
            raise InvalidInput(f"bad format for links: {text!r}", hint="write --link container:alias")
        found.append((name.lstrip("/"), alias.rpartition("/")[2] or name.lstrip("/")))
    return found


def names(texts: Iterable[str]) -> dict[str, str]:
    """Alias to container, as the name server has it."""
    return {alias: name for name, alias in parse(texts)}


def without(texts: Sequence[str], alias: str) -> tuple[str, ...]:
    """The links but that of `alias`. Raises NotFound."""
    left = tuple(text for text in texts if parse([text])[0][1] != alias)
    if len(left) == len(texts):
        raise NotFound(f"there is no link {alias}")
    return left


def resolve(networks: NetworkService, texts: Sequence[str], name: str, endpoints: Sequence[Endpoint]) -> Linked:
    """For the start of container `name`. Raises Conflict for a container that does not run."""
    plain = next((endpoint for endpoint in endpoints if not endpoint.network.resolves), None)
    if plain is None or not texts:
        return Linked()
    others = {each["name"]: (identity, each) for identity, each in networks.active(plain.network.id).items()}
    lines, env = [], []
    for wanted, alias in parse(texts):
        identity, other = others.get(wanted) or next(
            (pair for pair in others.values() if wanted and pair[0].startswith(wanted)), ("", None)
        )
        if other is None:
            raise Conflict(
                f"Cannot link to a non running container: {wanted}", hint="start it first, on the same network"
            )
        address = other["address4"].partition("/")[0]
        lines.append((address, " ".join(dict.fromkeys((alias, identity[:12], other["name"])))))
        env += variables(f"/{name}/{alias}", address, networks.container_record(identity))
    return Linked(lines, env)


def variables(name: str, address: str, other: Mapping[str, Any]) -> list[str]:
    """`ALIAS_PORT_80_TCP=tcp://172.17.0.2:80` and the others, of a link `name` ("/web/db") to a container's record."""
    prefix = name.rpartition("/")[2].upper().replace("-", "_")
    pairs = [text.partition("/")[::2] for text in other.get("exposed", ())]
    ports = sorted(((int(number), kind) for number, kind in pairs), key=lambda port: (port[1] != "tcp", port[0]))
    found = [f"{prefix}_PORT={kind}://{address}:{number}" for number, kind in ports[:1]]
    for number, kind in ports:
        key = f"{prefix}_PORT_{number}_{kind.upper()}"
        found += [
            f"{key}={kind}://{address}:{number}",
            f"{key}_ADDR={address}",
            f"{key}_PORT={number}",
            f"{key}_PROTO={kind}",
        ]
    found.append(f"{prefix}_NAME={name}")
    for entry in other.get("env", ()):
        variable, equals, value = entry.partition("=")
        if equals and variable not in _OWN:
            found.append(f"{prefix}_ENV_{variable}={value}")
    return found
