"""`network create | connect | disconnect | inspect | ls | prune | rm`, and `port`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.clock import go_time
from engine.cli.common import each, read, run
from engine.cli.flags import Flag
from engine.cli.nouns import Verb, confirmed, dispatch, filters, inspect, listing, pairs
from engine.errors import EngineError, InvalidInput, NotFound
from engine.model import EndpointSettings, IpamConfig, NetworkInfo, NetworkSpec
from engine.network.ports import join_host

if TYPE_CHECKING:
    from engine.api import Engine


def cmd_network(root: Path, args: list[str]) -> int:
    verbs: dict[str, Verb] = {
        "connect": _connect,
        "create": _create,
        "disconnect": _disconnect,
        "inspect": _inspect,
        "ls": _list,
        "prune": _prune,
        "rm": _remove,
    }
    return dispatch("network", verbs, root, args)


def _create(root: Path, args: list[str]) -> int:
    flags = [
        Flag("attachable", "Enable manual container attachment"),
        Flag("aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver", kind="list"),
        Flag("driver", "Driver to manage the Network", "d", kind="str"),
        Flag("gateway", "IPv4 or IPv6 Gateway for the master subnet", kind="list"),
        Flag("internal", "Restrict external access to the network"),
        Flag("ip-range", "Allocate container ip from a sub-range", kind="list"),
        Flag("ipv6", "Enable IPv6 networking"),
        Flag("label", "Set metadata on a network", kind="list"),
        Flag("opt", "Set driver specific options", "o", kind="list"),
        Flag("subnet", "Subnet in CIDR format that represents a network segment", kind="list"),
    ]
    parsed = read(args, "network create [OPTIONS] NETWORK", "Create a network", flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    spec = NetworkSpec(
        parsed.args[0],
        parsed.text("driver", "bridge"),
        parsed.on("internal"),
        parsed.on("attachable"),
        parsed.on("ipv6"),
        ipam_configs(
            parsed.items("subnet"),
            parsed.items("gateway"),
            parsed.items("ip-range"),
            pairs(parsed.items("aux-address")),
        ),
        pairs(parsed.items("opt")),
        pairs(parsed.items("label")),
    )

    async def work(engine: Engine) -> int:
        print(await engine.create_network(spec))
        return 0

    return run(root, work, plain=True)


def ipam_configs(
    subnets: list[str], gateways: list[str], ranges: list[str], auxiliary: dict[str, str]
) -> tuple[IpamConfig, ...]:
    """Flags that may be given many times, each put to the subnet it lies in. Raises `InvalidInput`."""
    from engine.network import ipam

    if not subnets and (gateways or ranges or auxiliary):
        raise InvalidInput("every ip-range or gateway must have a corresponding subnet")
    nets = [ipam.parse_subnet(text) for text in subnets]

    def owner(text: str, what: str) -> int:
        inner = ipam.parse_subnet(text, what).network_address if "/" in text else ipam.parse_address(text, what)
        for index, net in enumerate(nets):
            if inner in net:
                return index
        raise InvalidInput(f"no matching subnet for {what} {text}")

    def sole(values: list[str], what: str) -> dict[int, str]:
        found: dict[int, str] = {}
        for text in values:
            index = owner(text, what)
            if index in found:
                raise InvalidInput(f"cannot configure multiple {what}s ({text}, {found[index]}) on the same subnet")
            found[index] = text
        return found

    routers, areas = sole(gateways, "gateway"), sole(ranges, "range")
    placed = {name: owner(text, "aux-address") for name, text in auxiliary.items()}
    return tuple(
        IpamConfig(
            subnet,
            routers.get(index, ""),
            areas.get(index, ""),
            {name: text for name, text in auxiliary.items() if placed[name] == index},
        )
        for index, subnet in enumerate(subnets)
    )


def _connect(root: Path, args: list[str]) -> int:
    flags = [
        Flag("alias", "Add network-scoped alias for the container", kind="list"),
        Flag("ip", "IPv4 address (e.g., 172.30.100.104)", kind="str"),
        Flag("ip6", "IPv6 address (e.g., 2001:db8::33)", kind="str"),
        Flag("link", "Add link to another container", kind="list"),
        Flag("link-local-ip", "Add a link-local address for the container", kind="list"),
        Flag("driver-opt", "Driver options for the network", kind="list"),
        Flag("gw-priority", "Highest gw-priority provides the default gateway", kind="int"),
    ]
    usage = "network connect [OPTIONS] NETWORK CONTAINER"
    parsed = read(args, usage, "Connect a container to a network", flags, minimum=2, maximum=2)
    if parsed is None:
        return 0
    settings = EndpointSettings(
        tuple(parsed.items("alias")),
        parsed.text("ip"),
        parsed.text("ip6"),
        links=tuple(parsed.items("link")),
        link_local=tuple(parsed.items("link-local-ip")),
        driver_options=pairs(parsed.items("driver-opt")),
        gateway_priority=parsed.number("gw-priority"),
    )

    async def work(engine: Engine) -> int:
        await engine.connect_network(parsed.args[0], parsed.args[1], settings)
        return 0

    return run(root, work, plain=True)


def _disconnect(root: Path, args: list[str]) -> int:
    flags = [Flag("force", "Force the container to disconnect from a network", "f")]
    usage = "network disconnect [OPTIONS] NETWORK CONTAINER"
    parsed = read(args, usage, "Disconnect a container from a network", flags, minimum=2, maximum=2)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        await engine.disconnect_network(parsed.args[0], parsed.args[1], force=parsed.on("force"))
        return 0

    return run(root, work, plain=True)


def _inspect(root: Path, args: list[str]) -> int:
    flags = [
        Flag("format", "Format output with a template", "f", kind="str"),
        Flag("verbose", "Verbose output for diagnostics", "v"),
    ]
    usage = "network inspect [OPTIONS] NETWORK [NETWORK...]"
    parsed = read(args, usage, "Display detailed information on one or more networks", flags, minimum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        async def look(name: str) -> Mapping[str, Any]:
            return (await engine.network(name)).config

        return await inspect(parsed, look)

    return run(root, work, plain=True)


def _row(network: NetworkInfo, *, full: bool) -> dict[str, object]:
    return {
        "ID": network.id if full else network.id[:12],
        "Name": network.name,
        "Driver": network.driver,
        "Scope": network.scope,
        "IPv4": "true",
        "IPv6": str(network.enable_ipv6).lower(),
        "Internal": str(network.internal).lower(),
        "Labels": ",".join(f"{key}={value}" for key, value in network.labels.items()),
        "CreatedAt": go_time(network.created, fraction=True),
    }


def _list(root: Path, args: list[str]) -> int:
    flags = [
        Flag("filter", "Filter by driver=, id=, name=, label=, scope=, type=, dangling=", "f", kind="list"),
        Flag("format", "Format output: json, table …, or a template of {{.Field}}", kind="str"),
        Flag("no-trunc", "Do not truncate the output"),
        Flag("quiet", "Only display network IDs", "q"),
    ]
    parsed = read(args, "network ls [OPTIONS]", "List networks", flags, maximum=0)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        rows = [
            _row(network, full=parsed.on("no-trunc"))
            for network in await engine.networks(filters(parsed.items("filter")))
        ]
        columns = {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SCOPE": "Scope"}
        return listing(parsed, rows, columns, "ID")

    return run(root, work, plain=True)


def _prune(root: Path, args: list[str]) -> int:
    flags = [
        Flag("filter", "Provide filter values (until=<timestamp>, label=)", kind="list"),
        Flag("force", "Do not prompt for confirmation", "f"),
    ]
    parsed = read(args, "network prune [OPTIONS]", "Remove all unused networks", flags, maximum=0)
    if parsed is None:
        return 0
    warning = "This will remove all custom networks not used by at least one container."
    if not parsed.on("force") and not confirmed(warning):
        return 1

    async def work(engine: Engine) -> int:
        removed = await engine.prune_networks(filters(parsed.items("filter")))
        if removed:
            print("Deleted Networks:\n" + "\n".join(removed) + "\n")
        return 0

    return run(root, work, plain=True)


def _remove(root: Path, args: list[str]) -> int:
    flags = [Flag("force", "Do not error if the network does not exist", "f")]
    usage = "network rm NETWORK [NETWORK...]"
    parsed = read(args, usage, "Remove one or more networks", flags, minimum=1)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        async def remove(name: str) -> None:
            try:
                await engine.remove_network(name)
            except NotFound:
                if not parsed.on("force"):
                    raise

        return await each(parsed.args, remove)

    return run(root, work, plain=True)


def cmd_port(root: Path, args: list[str]) -> int:
    usage = "port CONTAINER [PRIVATE_PORT[/PROTO]]"
    summary = "List port mappings or a specific mapping for the container"
    parsed = read(args, usage, summary, [], minimum=1, maximum=2)
    if parsed is None:
        return 0
    wanted = ""
    if len(parsed.args) == 2:
        number, _, protocol = parsed.args[1].partition("/")
        if not number.isdigit():
            raise InvalidInput(f"Invalid port: {parsed.args[1]!r}", hint="write 80 or 80/udp")
        wanted = f"{number}/{protocol or 'tcp'}"

    async def work(engine: Engine) -> int:
        detail = await engine.container(parsed.args[0])
        lines = []
        for port in sorted(detail.summary.published, key=lambda p: (p.private_port, p.type)):
            inside = f"{port.private_port}/{port.type}"
            if not port.public_port or wanted not in ("", inside):
                continue
            outside = join_host(port.ip, str(port.public_port))
            lines.append(outside if wanted else f"{inside} -> {outside}")
        if wanted and not lines:
            raise EngineError(f"no public port '{wanted}' published for {parsed.args[0]}")
        if lines:
            print("\n".join(lines))
        return 0

    return run(root, work, plain=True)
