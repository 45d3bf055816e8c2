"""What a container's record and its monitor's state say of its network, as `ps` and `inspect` show it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.service.network_modes import mode_of

if TYPE_CHECKING:
    from engine.model import Port
    from engine.runtime.state import State


def discarded(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """What a container's recorded specification asks for that its network's mode or this host cannot give, as Docker warns."""
    found = []
    if spec.get("blkio_weight"):
        from engine.linux import cgroup

        if not cgroup.has_block_weight():
            found.append("block I/O weight cannot be limited here: no blkio.weight")
    if spec.get("oom_kill_disable") and not spec.get("memory"):
        found.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
            "out of resources."
        )
    if (spec.get("port_bindings") or spec.get("publish_all")) and mode_of(
        spec.get("network_mode", "default")
    ) == "host":
        found.append("Published ports are discarded when using host network mode")
    return tuple(found)


def published(record: Mapping[str, Any], state: State) -> tuple[Port, ...]:
    """Docker's Ports: what is published, and what is only exposed, while it runs."""
    if not state.active:
        return ()
    from engine.model import Port

    found = [
        Port(port["container_port"], port["protocol"], port["host_port"], port["host_ip"])
        for port in (state.network or {}).get("published", ())
    ]
    known = {f"{port.private_port}/{port.type}" for port in found}
    for text in record.get("exposed", ()):
        if text not in known:
            number, _, kind = text.partition("/")
            found.append(Port(int(number), kind))
    return tuple(found)


def inspected(record: Mapping[str, Any], state: State, networks: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """`NetworkSettings.Networks`; `networks` are all names, by id."""
    mode = mode_of(str(record["spec"].get("network_mode", "default")))
    found: dict[str, dict[str, object]] = {}
    live = {each["network"]["id"]: each for each in (state.network or {}).get("endpoints", ())} if state.active else {}
    wanted: Mapping[str, dict[str, Any]] = record.get("networks") or {}
    if mode in ("host", "none"):
        from dataclasses import asdict

        from engine.model import EndpointSettings

        wanted = {next((key for key, name in networks.items() if name == mode), ""): asdict(EndpointSettings())}
    for identity, settings in wanted.items():
        found[networks.get(identity, identity)] = _endpoint(identity, settings, live.get(identity))
    return found


def _endpoint(identity: str, settings: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, object]:
    four, six = ((live or {}).get(key) or "" for key in ("address4", "address6"))
    network = (live or {}).get("network") or {}
    internal = bool(network.get("internal"))
    wishes = (("IPv4Address", "ipv4_address"), ("IPv6Address", "ipv6_address"), ("LinkLocalIPs", "link_local"))
    config = {key: settings[name] for key, name in wishes if settings.get(name)}
    return {
        "IPAMConfig": config or None,
        "Links": list(settings["links"]) or None,
        "Aliases": list(settings["aliases"]) or None,
        "MacAddress": (live or {}).get("mac") or settings["mac_address"],
        "DriverOpts": settings.get("driver_options") or None,
        "GwPriority": settings.get("gateway_priority", 0),
        "NetworkID": identity,
        "EndpointID": (live or {}).get("id", ""),
        "Gateway": "" if internal else str(network.get("gateway4") or "").partition("/")[0],
        "IPAddress": four.partition("/")[0],
        "IPPrefixLen": int(four.partition("/")[2] or 0),
        "IPv6Gateway": "" if internal or not six else str(network.get("gateway6") or "").partition("/")[0],
        "GlobalIPv6Address": six.partition("/")[0],
        "GlobalIPv6PrefixLen": int(six.partition("/")[2] or 0),
        "DNSNames": list((live or {}).get("names") or ()) or None,
    }
