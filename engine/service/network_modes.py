"""What a container's network mode means on this host."""

from __future__ import annotations

from engine.linux import userns


def mode_of(network_mode: str) -> str:
    """host, none, container, or bridge for every network. An ordinary user without pasta or slirp4netns has the host's
    network by default: links and rules outside its namespace are not its to make."""
    if network_mode.startswith("container:"):
        return "container"
    if network_mode in ("", "default", "bridge") and no_bridges():
        return "host"
    return network_mode if network_mode in ("host", "none") else "bridge"


def shown_mode(network_mode: str) -> str:
    """As Docker's API has it since 26: the default network by its name."""
    return "bridge" if network_mode in ("", "default") else network_mode


def no_bridges() -> bool:
    return userns.entered_by() is not None and not userns.network_helpers()


def ways_out() -> tuple[str, ...]:
    """What leads out of an ordinary user's network namespace; () for root."""
    return userns.network_helpers() if userns.entered_by() is not None else ()
