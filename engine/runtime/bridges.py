"""The bridge of a network while containers are on it: made by the first, removed after the last, whoever that is.

Every monitor holds a shared lock (flock(2)) on `RUN/net/<bridge>` as long as its container is a member; the kernel lets go
of it when the monitor dies, however it dies. Whoever gets that lock exclusively knows that nobody is on the network, and
may make or remove it. The file holds the network's `NetworkConfig`, so that it can be removed by who never knew it.

Removing a bridge takes the kernel some 70 ms, making one a millisecond. So the last container does not wait for it: the
supervisor removes what has been idle for `IDLE` seconds (and an engine, what it finds idle when it opens).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict

from engine.linux import idmap
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink, NetlinkError
from engine.runtime import firewall, firewalld, leftovers
from engine.runtime.netconfig import NetworkConfig, NetworkError, network_from_json

IDLE = 1.0  # seconds
FOLDER = "net"
HOST_LOCK = "/run/workbench/network.lock"  # held while a subnet is taken, by engines of every data root


class Membership:
    """A container's hold on one network: the lock, and the bridge's index. Raises NetworkError."""

    def __init__(self, run_dir: str, network: NetworkConfig, host: Netlink, filters: Netlink | None) -> None:
        self.network, self._run_dir = network, run_dir
        path = os.path.join(run_dir, FOLDER, network.bridge)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self.index = 0
        self.trouble = ""
        while True:
            self._fd = _open(path)
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            if _same(self._fd, path):
                break
            os.close(self._fd)  # it was removed while we waited for it
        try:
            self.repair(host, filters)
        except BaseException:
            self.leave()
            raise

    def repair(self, host: Netlink, filters: Netlink | None) -> None:
        """Makes what is missing of the network. Nobody removes it meanwhile: that takes the exclusive lock."""
        self.index = self._look(host, filters)
        if self.index:
            return
        with host_lock(self._run_dir):
            _write(self._fd, self.network)
            self.trouble = make(self.network, host, filters, self._run_dir)
        link = rt.get_link(host, self.network.bridge)
        if link is None:
            raise NetworkError(f"the bridge {self.network.bridge} of network {self.network.name} vanished")
        self.index = link.index

    def _look(self, host: Netlink, filters: Netlink | None) -> int:
        link = rt.get_link(host, self.network.bridge)
        if link is None or not link.up:
            return 0
        if filters is not None and not nft.has_table(filters, nft.INET, self.network.bridge):
            return 0
        return link.index

    def check(self, host: Netlink, filters: Netlink) -> bool:
        """Puts right what another program has done to the network's tables. True: something was missing."""
        with host_lock(self._run_dir):
            missing = not self._look(host, filters)
            if missing:
                make(self.network, host, filters, self._run_dir)
            else:
                firewall.ensure_pass(filters, self.network)
        return missing

    def leave(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.utime(self._fd)
            os.close(self._fd)
            self._fd = -1


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _same(fd: int, path: str) -> bool:
    """Whether the locked file still has the name (it goes with the network)."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _write(fd: int, network: NetworkConfig) -> None:
    raw = json.dumps(asdict(network)).encode()
    os.pwrite(fd, raw, 0)
    os.ftruncate(fd, len(raw))


@contextlib.contextmanager
def host_lock(run_dir: str) -> Iterator[None]:
    """Held while a subnet is chosen or taken, by every engine of the host."""
    try:
        os.makedirs(os.path.dirname(HOST_LOCK), mode=0o711, exist_ok=True)
        fd = _open(HOST_LOCK)
    except PermissionError:  # an ordinary user, whose bridges are in a network namespace of its own
        os.makedirs(run_dir, mode=0o711, exist_ok=True)  # it may be asked before there is a supervisor
        fd = _open(os.path.join(run_dir, os.path.basename(HOST_LOCK)))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# --- make and remove ------------------------------------------------------------------------------


def bridge_mac(network: NetworkConfig) -> str:
    """From the network's id: locally administered, the same whenever the bridge is made again."""
    return ":".join(["02", "57", *(network.id[i : i + 2] for i in range(0, 8, 2))])


def conflict(network: NetworkConfig, host: Netlink) -> tuple[str, str]:
    """What stands in the way of the network's subnets ("" for nothing), and which link that is."""
    names = {link.index: link.name for link in rt.links(host)}
    for gateway in network.gateways():
        family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
        for route in rt.routes(host, family):
            name = names.get(route.index, "")
            if name != network.bridge and route.destination.prefixlen and _overlap(route.destination, gateway):
                return f"{route.destination} is routed to {name or 'elsewhere'}", name
        for index, address in rt.addresses(host, family):
            name = names.get(index, "")
            if name != network.bridge and address.network.prefixlen and _overlap(address.network, gateway):
                return f"{name or 'another link'} has the address {address}", name
    return "", ""


def _overlap(other: rt.Network, gateway: rt.Interface) -> bool:
    return other.version == gateway.version and bool(other.overlaps(gateway.network))


def make(network: NetworkConfig, host: Netlink, filters: Netlink | None, run_dir: str) -> str:
    """The bridge, its addresses, its table, under the host's lock. What is there is left. Returns what does not work of it
    ("" for nothing). Raises NetworkError."""
    try:
        _forwarding(network)
        if filters is not None:
            leftovers.sweep_tables(host, filters)
        trouble, link = conflict(network, host)
        if link:
            leftovers.clear_the_way([link], host, remove, lambda owner, bridge: reap(owner, only=bridge))
            trouble, _ = conflict(network, host)
        if trouble:
            subnets = ", ".join(str(gateway.network) for gateway in network.gateways())
            raise NetworkError(f"the subnet {subnets} of network {network.name} is in use: {trouble}")
        _make_bridge(network, host)
        leftovers.note_owner(network.bridge, run_dir)
        if filters is None:
            return ""
        if not nft.has_table(filters, nft.INET, network.bridge):
            firewall.ensure(filters, firewall.network_batch(network))
        firewall.ensure_pass(filters, network)
        return "" if idmap.inside() else firewalld.admit(network.bridge)
    except NetlinkError as error:
        raise NetworkError(f"network {network.name}: {explain(error)}") from error


def explain(error: NetlinkError) -> str:
    """Names the missing kernel feature where that is what the refusal means."""
    words = str(error.strerror)
    if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOENT):
        for word, module in (("bridge", "bridge"), ("veth", "veth"), ("nf_tables", "nf_tables and nft_nat, nft_masq")):
            if word in words:
                return f"this kernel lacks {module} ({words}); use --network host or none"
    return words


def _make_bridge(network: NetworkConfig, host: Netlink) -> None:
    name = network.bridge
    if rt.get_link(host, name) is None:
        host.send([rt.new_bridge(name, network.mtu, bridge_mac(network))])
    link = rt.get_link(host, name)
    if link is None:
        raise NetworkError(f"the bridge {name} of network {network.name} vanished while it was made")
    if link.kind != "bridge":
        raise NetworkError(f"there is a link {name} that is no bridge")
    folder = f"/proc/sys/net/ipv6/conf/{name}"
    sysctl(f"{folder}/accept_ra", "0")  # a container must not tell the host its routes (CVE-2020-13401)
    sysctl(f"{folder}/disable_ipv6", "0" if network.gateway6 else "1")
    messages = [rt.add_address(link.index, gateway) for gateway in network.gateways()]
    host.send([*messages, rt.set_link(index=link.index, up=True)])


def sysctl(path: str, value: str) -> bool:
    """False where the kernel has no such setting, or /proc is read-only."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _forwarding(network: NetworkConfig) -> None:
    """Turns routing on; it stays on, since nobody can tell who has come to rely on it."""
    if network.internal:
        return
    if network.gateway4 and _read("/proc/sys/net/ipv4/ip_forward") == "0":
        sysctl("/proc/sys/net/ipv4/ip_forward", "1")
    if network.gateway6 and _read("/proc/sys/net/ipv6/conf/all/forwarding") == "0":
        # A router does not listen to router advertisements unless told to (2): the host would lose its default route.
        for name in os.listdir("/proc/sys/net/ipv6/conf"):
            path = f"/proc/sys/net/ipv6/conf/{name}/accept_ra"
            if name not in ("all", "default", "lo") and _read(path) == "1":
                sysctl(path, "2")
        sysctl("/proc/sys/net/ipv6/conf/all/forwarding", "1")


def remove(network: NetworkConfig, host: Netlink) -> None:
    with contextlib.suppress(OSError), nft.open_socket() as filters:
        firewall.remove(filters, network)
    with contextlib.suppress(NetlinkError):
        host.send([rt.delete_link(network.bridge)])
    if not idmap.inside():
        firewalld.dismiss(network.bridge)
    leftovers.forget_owner(network.bridge)


def _locks(run_dir: str) -> list[str]:
    folder = os.path.join(run_dir, FOLDER)
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if not name.endswith(".d")]
    except FileNotFoundError:
        return []


def idle(run_dir: str) -> tuple[bool, bool]:
    """(a network is ready to be removed, one will be if nobody joins it)."""
    ready = soon = False
    for path in _locks(run_dir):
        with _try_lock(path) as fd:
            if fd >= 0:
                old = _age(fd) >= IDLE
                ready, soon = ready or old, soon or not old
    return ready, soon


def reap(run_dir: str, after: float = IDLE, *, only: str = "") -> None:
    """Removes the networks (or the one with the bridge `only`) that nobody is on and nobody was for `after` seconds."""
    for path in _locks(run_dir):
        if only and os.path.basename(path) != only:
            continue
        with _try_lock(path) as fd:
            if fd < 0 or _age(fd) < after:
                continue
            raw = os.pread(fd, 1 << 16, 0)
            if raw:
                with Netlink(nl.ROUTE) as host:
                    remove(network_from_json(json.loads(raw)), host)
            names = f"{path}.d"
            with contextlib.suppress(OSError):
                for name in os.listdir(names):
                    os.unlink(os.path.join(names, name))
                os.rmdir(names)
            os.unlink(path)


@contextlib.contextmanager
def _try_lock(path: str) -> Iterator[int]:
    """The lock held exclusively; -1 where somebody is on the network, or it has gone meanwhile."""
    try:
        fd = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        )  # for writing, closing it would wake the supervisor
    except FileNotFoundError:
        yield -1
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd if _same(fd, path) else -1
    except BlockingIOError:
        yield -1
    finally:
        os.close(fd)


def _age(fd: int) -> float:
    return time.time() - os.fstat(fd).st_mtime


def subnets_in_use(host: Netlink) -> list[rt.Network]:
    """Every subnet that this host has a route to or an address in, default routes aside."""
    found: list[rt.Network] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            found += [route.destination for route in rt.routes(host, family) if route.destination.prefixlen]
            found += [address.network for _, address in rt.addresses(host, family)]
    return [network for network in found if not network.is_loopback]


def uplink_mtu(host: Netlink) -> int:
    """The MTU of the link that the default route goes by; 1500 without one."""
    by_index = {link.index: link.mtu for link in rt.links(host)}
    sizes = [by_index.get(route.index, 1500) for route in rt.routes(host) if not route.destination.prefixlen]
    return min(sizes, default=1500)
