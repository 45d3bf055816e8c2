"""The monitor's side of one exec: its channel, its exit, and whoever wants to know of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from typing import Any, Protocol

from engine.linux.cgroup import Cgroup
from engine.runtime import exec_steps, execs, outside, protocol, tiny_exec
from engine.runtime.clients import Client
from engine.runtime.loop import READ, Loop


class Listener(Protocol):
    """Who asked for the exec. Either `failed`, or `started` and then `ended`."""

    def terminal(self, fds: list[int]) -> None:
        """The master of its terminal; the descriptors are closed afterwards."""

    def started(self, pid: int) -> None: ...

    def failed(self, message: str, code: int, number: int) -> None: ...

    def ended(self, code: int) -> None: ...


class Session(Protocol):
    """One process beside the container's first, whoever made it. `exit_code` is None while it runs."""

    id: str
    pid: int
    exit_code: int | None

    def register(self, loop: Loop) -> None: ...

    def kill(self) -> None: ...


class ClientListener:
    """Tells a client `{"started": pid}` and then `{"exit_code": n}`, or `{"error", "code", "errno"}`. The process goes on
    when the client goes away."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def terminal(self, fds: list[int]) -> None:
        # Sent at once, past the buffer: descriptors cannot wait in a bytearray. The buffer is empty here, because
        # nothing else has been said on this connection.
        try:
            protocol.send_line(self._client.sock, {"tty": True}, fds)
        except OSError:
            self._client.dead = True

    def started(self, pid: int) -> None:
        self._client.send_line({"started": pid})

    def failed(self, message: str, code: int, number: int) -> None:
        self._client.send_line({"error": message, "code": code, "errno": number})
        self._client.finish()

    def ended(self, code: int) -> None:
        self._client.send_line({"exit_code": code})
        self._client.finish()


class DetachedListener(ClientListener):
    """The same for a client that wants to know of the start only. A terminal's master stays here, or the process would
    be hung up; what it says is read and forgotten."""

    def __init__(self, client: Client, loop: Loop) -> None:
        super().__init__(client)
        self._loop = loop

    def terminal(self, fds: list[int]) -> None:
        for fd in fds:
            discard(self._loop, os.dup(fd))

    def started(self, pid: int) -> None:
        super().started(pid)
        self._client.finish()


def discard(loop: Loop, fd: int) -> None:
    """Reads a terminal's output away, until its end."""
    os.set_blocking(fd, False)

    def ready(fd: int, _events: int) -> None:
        try:
            if os.read(fd, 65536):
                return
        except BlockingIOError:
            return
        except OSError:  # EIO: the last slave is closed
            pass
        loop.forget(fd)
        os.close(fd)

    loop.watch(fd, READ, ready)


_GONE = ("the container is not running", 125, 0)


class ExecSession:
    """One process beside the container's first. `exit_code` is None while it runs."""

    def __init__(
        self,
        identity: str,
        pid: int,
        channel: socket.socket,
        listeners: list[Listener],
        plan: exec_steps.Plan | None = None,
        *,
        between: int,
    ) -> None:
        """`plan`: the process performs that, and reports as `tiny_exec` does. `between`: how many forks there are from the process
        `pid` to the command's: each parent reports its child and ends (`init.appear`)."""
        self.id = identity
        self._between = between
        self._plan = plan
        self.pid = pid
        self.exit_code: int | None = None
        self._pidfd = os.pidfd_open(pid)
        self._channel = channel
        self._listeners = listeners
        self._failed = False
        self._listening = True
        self._loop: Loop | None = None

    def register(self, loop: Loop) -> None:
        self._loop = loop
        loop.watch(self._channel.fileno(), READ, self._on_channel)
        loop.watch(self._pidfd, READ, self._on_exit)

    def kill(self) -> None:
        if self.exit_code is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_channel(self, _fd: int, _events: int) -> None:
        raw, fds, _flags, _address = socket.recv_fds(self._channel, 1 << 20, 1, socket.MSG_CMSG_CLOEXEC)
        assert self._loop is not None
        if not raw:  # closed by execve, or by death
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._listening = False
            if self._between and not self._failed:
                self._fail(*_GONE)
            elif not self._failed:
                for listener in self._listeners:
                    listener.started(self.pid)
            return
        if fds:
            if self._between:
                for listener in self._listeners:
                    listener.terminal(list(fds))
            for fd in fds:
                os.close(fd)
        # One in the container who traces the command's process may send anything.
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error):
            message = self._message(raw)
            if self._between and "pid" in message:
                self._become(int(message["pid"]))
            if "error" in message:
                error = message["error"]
                self._fail(str(error["message"]), int(error["code"]), int(error["errno"]))

    def _message(self, raw: bytes) -> dict[str, Any]:
        """A report of `tiny_exec` is made as the other messages are."""
        if self._plan is None:
            return dict(json.loads(raw))
        step, number, detail = tiny_exec.REPORT.unpack(raw)
        if step == tiny_exec.REMOTE:
            return {"pid": number}
        if self._between and self._plan.gone(step, number):
            return {"error": dict(zip(("message", "code", "errno"), _GONE, strict=True))}
        return {"error": self._plan.failed(step, number, detail)}

    def _fail(self, message: str, code: int, number: int) -> None:
        if not self._failed:
            self._failed = True
            for listener in self._listeners:
                listener.failed(message, code, number)

    def _become(self, pid: int) -> None:
        """The one in between ends: it has forked the process, which is a child of ours. (The channel is open in that one too: who traces
        it may name another process.)"""
        assert self._loop is not None
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        self._loop.forget(self._pidfd)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self.pid, self._between = pid, self._between - 1
        self._pidfd = os.pidfd_open(pid)
        self._loop.watch(self._pidfd, READ, self._on_exit)

    def _on_exit(self, _fd: int, _events: int) -> None:
        pid = self.pid
        while self._between and self._listening:  # who goes on, or why nobody does
            self._on_channel(-1, 0)
            if self.pid != pid:
                return
        while self._listening:
            self._on_channel(-1, 0)
        assert self._loop is not None
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        result = os.waitid(os.P_PID, self.pid, os.WEXITED)
        assert result is not None
        self.exit_code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        if not self._failed:
            for listener in self._listeners:
                listener.ended(self.exit_code)


def start_exec(
    spec: dict[str, Any],
    request: dict[str, Any],
    fds: list[int],
    target: tuple[int, int, Cgroup],
    listeners: list[Listener],
) -> ExecSession | None:
    """Starts the process in `target` (pid 1, its pidfd, its cgroup). None: the listeners were told why not."""
    tty = bool(request.get("tty"))
    try:
        if not request.get("args") or (not tty and len(fds) != 3):
            raise ValueError("an exec needs a command, and 3 descriptors or a terminal")
        if exec_steps.possible(spec, tty=tty):
            plan = exec_steps.make(spec, request, target[0], target[2], (fds[0], fds[1], fds[2]))
            # Not allowed: where nothing in memory may be executed (vm.memfd_noexec, SELinux).
            with contextlib.suppress(PermissionError):
                if plan is not None:
                    return _spawn(request, plan, fds, target, listeners)
        return _fork(spec, request, fds, target, listeners)
    except (OSError, ValueError, OverflowError) as error:
        for listener in listeners:
            listener.failed(str(error), 125, getattr(error, "errno", None) or 0)
        return None
    except exec_steps.Failed as failed:
        for listener in listeners:
            listener.failed(str(failed), int(failed.error["code"]), int(failed.error["errno"]))
        return None
    finally:
        for fd in fds:
            os.close(fd)


def _spawn(
    request: dict[str, Any],
    plan: exec_steps.Plan,
    fds: list[int],
    target: tuple[int, int, Cgroup],
    listeners: list[Listener],
) -> ExecSession:
    """By the small program, which forks the process and ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            first = exec_steps.start(plan, (fds[0], fds[1], fds[2]), target[1], target[2], theirs.fileno())
        return ExecSession(str(request.get("id") or ""), first, ours, listeners, plan, between=1 + plan.into)
    except BaseException:
        ours.close()
        raise


def _fork(
    spec: dict[str, Any],
    request: dict[str, Any],
    fds: list[int],
    target: tuple[int, int, Cgroup],
    listeners: list[Listener],
) -> ExecSession:
    """By a fork of the monitor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with outside.at_home():
            child, joined = target[2].fork()
            if child == 0:
                ours.close()
                stdio = None if request.get("tty") else (fds[0], fds[1], fds[2])
                execs.run(spec, request, *target, theirs, stdio, joined=joined)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ExecSession(str(request.get("id") or ""), child, ours, listeners, between=1)
