"""One start of a container: its group, its streams, the fork of init, and what init has to say until execve."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.linux import cgroup as cg
from engine.runtime import init, init_namespaces, init_userns, outside
from engine.runtime.netconfig import NetworkError
from engine.runtime.netns import ContainerLink
from engine.runtime.parked import Parked
from engine.runtime.rootfs_devices import SetupError

_MOST = 16384  # bytes of a message
_REPORT = 10.0  # seconds that an abandoned first process has to say what it left


class StartError(Exception):
    """The container did not start: `code` as Docker's."""

    def __init__(self, message: str, code: int = 125, number: int = 0) -> None:
        super().__init__(message)
        self.code, self.number = code, number
        self.stubs: list[Any] = []  # as in `Started`, when init got that far
        self.copied: dict[str, Any] = {}


@dataclass(slots=True)
class Started:
    """A container's first process, and the monitor's ends of its streams (-1: there is none).

    `stubs` and `copied` are the mount points that init made in the upper directory (see `stubs`).
    """

    pid: int
    pidfd: int
    master: int = -1
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    mounts: int = -1  # its mount namespace as the host's root left it, where it has a user namespace of its own
    stubs: list[Any] = field(default_factory=list)
    copied: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class First:
    """The first process until execve: what is known of it, our end of its channel, and the sockets of its network namespace
    where it has sent them (None: it will)."""

    started: Started
    channel: socket.socket
    inside: list[int] | None = None
    joined: bool = False  # it is in its group

    def abandon(self) -> dict[str, Any] | None:
        """Ends it, after it has told what it left in the upper directory; returns its own error, if it had one."""
        error = None
        with self.channel, contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)  # it goes on to where it waits for us, and reports
            self.channel.settimeout(_REPORT)
            error = _hear(self.channel, self.started)
        self._reap()
        for fd in {self.started.stdin, self.started.stdout, self.started.stderr, *(self.inside or ())} - {-1}:
            os.close(fd)
        return error

    def failed(self, error: dict[str, Any]) -> StartError:
        """What it said, as an exception; it has ended."""
        failure = StartError(str(error["message"]), int(error["code"]), int(error["errno"]))
        failure.stubs, failure.copied = self.started.stubs, self.started.copied
        return failure

    def _reap(self) -> None:
        started = self.started
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
        os.waitpid(started.pid, 0)
        os.close(started.pidfd)
        for fd in {started.master, started.mounts} - {-1}:
            os.close(fd)


def begin(spec: dict[str, Any], bundle: str, cgroup: cg.Cgroup, fds: list[int], parked: Parked | None) -> First | None:
    """Makes `parked` the first process, where it fits: it mounts while the caller does the rest. Else it is discarded."""
    if parked is None:
        return None
    if not parked.fits(spec) or not parked.adopt(cgroup):
        parked.discard()
        return None
    try:
        stdio, ours = stdio_of(spec, fds)
    except BaseException:
        parked.discard()
        raise
    first = First(Started(parked.pid, parked.pidfd, -1, *ours), parked.channel, parked.inside)
    try:
        cgroup.filter_devices(spec["linux"]["resources"])  # not later: it opens its terminal when it goes
        parked.go(bundle, stdio)
    except BaseException:
        first.abandon()
        raise
    finally:
        for fd in {*stdio}:
            os.close(fd)
    return first


def launch(
    spec: dict[str, Any],
    bundle: str,
    cgroup: cg.Cgroup,
    network: ContainerLink,
    fds: list[int],
    first: First | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Started:
    """Starts what `spec` says, in `cgroup`, and on `network`: with `first` (see `begin`), or a process of its own. Calls
    `meanwhile` while that does its last steps. Raises StartError, NetworkError or OSError; the caller then cleans up
    (`ending.clean`). `fds` are a build step's streams, and are closed."""
    try:
        network.prepare()
        cgroup.create(spec["linux"]["resources"])
        if first is None:
            first = _fork_init(spec, bundle, cgroup, fds)
            error = network.receive(first.channel, first.started.pid)
            if error is None and not first.joined:
                cgroup.join(first.started.pid)
        else:
            assert first.inside is not None
            inside, first.inside = first.inside, []
            network.set_up(first.started.pid, inside)
            error = None
        if error is None:
            if init_userns.exec_flag(spec):
                with contextlib.suppress(OSError):  # it died: what it had to say is on the channel
                    first.started.mounts = os.open(f"/proc/{first.started.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            _let_go(first.channel)
            meanwhile()
            error = _hear(first.channel, first.started)
    except BaseException as trouble:
        if first is None:
            raise
        # Init may have failed meanwhile, and its namespace be gone: then what it says is the reason, not this.
        ended = _has_ended(first.started, trouble)
        error = first.abandon()
        if error is not None and ended:
            raise first.failed(error) from trouble
        if isinstance(trouble, NetworkError):
            raise first.failed({"message": str(trouble), "code": 125, "errno": 0}) from trouble
        raise
    if error is not None:
        first.abandon()
        raise first.failed(error)
    first.channel.close()
    started = first.started
    if started.master >= 0:
        started.stdin = started.stdout = started.master
    return started


def stdio_of(spec: dict[str, Any], fds: list[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(the container's ends, ours)."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    if spec["process"]["terminal"]:
        return (null, null, null), (-1, -1, -1)
    if spec["workbench"]["stdio"] == "fds":
        if len(fds) != 3:
            raise StartError(f"this container needs 3 descriptors from its starter, not {len(fds)}")
        os.close(null)
        return (fds[0], fds[1], fds[2]), (-1, -1, -1)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    in_read, in_write = null, -1
    if spec["workbench"]["open_stdin"]:
        os.close(null)
        in_read, in_write = os.pipe2(os.O_CLOEXEC)
    return (in_read, out_write, err_write), (in_write, out_read, err_read)


def _fork_init(spec: dict[str, Any], bundle: str, cgroup: cg.Cgroup, fds: list[int]) -> First:
    stdio, streams = stdio_of(spec, fds)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        kinds, late = init_namespaces.new_kinds(spec), init_namespaces.comes_late(spec)
        if late:
            with outside.at_home():
                pid, joined = cgroup.fork()
        elif outside.returns():
            # For children only. Our execs land in it too, which spares them a second fork.
            init_namespaces.before_fork(kinds, spec)
            pid, joined = cgroup.fork()
        else:
            joined = False
            pid = outside.fork_into(lambda: init_namespaces.before_fork(kinds, spec))
        if pid == 0:
            ours.close()
            init.run(spec, bundle, cgroup, theirs, stdio, late=late)
    except BaseException:
        ours.close()
        for fd in {*streams} - {-1}:
            os.close(fd)
        raise
    finally:
        theirs.close()
        for fd in {*stdio}:
            os.close(fd)
    return First(Started(pid, os.pidfd_open(pid), -1, *streams), ours, joined=joined)


def _has_ended(started: Started, trouble: BaseException) -> bool:
    gone = trouble if isinstance(trouble, ProcessLookupError) else trouble.__cause__
    waits = getattr(gone, "errno", 0) == errno.ESRCH
    return bool(select.select([started.pidfd], [], [], 1.0 if waits else 0)[0])


def _let_go(channel: socket.socket) -> None:
    """It is in its group, and its network is there."""
    with contextlib.suppress(BrokenPipeError):  # it died: what it had to say is on the channel
        channel.send(init.JOINED)


def _hear(channel: socket.socket, started: Started) -> dict[str, Any] | None:
    """Init's messages until execve closes the channel; its error if there was one."""
    while True:
        try:
            raw, fds, _flags, _address = socket.recv_fds(channel, 1 << 20, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # It ended without reading that it is in its group. The kernel says so once, before what it left to be read.
            continue
        if not raw:
            return None
        message = json.loads(raw)
        if "error" in message:
            return dict(message["error"])
        if "late" in message:
            return _hear_late(fds[0], started)
        if fds:
            started.master = fds[0]
        if "stubs" in message:
            started.stubs, started.copied = message["stubs"], message["copied"]


def _hear_late(fd: int, started: Started) -> dict[str, Any] | None:
    """From the one whose child others see (`init.appear`): which process goes on, until execve closes the pipe; its error if there
    was one."""
    middle, error = started.pid, None
    with open(fd, "rb") as file:
        while line := file.readline(_MOST):
            with contextlib.suppress(ValueError, KeyError, TypeError, ChildProcessError):
                message = json.loads(line)
                if "pid" in message and started.pid == middle:
                    os.waitid(os.P_PID, int(message["pid"]), os.WEXITED | os.WNOHANG | os.WNOWAIT)  # a child of ours?
                    pidfd = os.pidfd_open(int(message["pid"]))
                    os.waitpid(middle, 0)
                    os.close(started.pidfd)
                    started.pid, started.pidfd = int(message["pid"]), pidfd
                elif error is None:
                    error = {key: message["error"][key] for key in ("message", "code", "errno")}
    return error


def explain(error: Exception) -> tuple[str, int, int]:
    """(message, Docker's exit code, errno)."""
    if isinstance(error, StartError):
        return str(error), error.code, error.number
    if isinstance(error, (SetupError, NetworkError)):
        return str(error), 125, 0
    if isinstance(error, OSError):
        return f"starting the container: {error}", 125, error.errno or 0
    return f"starting the container: {type(error).__name__}: {error}", 125, 0
