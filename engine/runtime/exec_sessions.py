"""The monitor's side of one exec: its channel, its exit, its client."""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Callable
from typing import Any

from engine.linux.cgroup import Cgroup
from engine.runtime import execs, protocol
from engine.runtime.clients import Client


class ExecSession:
    """Tells its client `{"started": pid}` (with the terminal's master where there is one) and then `{"exit_code": n}`;
    or `{"error", "code"}` when the command could not be run. The process goes on when the client goes away."""

    def __init__(self, pid: int, channel: socket.socket, client: Client) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel
        self.client = client
        self._failed = False
        self._listening = True
        self._selector: selectors.BaseSelector | None = None
        self._forget: Callable[[], object] = lambda: None

    def register(self, selector: selectors.BaseSelector, forget: Callable[[], object]) -> None:
        self._selector, self._forget = selector, forget
        selector.register(self.channel, selectors.EVENT_READ, self._on_channel)
        selector.register(self.pidfd, selectors.EVENT_READ, self._on_exit)

    def _on_channel(self, _fd: int, _events: int) -> None:
        raw, fds, _flags, _address = socket.recv_fds(self.channel, 1 << 20, 1, socket.MSG_CMSG_CLOEXEC)
        assert self._selector is not None
        if not raw:  # closed by execve, or by death
            self._selector.unregister(self.channel)
            self.channel.close()
            self._listening = False
            if not self._failed:
                self.client.send_line({"started": self.pid})
            return
        message = json.loads(raw)
        if fds:
            # Sent at once, past the buffer: descriptors cannot wait in a bytearray. The buffer is empty here, because
            # nothing else has been said on this connection.
            try:
                protocol.send_line(self.client.sock, {"tty": True}, fds)
            except OSError:
                self.client.dead = True
            for fd in fds:
                os.close(fd)
        if "error" in message:
            self._failed = True
            error = message["error"]
            self.client.send_line({"error": error["message"], "code": error["code"], "errno": error["errno"]})

    def _on_exit(self, _fd: int, _events: int) -> None:
        while self._listening:
            self._on_channel(-1, 0)
        assert self._selector is not None
        self._selector.unregister(self.pidfd)
        os.close(self.pidfd)
        result = os.waitid(os.P_PID, self.pid, os.WEXITED)
        assert result is not None
        code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        if not self._failed:
            self.client.send_line({"exit_code": code})
        self.client.finish()
        self._forget()


def start_exec(
    spec: dict[str, Any],
    request: dict[str, Any],
    fds: list[int],
    target: tuple[int, int, Cgroup],
    client: Client,
    *,
    alive: bool,
) -> ExecSession | None:
    """Forks the process into `target` (pid 1, its pidfd, its cgroup). None: the client was told why not."""
    tty = bool(request.get("tty"))
    try:
        if not alive:
            raise ProcessLookupError("the container is not running")
        if not request.get("args") or (not tty and len(fds) != 3):
            raise ValueError("an exec needs a command, and 3 descriptors or a terminal")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            child = os.fork()
        except OSError:  # ENOMEM: its pid namespace has no pid 1 any more
            ours.close()
            theirs.close()
            raise ProcessLookupError("the container is not running") from None
        if child == 0:
            ours.close()
            stdio = None if tty else (fds[0], fds[1], fds[2])
            execs.run(spec, request, *target, theirs, stdio)
        theirs.close()
        return ExecSession(child, ours, client)
    except (OSError, ValueError) as error:
        client.send_line({"error": str(error), "code": 125, "errno": getattr(error, "errno", None) or 0})
        client.finish()
        return None
    finally:
        for fd in fds:
            os.close(fd)
