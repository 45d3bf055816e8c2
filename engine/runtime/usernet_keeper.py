"""The process that holds an ordinary user's network namespace and the program that leads out of it (see `usernet`).

It ends when no monitor has been connected for a while, and takes everything with it: the namespace, all that is in it,
and the program, which the kernel also kills when the keeper is killed. When the program ends, it is started again, and
every monitor is told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from engine.linux import libc, mount, namespace
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.runtime import protocol

SOCKET, NETNS, LOCK, LOG = "keeper.sock", "netns", "lock", "helper.log"
LINK = "tap0"
IDLE = 3.0  # seconds without a container: the steps of a build follow each other closely
_BEGIN = 10.0  # seconds for the program to make its link
_SOON, _MOST = 2.0, 3  # so many ends so soon after a start: it is not started again
_CHANGES = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE


def commands(helper: str, path: str) -> list[list[str]]:
    """How the program is called, best first. Neither lets containers reach the host's loopback."""
    if os.path.basename(helper) == "pasta":
        ports = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
        quiet = ["--foreground", "--quiet", "--config-net", "--no-map-gw"]
        return [[helper, *quiet, *ports, "-I", LINK, "--netns-only", "--netns", path]]
    plain = ["--configure", "--mtu=65520", "--disable-host-loopback", "--disable-dns", "--enable-ipv6"]
    target = ["--netns-type=path", path, LINK]
    # Its sandbox takes a mount namespace of its own, which not every host lets it have.
    return [[helper, *plain, "--enable-sandbox", "--enable-seccomp", *target], [helper, *plain, *target]]


def run(folder: str, path: str, helpers: Sequence[str], ready: int) -> NoReturn:
    """The whole life. `ready` gets "ready", or what is in the way."""
    os.dup2(ready, 3)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    libc.close_from(4)
    os.set_inheritable(3, False)
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        libc.set_name("wb-network")
        keeper = _Keeper(folder, path, helpers)
        os.write(3, b"ready")
        os.close(3)
        keeper.serve()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(3, str(error).encode())
    finally:
        os._exit(0)


class _Keeper:
    def __init__(self, folder: str, path: str, helpers: Sequence[str]) -> None:
        self._folder, self._path = folder, path
        asking, changes = self._visit(lambda: [Netlink().sock, Netlink(groups=_CHANGES).sock], 2)
        self._links, self._changes = Netlink(sock=asking), changes
        self._changes.setblocking(False)
        self._pid = self._pidfd = -1
        self._began = 0.0
        self._ends = 0
        self._helper = self.trouble = ""
        self._command: list[str] = []
        self._choose(helpers)
        self._clients: dict[int, socket.socket] = {}
        self._listener = protocol.listen(folder, SOCKET)
        self._listener.setblocking(False)

    def _visit(self, work: Callable[[], list[socket.socket]], sockets: int = 0) -> list[socket.socket]:
        """Does `work` in the namespace, in a child; returns the sockets that it made there. This process and the program
        stay outside: who has gone in does not come back. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                self._enter()
                made = work()
                socket.send_fds(theirs, [b"ok"], [sock.fileno() for sock in made])
            except OSError as error:
                theirs.send(str(error).encode())
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            raw, fds, _flags, _address = socket.recv_fds(ours, 4096, 4, socket.MSG_CMSG_CLOEXEC)
        os.waitpid(pid, 0)
        if raw != b"ok" or len(fds) != sockets:
            raise OSError(errno.EIO, raw.decode(errors="replace") or "its network namespace cannot be had")
        return [socket.socket(fileno=fd) for fd in fds]

    def _enter(self) -> None:
        """The namespace of the keeper before this one, which its bridges are in, or a new one."""
        os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            namespace.setns(fd, namespace.NEWNET)
            return
        except OSError:
            pass  # an ordinary file
        finally:
            os.close(fd)
        namespace.unshare(namespace.NEWNET)
        mount.mount("/proc/self/ns/net", self._path, "", mount.MS_BIND)
        namespace.loopback_up()
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            _sysctl(name, "1")
        # Nothing in here is for the outside to talk to. And pasta of 2023 sends segments without any flag, which nobody
        # translates back to the container that they are meant for: the namespace itself would answer with a reset.
        table = nft.Batch(nft.INET, "workbench-edge").add_table()
        table.add_chain("input", nft.Hook("filter", nft.INPUT, 0))
        table.add_rule("input", nft.iif(LINK), nft.meta(nft.L4PROTO) + nft.cmp(b"\x06"), nft.verdict(nft.DROP))
        with nft.open_socket() as filters:
            table.commit(filters)

    def _hears_routers(self, value: str) -> None:
        def work() -> list[socket.socket]:
            _sysctl("ipv6/conf/default/accept_ra", value)
            return []

        self._visit(work)

    # --- the program -----------------------------------------------------------------------------------

    def _choose(self, helpers: Sequence[str]) -> None:
        """The first that works."""
        troubles = []
        for helper in helpers:
            for command in commands(helper, self._path):
                if self._begin(command):
                    self._helper, self._command = os.path.basename(helper), command
                    return
            troubles.append(f"{os.path.basename(helper)} does not work here ({self._last_words()})")
        self.trouble = f"containers cannot reach anything outside: {'; '.join(troubles)}"

    def _begin(self, command: Sequence[str]) -> bool:
        """Starts it. True when its link is there and leads somewhere."""
        # What it makes may listen to router advertisements (slirp4netns configures IPv6 by them), bridges may not:
        # a container must not tell the namespace its routes (CVE-2020-13401).
        self._hears_routers("2")
        self._spawn(command)
        end = time.monotonic() + _BEGIN
        while not self._leads_out():
            ready = select.select([self._changes.fileno(), self._pidfd], [], [], max(end - time.monotonic(), 0))[0]
            if not ready or self._pidfd in ready:
                self._reap()
                break
            with contextlib.suppress(OSError):  # ENOBUFS: more than it could hold
                self._changes.recv(1 << 16)
        self._hears_routers("0")
        return self._pid >= 0

    def _spawn(self, command: Sequence[str]) -> None:
        self._began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
                log = os.open(
                    os.path.join(self._folder, LOG), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
                )
                os.dup2(log, 1)
                os.dup2(log, 2)
                libc.close_from(3)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.execve(command[0], list(command), {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"})
            finally:
                os._exit(127)
        self._pid, self._pidfd = pid, os.pidfd_open(pid)

    def _leads_out(self) -> bool:
        link = rt.get_link(self._links, LINK)
        if link is None or not link.up:
            return False
        return any(
            route.index == link.index and not route.destination.prefixlen
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in rt.routes(self._links, family)
        )

    def _reap(self) -> str:
        """Ends it if it has not ended; says how it did."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        _pid, status = os.waitpid(self._pid, 0)
        self._pid = self._pidfd = -1
        return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"

    def _last_words(self) -> str:
        try:
            with open(os.path.join(self._folder, LOG), encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file.read(1 << 16).splitlines()]
        except OSError:
            return "it said nothing"
        told = [line for line in lines if line and not line.startswith("Failed to send")]  # to a syslog, pasta
        return told[-1][:200] if told else "it said nothing"

    def _ended(self) -> None:
        how = self._reap()
        self._ends = self._ends + 1 if time.monotonic() - self._began < _SOON else 1
        what = f"{self._helper}, the way to the outside, has ended ({how})"
        if self._ends < _MOST and self._begin(self._command):
            self._tell(f"{what} and was started again: connections through it were cut")
            return
        self.trouble = f"{what} and cannot be started again ({self._last_words()}): nothing outside can be reached"
        self._tell(self.trouble)

    # --- monitors --------------------------------------------------------------------------------------

    def serve(self) -> None:
        idle_since = time.monotonic()
        while True:
            watched = [self._listener.fileno(), *self._clients, *([self._pidfd] if self._pidfd >= 0 else [])]
            timeout = None if self._clients else max(0.0, idle_since + IDLE - time.monotonic())
            ready = select.select(watched, [], [], timeout)[0]
            if self._pidfd in ready:
                self._ended()
            if self._listener.fileno() in ready:
                self._accept()
            for fd in [fd for fd in ready if fd in self._clients]:
                self._clients.pop(fd).close()  # monitors say nothing: it has gone
                idle_since = time.monotonic()
            if not self._clients and time.monotonic() >= idle_since + IDLE and self._finish():
                return

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _address = self._listener.accept()
            if protocol.peer_uid(sock) != os.geteuid():
                sock.close()
                return
            sock.setblocking(False)
            self._clients[sock.fileno()] = sock
            sock.send(protocol.line({"helper": self._helper, "trouble": self.trouble}))

    def _tell(self, note: str) -> None:
        for sock in self._clients.values():
            with contextlib.suppress(OSError):
                sock.send(protocol.line({"note": note}))

    def _finish(self) -> bool:
        """Takes everything away, unless somebody is on the way here."""
        fd = os.open(os.path.join(self._folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            time.sleep(0.01)
            return False
        self._accept()
        if self._clients:
            os.close(fd)
            return False
        if self._pid >= 0:
            self._reap()
        with contextlib.suppress(OSError):
            mount.unmount(self._path)
        for name in (SOCKET, NETNS, LOG):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
        return True  # the lock goes with the process


def _sysctl(name: str, value: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(f"/proc/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
