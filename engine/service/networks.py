"""Networks: their records, subnets that are free on this host, and who is on them. `endpoints` puts containers on them."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.base.clock import parse_moment, rfc3339
from engine.base.ids import new_id
from engine.errors import AccessDenied, Conflict, Corrupt, InvalidInput, NotFound
from engine.linux import userns
from engine.linux.netlink import Netlink
from engine.model import IpamConfig, NetworkInfo, NetworkSpec
from engine.network import bridge, ipam
from engine.network.ipam import Pool, Subnet
from engine.runtime import bridges, usernet
from engine.runtime.netconfig import NetworkConfig

if TYPE_CHECKING:
    from engine.runtime.client import Runtime
    from engine.store.store import Store

DEFAULTS = {"bridge": "bridge", "host": "host", "none": "null"}  # name: driver


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkRecord:
    """A row of `networks`."""

    id: str
    name: str
    driver: str
    created: int
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    auxiliary: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def predefined(self) -> bool:
        return self.name in DEFAULTS

    def pool(self, version: int) -> Pool | None:
        return next((pool for pool in self.pools if pool.version == version), None)

    def to_json(self) -> str:
        document = dataclasses.asdict(self)
        for key in ("id", "name"):
            del document[key]
        document["pools"] = [
            {
                "subnet": str(pool.subnet),
                "gateway": str(pool.gateway),
                "ip_range": str(pool.ip_range) if pool.ip_range else "",
                "reserved": sorted(map(str, pool.reserved)),
                "given": pool.given,
            }
            for pool in self.pools
        ]
        return json.dumps(document)


def _record(row: sqlite3.Row) -> NetworkRecord:
    return _parsed(row["id"], row["name"], row["document"])


@functools.lru_cache(maxsize=256)
def _parsed(identity: str, name: str, text: str) -> NetworkRecord:
    """Every start asks for its networks, several times."""
    document = json.loads(text)
    pools = tuple(
        Pool(
            ipaddress.ip_network(pool["subnet"]),
            ipaddress.ip_address(pool["gateway"]),
            ipaddress.ip_network(pool["ip_range"]) if pool["ip_range"] else None,
            frozenset(map(ipaddress.ip_address, pool["reserved"])),
            bool(pool["given"]),
        )
        for pool in document.pop("pools")
    )
    return NetworkRecord(identity, name, pools=pools, **document)


class NetworkService:
    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store, self._runtime = store, runtime
        self._checked = False

    # --- find -----------------------------------------------------------------------------------------

    def _rows(self) -> list[sqlite3.Row]:
        """All of them, the three that every engine has made first."""
        rows = self._store.records.read("SELECT id, name, document FROM networks ORDER BY created")
        if not self._checked and not {row["name"] for row in rows} >= set(DEFAULTS):
            for name, driver in DEFAULTS.items():
                record = NetworkRecord(new_id(), name, driver, time.time_ns())
                self._insert(record, choose=driver == "bridge", ignore=True)
            rows = self._store.records.read("SELECT id, name, document FROM networks ORDER BY created")
        self._checked = True
        return rows

    def records(self) -> list[NetworkRecord]:
        return [_record(row) for row in self._rows()]

    def find(self, name: str) -> NetworkRecord:
        """By name, id, or unique id prefix. Raises NotFound, Conflict."""
        name = "bridge" if name == "default" else name
        rows = self._rows()
        for match in (
            [row for row in rows if row["name"] == name],
            [row for row in rows if row["id"] == name],
            [row for row in rows if name and row["id"].startswith(name)],
        ):
            if len(match) == 1:
                return _record(match[0])
            if match:
                raise Conflict(f"network {name} is ambiguous ({len(match)} matches found on ID prefix)")
        raise NotFound(f"network {name} not found", hint="`workbench network ls` lists them")

    # --- make and remove --------------------------------------------------------------------------------

    def create(self, spec: NetworkSpec) -> str:
        """Raises InvalidInput, Conflict, Unsupported."""
        name = bridge.check_network_name(spec.name)
        if spec.driver != "bridge":
            if spec.driver in ("host", "null", "none"):
                raise AccessDenied(f'only one instance of "{spec.driver}" network is allowed')
            raise NotFound(f'plugin "{spec.driver}" not found', hint="bridge is the driver of this engine")
        options = bridge.parse_options(spec.options)
        if options.link and any(
            bridge.parse_options(other.options).link == options.link for other in self.records() if not other.predefined
        ):
            raise Conflict(f"the bridge name {options.link} is another network's")
        pools = tuple(_pool(config) for config in spec.ipam if config.subnet)
        for config in spec.ipam:
            if not config.subnet and (config.gateway or config.ip_range or config.auxiliary):
                raise InvalidInput("every ip-range, gateway or aux-address must have a corresponding subnet")
        if len({pool.version for pool in pools}) != len(pools):
            raise InvalidInput("a network has one subnet of each family here", hint="one IPv4 --subnet and one IPv6")
        if any(pool.version == 6 for pool in pools) and not spec.enable_ipv6:
            raise InvalidInput("an IPv6 subnet needs --ipv6", hint="network create --ipv6 --subnet fd12:3456::/64 NAME")
        record = NetworkRecord(
            new_id(),
            name,
            "bridge",
            time.time_ns(),
            spec.internal,
            spec.attachable,
            spec.enable_ipv6,
            dict(spec.options),
            dict(spec.labels),
            pools,
            {key: value for config in spec.ipam for key, value in config.auxiliary.items()},
        )
        self._insert(record, choose=True)
        self._event("create", record)
        return record.id

    def _insert(self, record: NetworkRecord, *, choose: bool, ignore: bool = False) -> None:
        """Chooses what the user left open, and writes the record, in one transaction: two engines choose differently."""
        host = _host_subnets() if choose else []
        try:
            with self._store.records.write() as db:
                if choose:
                    others = [_record(row) for row in db.execute("SELECT id, name, document FROM networks")]
                    record = _with_pools(record, others, host)
                db.execute(
                    f"INSERT {'OR IGNORE ' if ignore else ''}INTO networks VALUES (?, ?, ?, ?)",
                    (record.id, record.name, record.created, record.to_json()),
                )
        except Corrupt as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise Conflict(f"network with name {record.name} already exists") from None
            raise

    def choose_again(self, record: NetworkRecord, wanted: Sequence[Subnet] = ()) -> NetworkRecord:
        """Another subnet for a network whose own one was taken by somebody else while nobody was on it; none of `wanted`."""
        host = [*_host_subnets(), *wanted]
        with self._store.records.write() as db:
            others = [
                _record(row)
                for row in db.execute("SELECT id, name, document FROM networks WHERE id <> ?", (record.id,))
            ]
            kept = tuple(pool for pool in record.pools if pool.given or pool.version == 6)
            record = _with_pools(dataclasses.replace(record, pools=kept), others, host)
            db.execute("UPDATE networks SET document = ? WHERE id = ?", (record.to_json(), record.id))
            db.execute("DELETE FROM endpoints WHERE network = ?", (record.id,))
        return record

    def remove(self, name: str) -> None:
        """Raises Conflict while containers are on it."""
        record = self.find(name)
        if record.predefined:
            raise AccessDenied(f"{record.name} is a pre-defined network and cannot be removed")
        users = self.active(record.id)
        if users:
            shown = ", ".join(sorted(endpoint["name"] for endpoint in users.values()))
            raise Conflict(
                f"error while removing network: network {record.name} has active endpoints ({shown})",
                hint="stop the containers, or disconnect them",
            )
        with self._store.records.write() as db:
            db.execute("DELETE FROM endpoints WHERE network = ?", (record.id,))
            db.execute("DELETE FROM networks WHERE id = ?", (record.id,))
        run_dir, link = str(self._runtime.run_dir), self.config(record).bridge
        usernet.inside(run_dir, lambda: bridges.reap(run_dir, 0, only=link))
        self._event("destroy", record)

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[str]:
        """Removes the networks of users that no container refers to. Raises InvalidInput for an unknown filter."""
        for key in filters or {}:
            if key not in ("label", "label!", "until"):
                raise InvalidInput(f"invalid filter '{key}'", hint="label, label! and until are known")
        _until(filters or {})
        used = self.referred()
        removed = []
        for record in self.records():
            if record.predefined or record.id in used or not _kept_by(record, filters or {}):
                continue
            try:
                self.remove(record.id)
            except (Conflict, NotFound):
                continue
            removed.append(record.name)
        self._store.records.event("network", "prune", "", {"reclaimed": "0"})
        return removed

    def referred(self) -> set[str]:
        """The networks that containers, running or not, are on."""
        found: set[str] = set()
        for row in self._store.records.read("SELECT document FROM containers"):
            found |= set(json.loads(row["document"]).get("networks", {}))
        return found

    # --- what a network is, for the runtime and for people -----------------------------------------------

    def config(self, record: NetworkRecord) -> NetworkConfig:
        options = bridge.parse_options(record.options)
        gateways = {pool.version: f"{pool.gateway}/{pool.subnet.prefixlen}" for pool in record.pools}
        return NetworkConfig(
            id=record.id,
            name=record.name,
            bridge=options.link or bridge.link_name(record.id),
            gateway4=gateways.get(4, ""),
            gateway6=gateways.get(6, ""),
            internal=record.internal,
            masquerade=options.masquerade,
            icc=options.icc,
            mtu=options.mtu or _way_out(),
            resolves=not record.predefined,
        )

    def active(self, network_id: str) -> dict[str, dict[str, Any]]:
        """The running containers on a network, by id: their endpoint as it is now, and their name."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._store.records.read("SELECT id, name, document FROM containers"):
            if network_id not in row["document"]:
                continue
            state = self._runtime.state(self._store.containers / row["id"])
            for endpoint in (state.network or {}).get("endpoints", ()) if state.active else ():
                if endpoint["network"]["id"] == network_id:
                    found[row["id"]] = {**endpoint, "name": row["name"]}
        return found

    def container_record(self, container_id: str) -> dict[str, Any]:
        """What was asked for when a container was made; {} of none."""
        return self._store.records.document("containers", "id", container_id) or {}

    def info(self, name: str) -> NetworkInfo:
        return self._info(self.find(name), with_containers=True)

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[NetworkInfo]:
        """Raises InvalidInput for an unknown filter."""
        wanted = filters or {}
        unknown = set(wanted) - {"driver", "id", "label", "name", "scope", "type", "dangling"}
        if unknown:
            raise InvalidInput(
                f"invalid filter '{sorted(unknown)[0]}'", hint="driver, id, label, name, scope, type, dangling"
            )
        for key, known in (("dangling", ("true", "false", "1", "0")), ("type", ("builtin", "custom"))):
            for value in wanted.get(key, ()):
                if value not in known:
                    raise InvalidInput(f"invalid filter: '{key}'='{value}'", hint=f"one of {', '.join(known)}")
        used = self.referred() if "dangling" in wanted else set()
        found = sorted((r for r in self.records() if _matches(r, wanted, used)), key=lambda record: record.name)
        return [self._info(record) for record in found]

    def _info(self, record: NetworkRecord, *, with_containers: bool = False) -> NetworkInfo:
        containers = {}
        for identity, endpoint in (self.active(record.id) if with_containers else {}).items():
            containers[identity] = {
                "Name": endpoint["name"],
                "EndpointID": endpoint["id"],
                "MacAddress": endpoint["mac"],
                "IPv4Address": endpoint["address4"],
                "IPv6Address": endpoint["address6"],
            }
        config = {
            "Name": record.name,
            "Id": record.id,
            "Created": rfc3339(record.created),
            "Scope": "local",
            "Driver": record.driver,
            "EnableIPv4": True,
            "EnableIPv6": record.ipv6,
            "IPAM": {"Driver": "default", "Options": None, "Config": [_ipam(record, pool) for pool in record.pools]},
            "Internal": record.internal,
            "Attachable": record.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": containers,
            "Options": bridge.default_options(bridge.link_name(record.id))
            if record.name == "bridge"
            else dict(record.options),
            "Labels": dict(record.labels),
        }
        return NetworkInfo(
            record.id, record.name, record.driver, record.created, record.internal, record.ipv6, record.labels, config
        )

    def _event(self, action: str, record: NetworkRecord, **more: str) -> None:
        self._store.records.event("network", action, record.id, {"name": record.name, "type": record.driver, **more})

    def container_event(self, action: str, record: NetworkRecord, container_id: str) -> None:
        self._event(action, record, container=container_id)


def _pool(config: IpamConfig) -> Pool:
    return ipam.make_pool(config.subnet, config.gateway, config.ip_range, config.auxiliary.values())


def _with_pools(record: NetworkRecord, others: Sequence[NetworkRecord], host: Sequence[Subnet]) -> NetworkRecord:
    """The record with a subnet of each family that it needs and does not have. Raises Conflict."""
    taken = [(f"network {other.name}", pool.subnet) for other in others for pool in other.pools]
    for pool in record.pools:
        ipam.check_overlap(pool, taken)
    pools = list(record.pools)
    if not any(pool.version == 4 for pool in pools):
        subnet = ipam.choose([*host, *(subnet for _, subnet in taken)])
        pools.insert(0, Pool(subnet, ipam.first_host(subnet)))
    if record.ipv6 and not any(pool.version == 6 for pool in pools):
        six = ipam.choose_v6(record.id)
        pools.append(Pool(six, ipam.first_host(six)))
    return dataclasses.replace(record, pools=tuple(pools))


def _host_subnets() -> list[Subnet]:
    with Netlink() as sock:
        return bridges.subnets_in_use(sock)


_mtu: list[int] = []


def _way_out() -> int:
    """As large as the host's way out takes, 1500 at most: larger packets would be lost or cut there. Asked once."""
    if not _mtu:
        with Netlink() as sock:
            # pasta and slirp4netns take large packets, and end every connection themselves.
            _mtu.append(65520 if userns.entered_by() is not None else min(1500, bridges.uplink_mtu(sock)))
    return _mtu[0]


def _ipam(record: NetworkRecord, pool: Pool) -> dict[str, object]:
    found: dict[str, object] = {"Subnet": str(pool.subnet)}
    if pool.ip_range:
        found["IPRange"] = str(pool.ip_range)
    found["Gateway"] = str(pool.gateway)
    auxiliary = {key: text for key, text in record.auxiliary.items() if ipaddress.ip_address(text) in pool.subnet}
    return found | ({"AuxiliaryAddresses": auxiliary} if auxiliary else {})


def _labelled(record: NetworkRecord, text: str) -> bool:
    key, has, value = text.partition("=")
    return key in record.labels and (not has or record.labels[key] == value)


def _matches(record: NetworkRecord, filters: Mapping[str, Sequence[str]], used: set[str]) -> bool:
    for key, values in filters.items():
        if key == "driver":
            ok = record.driver in values
        elif key == "id":
            ok = any(value in record.id for value in values)
        elif key == "name":
            ok = any(value in record.name for value in values)
        elif key == "label":
            ok = all(_labelled(record, value) for value in values)
        elif key == "scope":
            ok = "local" in values
        elif key == "type":
            ok = ("builtin" if record.predefined else "custom") in values
        else:
            ok = any((value in ("true", "1")) == (not record.predefined and record.id not in used) for value in values)
        if not ok:
            return False
    return True


def _until(filters: Mapping[str, Sequence[str]]) -> list[int]:
    """The moments (ns) before which what goes was made. Raises InvalidInput."""
    now = time.time_ns()
    return [parse_moment(text, now) for text in filters.get("until", ())]


def _kept_by(record: NetworkRecord, filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether `prune`'s filters let the record through."""
    if any(record.created >= limit for limit in _until(filters)):
        return False
    if not all(_labelled(record, value) for value in filters.get("label", ())):
        return False
    return not any(_labelled(record, value) for value in filters.get("label!", ()))
