"""Published ports on the host's side: sockets that hold them, and a proxy for what no packet filter brings.

The monitor binds every published port for as long as the container runs: nobody else can take it, and who already has it
is an error at the start. Packets from outside never reach these sockets, since nf_tables has sent them to the container
before. What does: connections from the host's own loopback, IPv6 ones to a container that has IPv4 alone, and everything
on a kernel without nf_tables. For them a child process is forked when the first one comes.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from engine.runtime.netconfig import NetworkError, PortBinding, PublishedPort

BACKLOG = 512


class PortTaken(NetworkError):
    """`binding` cannot be had. `number` is the errno."""

    def __init__(self, host_ip: str, port: int, protocol: str, number: int) -> None:
        shown = f"[{host_ip}]" if ":" in host_ip else host_ip
        super().__init__(f"port {shown}:{port}/{protocol}: {os.strerror(number).lower()}")
        self.host_ip, self.port, self.protocol, self.number = host_ip, port, protocol, number


@dataclass(slots=True)
class Held:
    """One bound socket and what it publishes."""

    port: PublishedPort
    sock: socket.socket


def hold(bindings: Sequence[PortBinding], lent: Sequence[Held] = ()) -> list[Held]:
    """Binds all of them, but for what another container lends. Raises PortTaken; nothing stays bound then."""
    needed = len(bindings) * 2 + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    held: list[Held] = []
    try:
        for binding in bindings:
            held += _take(binding, lent) or _hold_one(binding)
    except BaseException:
        release([each for each in held if each.sock not in [other.sock for other in lent]])
        raise
    return held


def _take(binding: PortBinding, lent: Sequence[Held]) -> list[Held]:
    """The sockets among `lent` that this binding would make; none, unless all of them are there."""
    addresses = [binding.host_ip] if binding.host_ip else ["0.0.0.0", "::"]
    last = max(binding.host_end, binding.host_port)
    found = []
    for each in lent:
        port = each.port
        # A port that the kernel chose stays what it is for the same port of the container.
        fits = binding.host_port <= port.host_port <= last if last else port.container_port == binding.container_port
        if fits and port.protocol == binding.protocol and port.host_ip in addresses:
            new = PublishedPort(port.host_ip, port.host_port, binding.container_port, binding.protocol)
            found.append(Held(new, each.sock))
    whole = len(found) == len(addresses) or (not binding.host_ip and [f.port.host_ip for f in found] == ["0.0.0.0"])
    return found if whole else []


def release(held: Sequence[Held]) -> None:
    for each in held:
        each.sock.close()


def _hold_one(binding: PortBinding) -> list[Held]:
    addresses = [binding.host_ip] if binding.host_ip else ["0.0.0.0", "::"]
    if not binding.host_port:
        return _any_port(binding, addresses)
    last = max(binding.host_end, binding.host_port)
    for port in range(binding.host_port, last + 1):
        try:
            return _hold_at(binding, addresses, port)
        except PortTaken:
            if port == last:
                raise
    raise AssertionError("a range has at least one port")


def _any_port(binding: PortBinding, addresses: list[str]) -> list[Held]:
    """The kernel picks a free one for the first address; the second must have the same."""
    for attempt in range(64):
        first = _bind(addresses[0], 0, binding)
        port = int(first.getsockname()[1])
        first.close()
        try:
            return _hold_at(binding, addresses, port)
        except PortTaken:
            if attempt == 63:
                raise
    raise AssertionError("unreachable")


def _hold_at(binding: PortBinding, addresses: list[str], port: int) -> list[Held]:
    held: list[Held] = []
    try:
        for address in addresses:
            try:
                sock = _bind(address, port, binding)
            except PortTaken as error:
                # A host without IPv6 publishes on IPv4 alone, as Docker does.
                if address == "::" and held and error.number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    continue
                raise
            held.append(Held(PublishedPort(address, port, binding.container_port, binding.protocol), sock))
    except BaseException:
        release(held)
        raise
    return held


def _bind(address: str, port: int, binding: PortBinding) -> socket.socket:
    v6 = ":" in address
    stream = binding.protocol == "tcp"
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    try:
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        try:
            if v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if stream:  # connections of the one before, in TIME_WAIT, are no reason to refuse; for UDP it would share
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if stream:
                sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise PortTaken(address, port, binding.protocol, error.errno or errno.EADDRINUSE) from None
    return sock


# --- who has it -----------------------------------------------------------------------------------

_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_LISTEN = "0A"


def holder(host_ip: str, port: int, protocol: str) -> str:
    """Who has the port, as "nginx (pid 12)"; "" when it cannot be found. Reads /proc: for error messages alone."""
    inodes = set()
    for table in _TABLES[protocol]:
        with contextlib.suppress(OSError), open(f"/proc/net/{table}", encoding="ascii") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if int(number, 16) == port and (protocol == "udp" or fields[3] == _LISTEN) and _meets(address, host_ip):
                    inodes.add(fields[9])
    inodes.discard("0")
    return _owner({f"socket:[{inode}]" for inode in inodes}) if inodes else ""


def _meets(raw: str, host_ip: str) -> bool:
    """Whether a socket at the address (as /proc/net writes it) stands in the way of `host_ip`."""
    words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
    theirs = ipaddress.ip_address(b"".join(words))
    ours = ipaddress.ip_address(host_ip)
    return theirs.is_unspecified or ours.is_unspecified or theirs == ours


def _owner(names: set[str]) -> str:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in names:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        return f"{file.read().strip()} (pid {pid})"
        except OSError:
            continue
    return ""
