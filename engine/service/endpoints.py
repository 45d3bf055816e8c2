"""Puts containers on networks: addresses, the section of `config.json` that the monitor reads, and the files in /etc.

An address belongs to a container from its start to its removal, unless another one needs it while this one does not run.
The table `endpoints` holds them under SQLite's lock, so that two engines never give the same one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import ipaddress
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.ids import new_id
from engine.base.settings import network_settings
from engine.errors import Conflict, InvalidInput
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.model import ContainerSpec, EndpointSettings
from engine.network import files, ipam, ports
from engine.network.bridge import parse_options
from engine.network.ipam import Subnet
from engine.runtime import netconfig
from engine.runtime import state as states
from engine.runtime.netconfig import ContainerNetwork, Dns, Endpoint, mac_of
from engine.service import links, network_files
from engine.service.endpoint_checks import check, check_mac, check_settings
from engine.service.network_modes import mode_of, ways_out

if TYPE_CHECKING:
    from engine.network.ipam import Address
    from engine.oci.config import ImageConfig
    from engine.runtime.client import Runtime
    from engine.runtime.spec import BindMount
    from engine.runtime.spec_namespaces import Join
    from engine.service.networks import NetworkRecord, NetworkService
    from engine.store.store import Store

STARTING = 60.0  # seconds that an address is kept for a container that has not begun to run


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """What a start needs to know of the network; keyword arguments of `SpecParams`, and the files to mount."""

    network: str
    section: Mapping[str, Any]
    files: Sequence[BindMount]
    hostname: str
    domainname: str = ""
    join: Mapping[str, Join] = dataclasses.field(default_factory=dict)
    env: Sequence[str] = ()  # variables that links bring, below those of the container

    def params(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "network_section": self.section,
            "hostname": self.hostname,
            "domainname": self.domainname,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """Addresses that a container has on a network."""

    id: str
    ipv4: Address | None
    ipv6: Address | None


class EndpointService:
    def __init__(self, store: Store, runtime: Runtime, networks: NetworkService) -> None:
        self._store, self._runtime, self._networks = store, runtime, networks

    def wanted(self, spec: ContainerSpec) -> dict[str, dict[str, Any]]:
        """What a new container's record says of its networks: settings by network id, the first one first."""
        check(spec)
        if mode_of(spec.network_mode) != "bridge":
            return {}
        first = self._networks.find(spec.network_mode or "default")
        if first.driver != "bridge":
            return {}
        found: dict[str, EndpointSettings] = {first.id: EndpointSettings()}
        for name, settings in spec.networks.items():
            record = self._networks.find(name)
            if record.driver != "bridge":
                raise InvalidInput(f"a container on {first.name} cannot be on {record.name} as well")
            found[record.id] = settings
        if spec.mac_address and not found[first.id].mac_address:
            found[first.id] = dataclasses.replace(found[first.id], mac_address=spec.mac_address)
        for identity, settings in found.items():
            check_settings(self._networks.find(identity), settings)
        return {identity: dataclasses.asdict(settings) for identity, settings in found.items()}

    # --- addresses ------------------------------------------------------------------------------------

    def _give(self, record: NetworkRecord, container_id: str, settings: EndpointSettings, holder_of: str = "") -> Given:
        """The container's addresses on a network: those it had, unless others were asked for. Raises Conflict."""
        try:
            return self._give_now(record, container_id, settings, holder_of)
        except Conflict:
            if not self._reclaim(record):
                raise
            return self._give_now(record, container_id, settings, holder_of)

    def _give_now(self, record: NetworkRecord, container_id: str, settings: EndpointSettings, holder_of: str) -> Given:
        wanted = {4: settings.ipv4_address, 6: settings.ipv6_address}
        with self._store.records.write(durable=False) as db:
            rows = db.execute("SELECT * FROM endpoints WHERE network = ?", (record.id,)).fetchall()
            mine = next((row for row in rows if row["container"] == container_id), None)
            found: dict[int, Address | None] = {4: None, 6: None}
            for pool in record.pools:
                column = f"ipv{pool.version}"
                taken = {ipaddress.ip_address(r[column]) for r in rows if r[column] and r["container"] != container_id}
                text = wanted[pool.version]
                had = mine[column] if mine is not None else None
                if not text and had and ipaddress.ip_address(had) in pool.subnet:
                    found[pool.version] = ipaddress.ip_address(had)
                    continue
                asked = ipam.parse_address(text, "address") if text else None
                found[pool.version] = ipam.allocate(pool, taken, asked)
            given = Given(mine["id"] if mine is not None else new_id(), found[4], found[6])
            db.execute(
                "INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    record.id,
                    container_id,
                    given.id,
                    str(given.ipv4) if given.ipv4 else None,
                    str(given.ipv6) if given.ipv6 else None,
                    time.time_ns(),
                    holder_of,
                ),
            )
        return given

    def _reclaim(self, record: NetworkRecord) -> bool:
        """Takes addresses back from what does not run. True: some were."""
        rows = self._store.records.read("SELECT * FROM endpoints WHERE network = ?", record.id)
        free = [row["container"] for row in rows if not self._lives(row)]
        with self._store.records.write(durable=False) as db:
            for container in free:
                db.execute("DELETE FROM endpoints WHERE network = ? AND container = ?", (record.id, container))
        return bool(free)

    def _lives(self, row: sqlite3.Row) -> bool:
        if row["holder"]:  # a build step: it lives as long as the process that builds
            pid, _, start = str(row["holder"]).partition(" ")
            return states.is_alive(int(pid), int(start))
        if self._runtime.state(self._store.containers / row["container"]).active:
            return True
        return bool(time.time_ns() - row["since"] < STARTING * 1e9)

    def release(self, container_id: str, network_id: str = "") -> None:
        """Forgets a removed container's addresses."""
        if self._store.records.one("SELECT 1 FROM endpoints WHERE container = ?", container_id) is None:
            return
        with self._store.records.write(durable=False) as db:
            db.execute(
                "DELETE FROM endpoints WHERE container = ? AND network LIKE ?", (container_id, network_id or "%")
            )

    # --- start ----------------------------------------------------------------------------------------

    def prepare(self, container_id: str, record: dict[str, Any], spec: ContainerSpec, folder: Path) -> Prepared:
        """Everything for a start of a container that is not on another one's network. Raises what `_give` does."""
        mode = mode_of(spec.network_mode)
        hostname = str(record["hostname"])
        if mode != "bridge" or not record.get("networks"):
            if mode == "bridge":  # every network was disconnected
                mode = "none"
            if mode == "host" and not spec.hostname:
                hostname = os.uname().nodename
            mounts = network_files.shared_files(folder, spec, hostname, mode)
            return Prepared(mode, {}, mounts, hostname, spec.domainname)
        settings = {identity: endpoint_settings(values) for identity, values in record["networks"].items()}
        records = [self._usable(self._networks.find(identity)) for identity in settings]
        ways = [(-settings[r.id].gateway_priority, r.name) for r in records if not r.internal]
        way_out = min(ways, default=(0, ""))[1]
        endpoints = [
            self._endpoint(r, container_id, str(record["name"]), spec.hostname, settings[r.id], f"eth{number}", default=r.name == way_out)
            for number, r in enumerate(records)
        ]  # fmt: skip
        config = ContainerNetwork(
            "bridge",
            tuple(endpoints),
            self.bindings(record, spec, records),
            Dns(spec.dns, self._link_names(spec, settings.values())),
            block_metadata=self.blocks(spec),
            way_out=ways_out(),
        )
        linked = links.resolve(self._networks, spec.links, str(record["name"]), endpoints)
        resolves = bool(config.way_out)
        mounts = network_files.own_files(folder, spec, hostname, endpoints, linked.lines, resolves=resolves)
        return Prepared("bridge", netconfig.to_json(config), mounts, hostname, spec.domainname, env=linked.env)

    def blocks(self, spec: ContainerSpec) -> bool:
        """Whether the metadata addresses are refused."""
        if mode_of(spec.network_mode) in ("host", "container"):
            return False
        if spec.block_metadata is not None:
            return spec.block_metadata
        return network_settings(self._store.root).block_metadata

    def _usable(self, record: NetworkRecord) -> NetworkRecord:
        """The network, with another subnet when its own, chosen by us, has become somebody else's while it was down."""
        from engine.runtime import bridges, claims, usernet  # the packet filter: not for commands that start nothing

        config, run_dir = self._networks.config(record), str(self._runtime.run_dir)
        up, trouble = usernet.inside(run_dir, lambda: _in_the_way(config))
        if up:
            return record
        with bridges.host_lock(run_dir):
            # Looked at again under the lock: another engine may have chosen meanwhile.
            _, trouble = usernet.inside(run_dir, lambda: _in_the_way(config))
            wanted = claims.others(record.id)
            met = [one for pool in record.pools if not pool.given for one in wanted if ipam.meets(pool, one)]
            if trouble or met:
                record = self._elsewhere(record, trouble or f"{met[0]} is about to be used by another engine", wanted)
            claims.claim(record.id, (pool.subnet for pool in record.pools))
        return record

    def _elsewhere(self, record: NetworkRecord, trouble: str, wanted: Sequence[Subnet]) -> NetworkRecord:
        pool = record.pool(4)
        if pool is not None and pool.given:
            raise Conflict(
                f"network {record.name} cannot be used: its subnet {pool.subnet} is in use on this host ({trouble})",
                hint="make another network with a free --subnet",
            )
        return self._networks.choose_again(record, wanted)

    def _endpoint(
        self,
        record: NetworkRecord,
        container_id: str,
        name: str,
        hostname: str,
        settings: EndpointSettings,
        link: str,
        *,
        default: bool,
        holder_of: str = "",
    ) -> Endpoint:
        given = self._give(record, container_id, settings, holder_of)
        network = self._networks.config(record)
        prefixes = {pool.version: pool.subnet.prefixlen for pool in record.pools}
        first = given.ipv4 or given.ipv6
        assert first is not None  # a network has a pool
        return Endpoint(
            given.id,
            network,
            link,
            f"{given.ipv4}/{prefixes[4]}" if given.ipv4 else "",
            f"{given.ipv6}/{prefixes[6]}" if given.ipv6 else "",
            settings.mac_address or mac_of(first),
            names(name, container_id, hostname, settings.aliases) if network.resolves else (),
            default,
            link_local=settings.link_local,
        )

    def bindings(
        self, record: Mapping[str, Any], spec: ContainerSpec, records: Sequence[NetworkRecord]
    ) -> tuple[netconfig.PortBinding, ...]:
        """What the monitor binds."""
        host_ip = next((parse_options(r.options).host_ip for r in records if not r.internal), "")
        found = []
        for port, bindings in spec.port_bindings.items():
            for binding in bindings:
                number, protocol = port.split("/")
                first, last = ports.binding_range(binding)
                address = ports.check_host_ip(binding.host_ip) or host_ip
                found.append(netconfig.PortBinding(int(number), protocol, address, first, last if last != first else 0))
        if spec.publish_all:
            for port in record.get("exposed", ()):
                number, protocol = port.split("/")
                if port not in spec.port_bindings and protocol in ports.PROTOCOLS:
                    found.append(netconfig.PortBinding(int(number), protocol, host_ip))
        return tuple(found)

    def build_step(
        self, container_id: str, network: str, folder: Path, hostname: str, hosts: Sequence[str] = (), *, block: bool
    ) -> Prepared:
        """The network of a RUN step. `network` is "", "default", "none", "host" or a network's name."""
        spec = ContainerSpec(image="", network_mode=network or "default", extra_hosts=tuple(hosts))
        mode = mode_of(spec.network_mode)
        if mode == "container":
            raise InvalidInput(
                f"a build step cannot be on the network of {network}", hint="default, none, host or a network"
            )
        if mode != "bridge":
            return Prepared(mode, {}, network_files.shared_files(folder, spec, hostname, mode), hostname)
        record = self._usable(self._networks.find(spec.network_mode))
        owner = f"{os.getpid()} {states.start_time(os.getpid())}"
        endpoint = self._endpoint(
            record, container_id, container_id[:12], "", EndpointSettings(), "eth0", default=not record.internal, holder_of=owner
        )  # fmt: skip
        config = ContainerNetwork("bridge", (endpoint,), block_metadata=block, way_out=ways_out())
        mounts = network_files.own_files(folder, spec, hostname, [endpoint], resolves=bool(config.way_out))
        return Prepared("bridge", netconfig.to_json(config), mounts, hostname)

    @staticmethod
    def _link_names(spec: ContainerSpec, settings: Iterable[EndpointSettings]) -> dict[str, str]:
        return links.names([*spec.links, *(text for each in settings for text in each.links)])

    # --- while it runs --------------------------------------------------------------------------------

    def connect(
        self, record: NetworkRecord, container_id: str, document: dict[str, Any], spec: ContainerSpec, settings: EndpointSettings
    ) -> dict[str, Any]:  # fmt: skip
        """The container's new settings for a network; where it runs, it is connected. Raises Conflict, InvalidInput."""
        name = str(document["name"])
        if mode_of(spec.network_mode) != "bridge":
            raise Conflict(
                f"container {name} is on the network mode {spec.network_mode} and cannot be connected to another network",
                hint="host, none and container:NAME exclude other networks",
            )
        if record.driver != "bridge":
            raise Conflict(f"container cannot be connected to the network {record.name}")
        if record.id in document.get("networks", {}):
            raise Conflict(f"endpoint with name {name} already exists in network {record.name}")
        check_settings(record, settings)
        if settings.mac_address:
            check_mac(settings.mac_address)
        folder = self._store.containers / container_id
        if self._runtime.state(folder).active:
            record = self._usable(record)
            endpoint = self._endpoint(
                record, container_id, name, spec.hostname, settings, "", default=not record.internal
            )
            request = {"op": "connect", "endpoint": netconfig.endpoint_to_json(endpoint)}
            self._runtime.change_network(container_id, request | {"links": links.names(settings.links)})
            named = files.own_names(str(document["hostname"]), spec.domainname)
            for address in endpoint.addresses():
                line = functools.partial(files.add_line, address=str(address.ip), names=named)
                network_files.rewrite(folder / "hosts", line)
            if endpoint.network.resolves:
                network_files.rewrite(
                    folder / "resolv.conf",
                    lambda _text: network_files.resolver(spec, resolves=True, ipv6=bool(endpoint.address6)),
                )
            self._networks.container_event("connect", record, container_id)
        return dataclasses.asdict(settings)

    def disconnect(self, record: NetworkRecord, container_id: str, document: dict[str, Any]) -> None:
        """Raises Conflict when it is not on the network."""
        if record.id not in document.get("networks", {}):
            raise Conflict(f"container {document['name']} is not connected to network {record.name}")
        folder = self._store.containers / container_id
        state = self._runtime.state(folder)
        endpoints = (state.network or {}).get("endpoints", ()) if state.active else ()
        mine = [endpoint for endpoint in endpoints if endpoint["network"]["id"] == record.id]
        if mine:
            self._runtime.change_network(container_id, {"op": "disconnect", "network": record.id})
            for text in (mine[0]["address4"], mine[0]["address6"]):
                if text:
                    gone = functools.partial(files.remove_line, address=text.partition("/")[0])
                    network_files.rewrite(folder / "hosts", gone)
        self.release(container_id, record.id)
        self._networks.container_event("disconnect", record, container_id)

    def unlinked(self, container_id: str, alias: str) -> None:
        """A running container forgets the link's line in /etc/hosts."""
        folder = self._store.containers / container_id
        if self._runtime.state(folder).active:
            with contextlib.suppress(FileNotFoundError):
                network_files.rewrite(folder / "hosts", functools.partial(files.remove_named, name=alias))

    def renamed(self, container_id: str, document: dict[str, Any], spec: ContainerSpec) -> None:
        """A running container is known by its new name."""
        if not self._runtime.state(self._store.containers / container_id).active or not document.get("networks"):
            return
        changed = self.names_of(container_id, document, spec)
        self._runtime.change_network(container_id, {"op": "names", "names": changed})

    def names_of(self, container_id: str, document: dict[str, Any], spec: ContainerSpec) -> dict[str, list[str]]:
        """What it is called on each of its networks, by their ids."""
        return {
            identity: list(names(str(document["name"]), container_id, spec.hostname, tuple(settings["aliases"])))
            for identity, settings in document.get("networks", {}).items()
        }

    # --- what people see ------------------------------------------------------------------------------


def _in_the_way(config: netconfig.NetworkConfig) -> tuple[bool, str]:
    """Whether a network is up, and what stands in the way of one that is not, "" for nothing."""
    from engine.runtime import bridges

    with Netlink() as host:
        up = rt.get_link(host, config.bridge) is not None
        return up, "" if up else bridges.conflict(config, host)[0]


def endpoint_settings(values: Mapping[str, Any]) -> EndpointSettings:
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return EndpointSettings(**plain)


def names(name: str, container_id: str, hostname: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """What other containers of a network resolve to this one: Docker's DNSNames."""
    return tuple(dict.fromkeys(text for text in (name, *aliases, container_id[:12], hostname) if text))


def exposed(config: ImageConfig, spec: ContainerSpec) -> list[str]:
    """Every port that the image, `--expose` or a publication names, as Docker's ExposedPorts."""
    found: list[str] = []
    for text in (*config.exposed_ports, *spec.exposed_ports, *spec.port_bindings):
        found += ports.parse_expose(text)
    return sorted(dict.fromkeys(found), key=lambda text: (text.partition("/")[2], int(text.partition("/")[0])))
