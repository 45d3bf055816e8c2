"""A container's network, set up and kept by its monitor: veth pairs, addresses, published ports, names, name server.

No engine is needed for it: `config.json` says everything, so that a restart by the monitor has the same network again. Init
makes the namespace and sends sockets out of it (a netlink socket belongs to the namespace it was made in); with them the
monitor configures both ends while init mounts the root. What is inside goes with the namespace: the kernel removes a veth
pair together with it, in the background, where to delete one by hand takes 20 ms.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from engine.linux import conntrack, namespace
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink, NetlinkError
from engine.runtime import bridges, dns, firewall, firewalld, net_inside, outside, ports, usernet
from engine.runtime.bridges import FOLDER, Membership
from engine.runtime.loop import READ, Loop
from engine.runtime.netconfig import (
    METADATA_ADDRESSES,
    ContainerNetwork,
    Endpoint,
    NetworkConfig,
    NetworkError,
    PublishedPort,
    endpoint_from_json,
    mac_of,
    published_from_json,
)
from engine.runtime.port_watch import PortWatch

Note = Callable[[str], None]


class ContainerLink:
    """One container's network in its monitor. `prepare` before init is forked, `receive` for what it sends, `ended` when
    the process is gone (a restart begins with `prepare` again), `close` at the very end. Raises NetworkError."""

    def __init__(self, run_dir: str, config: ContainerNetwork, loop: Loop, note: Note = lambda text: None) -> None:
        self.run_dir, self.config = run_dir, config
        self.endpoints: list[Endpoint] = list(config.endpoints)
        self.published: tuple[PublishedPort, ...] = ()
        self.server: dns.Server | None = None
        self._for_dns: list[socket.socket] = []  # made by init; used when there are names to serve
        self._loop, self._note = loop, note
        self._members: dict[str, Membership] = {}
        self._held: list[ports.Held] = []
        self._host: Netlink | None = None
        self._filters: Netlink | None = None
        self._inside: Netlink | None = None
        self._watch: socket.socket | None = None
        self._asking = False  # a child asks firewalld
        self._way: usernet.Way | None = None  # an ordinary user's; None for root
        self._way_fd = -1
        self._pid = 0
        self._ports = PortWatch(loop, self._publishing, self._enter_way, self._proxy_ended)
        self._standby = config.standby

    @property
    def active(self) -> bool:
        return self.config.mode == "bridge"

    # --- before init ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Takes the container's place in its networks and its ports."""
        if not self.active:
            return
        try:
            if self._host is None:
                self._open_host()
            self.endpoints = [replace(endpoint, serial=os.urandom(2).hex()) for endpoint in self.endpoints]
            for endpoint in self.endpoints:
                self._join(endpoint)
            if not self._held and self._publishing() and not self._standby:
                self._held = ports.hold(self.config.ports)
                self.published = tuple(each.port for each in self._held)
            self._start_watch()
        except NetlinkError as error:
            raise NetworkError(f"network: {bridges.explain(error)}") from error
        except OSError as error:
            raise NetworkError(f"network: {error.strerror or error}") from error

    def _open_host(self) -> None:
        """Sockets of the namespace that the bridges are in: the host's, or an ordinary user's own."""
        if not self.config.way_out:
            self._host, self._filters = Netlink(nl.ROUTE), nft.open_socket()
            return
        self._way = usernet.Way(self.run_dir, self.config.way_out)
        self._hear_way()
        self._host, self._filters, self._watch = usernet.sockets(self.run_dir)
        if self._watch is not None:
            self._loop.watch(self._watch.fileno(), READ, self._on_filters)

    def _hear_way(self) -> None:
        assert self._way is not None
        self._way_fd = self._way.fileno()
        self._loop.watch(self._way_fd, READ, self._on_way)

    def _on_way(self, fd: int, _events: int) -> None:
        """The keeper of the user's network says something, or is gone."""
        assert self._way is not None
        self._loop.forget(fd)
        self._way_fd = -1
        try:
            notes = self._way.hear()
        except NetworkError as error:
            self._note(f"nothing outside can be reached any more: {error}")
            return
        self._hear_way()
        for note in notes:
            self._note(note)

    @property
    def trouble(self) -> str:
        """What does not work of this network from the start, "" for nothing."""
        if self._way is not None:
            return self._way.trouble
        found = [firewall.blocked(endpoint.network) for endpoint in self.endpoints] if self.active else []
        return next(filter(None, (*found, *(member.trouble for member in self._members.values()))), "")

    def _join(self, endpoint: Endpoint) -> None:
        assert self._host is not None
        member = self._members.get(endpoint.network.bridge)
        if member is None:
            self._members[endpoint.network.bridge] = Membership(
                self.run_dir, endpoint.network, self._host, self._filters
            )
        else:
            member.repair(self._host, self._filters)

    def _publishing(self) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.default), None)

    # --- init speaks ----------------------------------------------------------------------------------

    def receive(self, channel: socket.socket, pid: int) -> dict[str, Any] | None:
        """Waits for init's sockets and sets everything up. Returns init's error when it sent one instead."""
        if not self.active:
            return None
        raw, fds, _flags, _address = socket.recv_fds(channel, 1 << 16, 8, socket.MSG_CMSG_CLOEXEC)
        if not raw:
            return {"message": "the container's init went away", "code": 125, "errno": 0}
        message = json.loads(raw)
        if "error" in message:
            return dict(message["error"])
        self.set_up(pid, fds)
        return None

    def set_up(self, pid: int, inside: list[int]) -> None:
        """With init's sockets (see `net_inside`), which are closed in the end."""
        self._pid = pid
        try:
            self._set_up([socket.socket(fileno=fd) for fd in inside])
        except NetlinkError as error:
            raise NetworkError(f"network: {bridges.explain(error)}") from error

    def moved(self, pid: int) -> None:
        """The namespace is now that of process `pid`: an OCI runtime's container has joined it."""
        self._pid = pid

    def _set_up(self, inside: list[socket.socket]) -> None:
        self._inside, *self._for_dns = Netlink(sock=inside[0]), *inside[1:]
        self._attach(self.endpoints)
        self._serve_names()
        self._publish()
        self._ports.listen(self._held)

    def _serve_names(self) -> None:
        """Starts the name server with the first network that has names; and tells it which ones there are."""
        networks = [endpoint.network for endpoint in self.endpoints if endpoint.network.resolves]
        # An ordinary user's containers ask by it on every network: it stands outside, and reaches what the host does.
        wanted = networks or (self.config.way_out and self.endpoints)
        if wanted and self.server is None:
            filters, udp, tcp = self._for_dns
            self._for_dns = []
            with Netlink(sock=filters) as sock:
                net_inside.lead_dns(udp.getsockname()[1], tcp.getsockname()[1]).commit(sock)
            self.server = dns.Server(self._loop, udp, tcp, self.config.dns)
        if self.server is not None:
            self.server.directories = [dns.Directory(self._folder(network), network.name) for network in networks]
            self.server.forward = any(not endpoint.network.internal for endpoint in self.endpoints)

    def _attach(self, endpoints: Sequence[Endpoint]) -> None:
        """Pairs, addresses, routes: one message to the host's namespace and two inside, for all of them."""
        assert self._host is not None
        assert self._inside is not None
        if not endpoints:
            return
        messages: list[nl.Message] = []
        for endpoint in endpoints:
            network, name = endpoint.network, endpoint.host_link
            messages += [
                rt.new_veth(name, endpoint.link, self._pid, network.mtu, endpoint.mac),
                rt.set_link(name, no_ipv6_address=True),
                rt.set_link(name, up=True, master=self._members[network.bridge].index),
            ]
        self._host.send(messages)
        for endpoint in endpoints:
            link = rt.get_link(self._inside, endpoint.link)
            if link is None:
                raise NetworkError(f"the link {endpoint.link} of network {endpoint.network.name} vanished")
            own = (*endpoint.addresses(), *endpoint.link_local_addresses())
            addresses = [rt.add_address(link.index, address) for address in own]
            routes = [rt.default_route(g.ip, link.index) for g in endpoint.gateways()] if endpoint.default else []
            self._inside.send([*addresses, rt.set_link(index=link.index, up=True), *routes])
            self._on_host(endpoint)
        if self.config.block_metadata:
            self._guard(endpoints, on=True)

    def _on_host(self, endpoint: Endpoint) -> None:
        assert self._host is not None
        if not endpoint.network.icc:
            self._host.send([rt.isolate_port(endpoint.host_link)])
        # An address of Docker's form follows from the IP address and is the same for whoever has it next. Of any other
        # the host may remember the one before.
        index = self._members[endpoint.network.bridge].index
        for address in endpoint.addresses():
            if address.version == 6 or endpoint.mac != mac_of(address.ip):
                self._host.send([rt.set_neighbour(index, address.ip, endpoint.mac)])
        self._write_name(endpoint)

    def _guard(self, endpoints: Sequence[Endpoint], *, on: bool) -> None:
        assert self._inside is not None
        assert self._filters is not None
        if on:
            for text in METADATA_ADDRESSES:
                address = ipaddress.ip_address(text)
                with contextlib.suppress(NetlinkError):  # without IPv6 there is no way there anyway
                    self._inside.send([rt.unreachable(address)])
        for endpoint in endpoints:
            firewall.set_guard(self._filters, endpoint, on=on)

    def _publish(self) -> None:
        endpoint = self._publishing()
        if not self.published or endpoint is None or self._filters is None:
            return
        firewall.publish(self._filters, self.published, endpoint)
        datagrams = {port.host_port for port in self.published if port.protocol == "udp"}
        if datagrams:
            with contextlib.suppress(NetlinkError):
                conntrack.forget_udp(self._filters, datagrams)

    # --- names ---------------------------------------------------------------------------------------

    def _folder(self, network: NetworkConfig) -> str:
        return os.path.join(self.run_dir, FOLDER, f"{network.bridge}.d")

    def rename(self, names: dict[str, list[str]]) -> None:
        """Other names on the networks with these ids."""
        for index, endpoint in enumerate(self.endpoints):
            if endpoint.network.id in names:
                self.endpoints[index] = replace(endpoint, names=tuple(names[endpoint.network.id]))
                self._write_name(self.endpoints[index])

    def link(self, names: dict[str, str]) -> None:
        """Further names for other containers, which this one alone knows (`--link`)."""
        self.config.dns.links.update(names)
        if self.server is not None:
            self.server.link(names)

    def _write_name(self, endpoint: Endpoint) -> None:
        if not endpoint.network.resolves or self._standby:
            return
        folder = self._folder(endpoint.network)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        addresses = [str(address.ip) for address in endpoint.addresses()]
        document = {"names": list(endpoint.names), "addresses": addresses}
        temporary = os.path.join(folder, f".{endpoint.id[:12]}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(document).encode())
        finally:
            os.close(fd)
        os.rename(temporary, os.path.join(folder, endpoint.id[:12]))

    def _remove_name(self, endpoint: Endpoint) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._folder(endpoint.network), endpoint.id[:12]))

    def _enter_way(self) -> None:
        if self._way is not None:
            usernet.enter(self.run_dir)

    def _proxy_ended(self) -> None:
        if self._inside is not None:
            self._ports.listen(self._held)

    # --- one container takes over from another ------------------------------------------------------------

    def lend(self) -> tuple[list[socket.socket], dict[str, Any]]:
        """The sockets of the published ports and what they are, for the container that takes over. They still serve."""
        endpoint = self._publishing()
        document = {
            "ports": [asdict(port) for port in self.published],
            "endpoint": asdict(endpoint) if endpoint else None,
        }
        return [each.sock for each in self._held], document

    def take(self, fds: Sequence[int], lent: dict[str, Any], names: dict[str, list[str]]) -> None:
        """From now on new connections come here, and the names mean this container. Raises NetworkError."""
        socks = [socket.socket(fileno=fd) for fd in fds]
        theirs = [ports.Held(port, sock) for port, sock in zip(published_from_json(lent["ports"]), socks, strict=True)]
        endpoint = self._publishing()
        try:
            if endpoint is not None and not self._held:
                self._held = ports.hold(self.config.ports, theirs)
                self.published = tuple(each.port for each in self._held)
        finally:
            ports.release([each for each in theirs if each.sock not in [held.sock for held in self._held]])
        self._standby = False
        if endpoint is not None and self.published and self._filters is not None:
            before = endpoint_from_json(lent["endpoint"]) if lent["endpoint"] else endpoint
            firewall.republish(self._filters, self.published, before, endpoint)
        self._ports.listen(self._held)
        self.rename(names)

    def let_go(self) -> None:
        """Another container has taken over: no new connection and no name leads here, those that are there stay."""
        self._ports.let_go()
        ports.release(self._held)
        self._held, self.published, self._standby = [], (), True
        for endpoint in self.endpoints:
            self._remove_name(endpoint)

    # --- others' packet filters ------------------------------------------------------------------------

    def _start_watch(self) -> None:
        if self._watch is None:
            with contextlib.suppress(OSError):
                self._watch = nft.watch()
                self._loop.watch(self._watch.fileno(), READ, self._on_filters)

    def _on_filters(self, _fd: int, _events: int) -> None:
        """Somebody removed tables, chains or rules (`nft flush ruleset`, a firewall's reload, a Docker that starts)."""
        assert self._watch is not None
        reloaded = False
        for _ in range(4096):
            try:
                reloaded |= firewalld.TABLE in self._watch.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more than it could hold
                continue
        if self._inside is None or self._host is None or self._filters is None:
            return
        if reloaded:
            self._admit_again()
        try:
            restored = [m.network.name for m in self._members.values() if m.check(self._host, self._filters)]
            self._publish()
            if self.config.block_metadata:
                self._guard(self.endpoints, on=True)
            if restored:
                self._note(f"another program removed the packet filter of network {', '.join(restored)}: restored")
        except (NetworkError, OSError) as error:
            self._note(f"another program changed the packet filter, and restoring it failed: {error}")

    def _admit_again(self) -> None:
        """firewalld was started anew, and has forgotten us: a child asks it, since it answers when it has finished."""
        if not self._asking:
            self._asking = True
            names = list(self._members)
            outside.run(self._loop, lambda: [firewalld.admit(name, timeout=60.0) for name in names], self._asked)

    def _asked(self) -> None:
        self._asking = False

    # --- while it runs ----------------------------------------------------------------------------------

    def connect(self, document: dict[str, Any]) -> None:
        """A further network."""
        endpoint = endpoint_from_json(document)
        if not self.active or self._inside is None:
            raise NetworkError("the container has no network of its own to connect")
        taken = {each.link for each in self.endpoints}
        link = next(f"eth{number}" for number in range(len(taken) + 1) if f"eth{number}" not in taken)
        endpoint = replace(
            endpoint, link=link, serial=os.urandom(2).hex(), default=endpoint.default and self._publishing() is None
        )
        if endpoint.address6:
            self._inside_sysctl("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0")
            self._inside_sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0")
        try:
            self._join(endpoint)
            self._attach([endpoint])
            if not endpoint.address6:
                self._inside_sysctl(f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6", "1")
            self.endpoints.append(endpoint)
            self._after_change()
        except NetlinkError as error:
            raise NetworkError(f"network {endpoint.network.name}: {bridges.explain(error)}") from error

    def disconnect(self, network_id: str) -> None:
        endpoint = next((each for each in self.endpoints if each.network.id == network_id), None)
        if endpoint is None or self._host is None or self._filters is None:
            raise NetworkError("the container is not connected to the network")
        if endpoint.default and self.published:
            firewall.withdraw(self._filters, self.published, endpoint)
        self._leave(endpoint)
        with contextlib.suppress(NetlinkError):
            self._host.send([rt.delete_link(endpoint.host_link)])
        self.endpoints.remove(endpoint)
        if endpoint.default:
            heir = next((each for each in self.endpoints if not each.network.internal), None)
            if heir is not None and self._inside is not None:
                index = rt.get_link(self._inside, heir.link)
                self.endpoints[self.endpoints.index(heir)] = replace(heir, default=True)
                if index is not None:
                    self._inside.send([rt.default_route(g.ip, index.index) for g in heir.gateways()])
        self._after_change()

    def _after_change(self) -> None:
        self._serve_names()
        if self._publishing() and self.config.ports and not self._held:
            self._held = ports.hold(self.config.ports)
            self.published = tuple(each.port for each in self._held)
        self._ports.end()
        self._publish()
        self._ports.listen(self._held)

    def _inside_sysctl(self, path: str, value: str) -> None:
        """/proc/sys/net shows the namespace of who looks: a child goes there to write."""
        pid = outside.fork()
        if pid == 0:
            try:
                namespace.setns(os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC), namespace.NEWNET)
                bridges.sysctl(path, value)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    def _leave(self, endpoint: Endpoint) -> None:
        self._remove_name(endpoint)
        if self.config.block_metadata and self._filters is not None:
            firewall.set_guard(self._filters, endpoint, on=False)
        member = self._members.pop(endpoint.network.bridge, None)
        if member is not None:
            member.leave()

    # --- the end ----------------------------------------------------------------------------------------

    def ended(self) -> None:
        """The process is gone, and its namespace with it. Ports and places are kept, for a restart."""
        if not self.active:
            return
        self._ports.end()
        self._ports.stop()
        endpoint = self._publishing()
        if self.published and endpoint is not None and self._filters is not None:
            with contextlib.suppress(OSError):
                firewall.withdraw(self._filters, self.published, endpoint)
        if self.config.block_metadata and self._filters is not None:
            for each in self.endpoints:
                firewall.set_guard(self._filters, each, on=False)
        for each in self.endpoints:
            self._remove_name(each)
        if self.server is not None:
            self.server.close()
            self.server = None
        for sock in self._for_dns:
            sock.close()
        self._for_dns = []
        if self._inside is not None:  # the last thing that holds the namespace
            self._inside.close()
            self._inside = None

    def close(self) -> None:
        """Lets go of everything. Idempotent."""
        if not self.active:
            return
        self.ended()
        ports.release(self._held)
        self._held = []
        for member in self._members.values():
            member.leave()
        self._members = {}
        if self._watch is not None:
            self._loop.forget(self._watch.fileno())
            self._watch.close()
            self._watch = None
        for sock in (self._host, self._filters):
            if sock is not None:
                sock.close()
        self._host = self._filters = None
        if self._way is not None:
            if self._way_fd >= 0:
                self._loop.forget(self._way_fd)
            self._way.close()
            self._way = None

    def report(self) -> dict[str, Any] | None:
        """What is so now, for the state file: endpoints, and the ports that the bindings became."""
        if not self.active:
            return None
        return {
            "endpoints": [asdict(endpoint) for endpoint in self.endpoints],
            "published": [asdict(port) for port in self.published],
            "block_metadata": self.config.block_metadata,
        }
