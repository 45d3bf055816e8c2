"""Options of a build that reach its RUN steps: limits and host names. And what is refused rather than passed over."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from engine.errors import InvalidInput, Unsupported
from engine.model import BuildRequest, Ulimit


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024` or `nofile=1024:2048` (soft:hard), as docker/go-units reads it. Raises `InvalidInput`."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        low = int(soft)
        high = int(hard) if hard else low
    except ValueError:
        raise InvalidInput(f"invalid ulimit {text!r}", hint="write NAME=SOFT[:HARD]: nofile=1024:2048") from None
    if high != -1 and (low > high or low == -1):
        raise InvalidInput(f"invalid ulimit {text!r}: the soft limit is above the hard one")
    return Ulimit(name.lower(), low, high)


def check_hosts(entries: Sequence[str]) -> None:
    """`--add-host name:address` (or `name=address`, or `host-gateway` as the address). Raises `InvalidInput`."""
    for text in entries:
        name, mark, address = text.partition("=") if "=" in text else text.partition(":")
        try:
            if address != "host-gateway":
                ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            raise InvalidInput(
                f"--add-host {text}: {address!r} is not an address", hint="write NAME:ADDRESS: db:10.0.0.5"
            ) from None
        if not name or not mark or any(c.isspace() for c in name):
            raise InvalidInput(f"--add-host {text}: no name is given", hint="write NAME:ADDRESS")


def refuse_unsupported(request: BuildRequest) -> None:
    """What this builder cannot do (yet) ends the build before it begins: an option that is passed over would be a lie."""
    asked = {
        "--cache-from": request.cache_from,
        "--cache-to": request.cache_to,
        "--push": [output for output in request.outputs if output.type == "registry"],
    }
    for flag, value in asked.items():
        if value:
            raise Unsupported(f"{flag} is not supported yet", hint="leave it out")
    if request.network not in ("", "default", "host", "none"):
        raise InvalidInput(f"--network {request.network} is not known", hint="default, none and host are")
