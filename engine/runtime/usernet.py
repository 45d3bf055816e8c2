"""An ordinary user's networks: one network namespace of the user's own for all bridges, and a program at its edge.

In its user namespace an ordinary user may make bridges, pairs and nf_tables rules, but only in a network namespace that
belongs to it. So there is one for each run directory, in which everything is as on root's host: networks of users, names,
metadata rules. Out of it leads a user-mode network stack (pasta or slirp4netns), which turns the packets into ordinary
connections of the user's. Into it lead the monitors' proxies, which hold the published ports outside (`ports`, `proxy`).
Name servers are asked by the monitors, which are outside as well: also one that listens on the host's loopback.

The namespace, the bridges' end of that program and the program itself belong to a keeper (`usernet_keeper`), a small
process that lives as long as monitors are connected to its socket. Whoever starts or reaches it holds the lock, so that
it never ends while somebody is on the way to it. A keeper that is killed is replaced by the first monitor that sees it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from engine.linux import mount, namespace
from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux.netlink import Netlink
from engine.runtime import outside, protocol, usernet_keeper
from engine.runtime.netconfig import NetworkError

T = TypeVar("T")

FOLDER = "out"
_PATIENCE = 20.0  # seconds for a keeper to begin
_NSFS_MAGIC = 0x6E736673


class Way:
    """One container's hold on the user's network namespace. Raises NetworkError when it cannot be had."""

    def __init__(self, run_dir: str, helpers: Sequence[str]) -> None:
        self._run_dir, self._helpers = run_dir, tuple(helpers)
        self.trouble = ""  # why nothing outside can be reached, "" where it can
        self._reader = self._reach()

    def fileno(self) -> int:
        return self._reader.sock.fileno()

    def _reach(self) -> protocol.LineReader:
        folder = os.path.join(self._run_dir, FOLDER)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with _lock(folder):
                sock = _connect(folder)
                if sock is None:
                    _start(folder, self._helpers)
                    sock = _connect(folder)
            if sock is None:
                raise NetworkError("the keeper of the user's network did not begin")
            reader = protocol.LineReader(sock)
            hello = reader.read()
            if hello is None:
                raise NetworkError("the keeper of the user's network went away")
        except OSError as error:
            raise NetworkError(f"the user's network: {error}") from error
        self.trouble = str(hello.get("trouble", ""))
        sock.setblocking(False)
        return reader

    def hear(self) -> list[str]:
        """What the keeper has to say, when it is readable; the descriptor may be another one afterwards."""
        said: list[str] = []
        alive = True
        with contextlib.suppress(BlockingIOError):
            alive = self._reader.fill()
        while (line := self._reader.take()) is not None:
            said.append(str(line.get("note", "")))
        if not alive:
            self.close()
            self._reader = self._reach()
            said.append("the keeper of the user's network was killed and is replaced: connections to outside were cut")
            if self.trouble:
                said.append(self.trouble)
        return said

    def close(self) -> None:
        self._reader.sock.close()


@contextlib.contextmanager
def _lock(folder: str) -> Iterator[None]:
    fd = os.open(
        os.path.join(folder, usernet_keeper.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _connect(folder: str) -> socket.socket | None:
    try:
        sock = protocol.connect(folder, usernet_keeper.SOCKET)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    sock.settimeout(_PATIENCE)
    return sock


def _start(folder: str, helpers: Sequence[str]) -> None:
    """Returns when it listens. It is nobody's child."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = outside.fork()
    if pid == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                usernet_keeper.run(folder, namespace_path(folder), helpers, write)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as ready:
        answer = ready.read().decode(errors="replace")
    if answer != "ready":
        raise NetworkError(f"the user's network: {answer or 'its keeper did not begin'}")


def namespace_path(folder: str) -> str:
    """Where the namespace is mounted, for programs that are given a path: reaching it takes no right over a process."""
    return os.path.join(folder, usernet_keeper.NETNS)


def enter(run_dir: str) -> bool:
    """Moves this thread into the user's network namespace, where there is one. There is no way back."""
    try:
        fd = os.open(namespace_path(os.path.join(run_dir, FOLDER)), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if mount.filesystem(fd) != _NSFS_MAGIC:
            return False
        namespace.setns(fd, namespace.NEWNET)
        return True
    finally:
        os.close(fd)


def inside(run_dir: str, work: Callable[[], T]) -> T:
    """`work` in the user's network namespace where there is one, else here. On a thread, which ends with it."""
    if not os.path.exists(namespace_path(os.path.join(run_dir, FOLDER))):
        return work()
    results: list[T] = []
    failures: list[BaseException] = []

    def visit() -> None:
        try:
            enter(run_dir)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def sockets(run_dir: str) -> tuple[Netlink, Netlink, socket.socket | None]:
    """Links, packet filter and the watch on the filter, of the user's network namespace, made by a child that went
    there: a process that goes itself never comes back. Raises NetworkError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = outside.fork()
    if pid == 0:
        try:
            enter(run_dir)
            made = [Netlink(nl.ROUTE).sock, nft.open_socket().sock]
            with contextlib.suppress(OSError):
                made.append(nft.watch())
            socket.send_fds(theirs, [b"ok"], [sock.fileno() for sock in made])
        except OSError as error:
            theirs.send(str(error).encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        raw, fds, _flags, _address = socket.recv_fds(ours, 4096, 4, socket.MSG_CMSG_CLOEXEC)
    os.waitpid(pid, 0)
    if len(fds) < 2:
        raise NetworkError(f"the user's network: {raw.decode(errors='replace') or 'it cannot be entered'}")
    made = [socket.socket(fileno=fd) for fd in fds]
    return Netlink(sock=made[0]), Netlink(sock=made[1]), made[2] if len(made) > 2 else None
