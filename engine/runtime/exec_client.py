"""The engine's side of an exec: what is asked for, its streams, and the monitor's word on whether it started."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import Conflict, StartFailed
from engine.runtime import protocol
from engine.runtime.answers import raise_reason
from engine.runtime.connections import ExecConnection


@dataclass(frozen=True, slots=True)
class ExecParams:
    """None means "as the container". `env` comes over the container's. `stdin` False gives the process /dev/null."""

    args: Sequence[str]
    env: Sequence[str] = ()
    user: str | None = None
    cwd: str | None = None
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    tty_size: tuple[int, int] = (0, 0)
    id: str = ""  # "" lets the monitor choose
    detach: bool = False  # nobody holds its streams


def execute(sock: socket.socket, container_id: str, params: ExecParams) -> ExecConnection:
    """Asks the monitor that `sock` leads to for a further process. Raises StartFailed (126, 127 as Docker) or Conflict."""
    identity = params.id or os.urandom(32).hex()
    request = {
        "op": "exec",
        "id": identity,
        "detach": params.detach,
        "args": list(params.args),
        "env": list(params.env),
        "user": params.user,
        "cwd": params.cwd,
        "tty": params.tty,
        "privileged": params.privileged,
        "tty_size": list(params.tty_size),
    }
    reader = protocol.LineReader(sock)
    pipes = Pipes(params)
    try:
        protocol.send_line(sock, request, pipes.theirs)
        pipes.close_theirs()
        pid = _started(container_id, reader)
        master = reader.fds.pop(0) if params.tty and reader.fds else -1
        outputs = {master: "stdout"} if master >= 0 else pipes.outputs
        return ExecConnection(reader, pid, identity, stdin=pipes.stdin, outputs=outputs, master=master)
    except BaseException as error:
        pipes.close()
        reader.close_fds()
        sock.close()
        if isinstance(error, OSError):
            raise Conflict(f"container {container_id[:12]} is not running") from None
        raise


def _started(container_id: str, reader: protocol.LineReader) -> int:
    while True:
        answer = reader.read()
        if answer is None:
            raise Conflict(f"container {container_id[:12]} is not running")
        if "started" in answer:
            return int(answer["started"])
        if "error" in answer:
            raise_reason(container_id, answer)
            raise StartFailed(str(answer["error"]), exit_code=int(answer.get("code", 125)))


class Pipes:
    """The three streams of an exec without a terminal: our ends and the process's."""

    def __init__(self, params: ExecParams) -> None:
        self.theirs: list[int] = []
        self.outputs: dict[int, str] = {}
        self.stdin = -1
        if params.detach:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self.theirs += [null, os.dup(null), os.dup(null)] if not params.tty else []
            if params.tty:
                os.close(null)
            return
        if params.tty:
            return
        if params.stdin:
            theirs, self.stdin = os.pipe2(os.O_CLOEXEC)
        else:
            theirs = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.theirs.append(theirs)
        for name in ("stdout", "stderr"):
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            self.outputs[ours] = name
            self.theirs.append(theirs)

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def close(self) -> None:
        self.close_theirs()
        for fd in [*self.outputs, *([self.stdin] if self.stdin >= 0 else [])]:
            os.close(fd)
