"""One start of a container: its group, its streams, the fork of init, and what init has to say until execve."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

from engine.linux import cgroup as cg
from engine.runtime import init, init_namespaces, outside
from engine.runtime.netns import ContainerLink


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
    stubs: list[Any] = field(default_factory=list)
    copied: dict[str, Any] = field(default_factory=dict)


def launch(spec: dict[str, Any], bundle: str, cgroup: cg.Cgroup, network: ContainerLink, fds: list[int]) -> Started:
    """Starts what `spec` says, in `cgroup`, which is made, and on `network`. Raises StartError, NetworkError or OSError;
    the caller then cleans up (`ending.clean`). `fds` are a build step's streams, and are closed."""
    network.prepare()
    cgroup.create(spec["linux"]["resources"])
    stdio, ours = _streams(spec, fds)
    try:
        started = _fork_init(spec, bundle, cgroup, network, stdio)
    except BaseException:
        for fd in ours:
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in {*stdio}:
            os.close(fd)
    started.stdin, started.stdout, started.stderr = ours
    if started.master >= 0:
        started.stdin = started.stdout = started.master
    return started


def _streams(spec: dict[str, Any], fds: list[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
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


def _fork_init(
    spec: dict[str, Any], bundle: str, cgroup: cg.Cgroup, network: ContainerLink, stdio: tuple[int, int, int]
) -> Started:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if outside.returns():
        # For children only. Our execs land in it too, which spares them a second fork.
        init_namespaces.before_fork(spec)
        pid = os.fork()
    else:
        pid = outside.fork_into(lambda: init_namespaces.before_fork(spec))
    if pid == 0:
        ours.close()
        init.run(spec, bundle, cgroup, theirs, stdio)
    theirs.close()
    started = Started(pid, os.pidfd_open(pid))
    with ours:
        try:
            error = network.receive(ours, pid)
        except BaseException as trouble:
            # Init may have failed meanwhile, and its namespace be gone: then what it says is the reason, not this.
            error = _hear(ours, started) if _has_ended(started, trouble) else None
            if error is None:
                signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(started.pidfd)
                raise
        if error is None:
            _join_cgroup(cgroup, pid, ours)
            error = _hear(ours, started)
    if error is not None:
        os.waitpid(pid, 0)
        os.close(started.pidfd)
        if started.master >= 0:
            os.close(started.master)
        failure = StartError(str(error["message"]), int(error["code"]), int(error["errno"]))
        failure.stubs, failure.copied = started.stubs, started.copied
        raise failure
    return started


def _has_ended(started: Started, trouble: BaseException) -> bool:
    gone = getattr(trouble.__cause__, "errno", 0) == errno.ESRCH
    return bool(select.select([started.pidfd], [], [], 1.0 if gone else 0)[0])


def _join_cgroup(cgroup: cg.Cgroup, pid: int, channel: socket.socket) -> None:
    try:
        cgroup.join(pid)
        channel.send(init.JOINED)
    except ProcessLookupError:  # it died: what it had to say is on the channel
        pass
    except BrokenPipeError:
        pass


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
        if fds:
            started.master = fds[0]
        if "stubs" in message:
            started.stubs, started.copied = message["stubs"], message["copied"]
