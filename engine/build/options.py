"""Options of a build that reach its RUN steps: limits and host names. And what is refused rather than passed over."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from engine.build.compressing import KINDS
from engine.errors import InvalidInput
from engine.model import BuildOutput, BuildRequest, Ulimit


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


_BOOLS = ("true", "false")
_OUTPUT_OPTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "image": {"name": (), "push": _BOOLS, "push-by-digest": _BOOLS, "compression": KINDS},
    "registry": {"name": (), "push": _BOOLS, "push-by-digest": _BOOLS, "compression": KINDS},
    "local": {"platform-split": _BOOLS},
    "tar": {},
    "oci": {"name": (), "tar": _BOOLS, "compression": KINDS},
    "docker": {"name": (), "tar": _BOOLS, "compression": KINDS},
    "cacheonly": {},
}


def check_request(request: BuildRequest) -> None:
    """What this builder does not know ends the build before it begins: an option that is passed over would be a lie.

    Raises `InvalidInput`.
    """
    for output in request.outputs:
        known = _OUTPUT_OPTIONS[output.type]
        for name, value in output.options.items():
            if name not in known:
                hint = f"it knows {', '.join(known)}" if known else "it has none"
                raise InvalidInput(f"--output type={output.type} has no option {name!r}", hint=hint)
            if known[name] and value not in known[name]:
                raise InvalidInput(f"--output {name}={value} is not known", hint=f"{', '.join(known[name])} are")
        named = [name for name in output.options.get("name", "").split(",") if name]
        if pushes(output) and not (named or request.tags):
            raise InvalidInput("a push needs a name", hint="name the image: -t HOST/NAME:TAG")


def pushes(output: BuildOutput) -> bool:
    """Whether the output goes to a registry."""
    return output.type == "registry" or (output.type == "image" and output.options.get("push", "") == "true")


def inline_asked(request: BuildRequest) -> bool:
    """`--build-arg BUILDKIT_INLINE_CACHE=1`."""
    return request.build_args.get("BUILDKIT_INLINE_CACHE", "") in ("1", "true")
