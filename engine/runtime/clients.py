"""The monitor's side of one connection: lines first, frames once attached. Nothing here blocks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from engine.runtime import protocol
from engine.runtime.loop import READ, Loop

# A client that reads slower than the container writes is let go rather than slowing the container or eating memory.
MAX_BUFFER = 8 << 20


class Client:
    """A connection in the monitor's loop. `attached`, `waiting`, `tether` say what it is for."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reader = protocol.LineReader(sock)
        self.out = bytearray()
        self.attached = False
        self.feeds = False  # its STDIN frames reach the program
        self.kinds: tuple[int, ...] = (protocol.STDOUT, protocol.STDERR)  # the streams it is attached to
        self.last_word = True  # when it goes, so may the program's stdin
        self.waiting = False
        self.tether = False
        self.closing = False  # close when `out` is empty
        self.dead = False
        self._watched = READ

    def attach(self, request: dict[str, Any]) -> None:
        """Frames from now on. `stdin`, `stdout`, `stderr` of the request say which (default: all)."""
        self.attached, self.feeds = True, bool(request.get("stdin", True))
        names = {protocol.STDOUT: "stdout", protocol.STDERR: "stderr"}
        self.kinds = tuple(kind for kind, name in names.items() if request.get(name, True))

    def watch(self, loop: Loop, events: int) -> None:
        if events != self._watched:
            self._watched = events
            loop.change(self.sock.fileno(), events)

    def send(self, data: bytes) -> None:
        if self.dead or self.closing:
            return
        if len(self.out) + len(data) > MAX_BUFFER:
            self.dead = True
            return
        self.out += data
        self.flush()

    def send_line(self, document: dict[str, Any]) -> None:
        self.send(protocol.line(document))

    def send_with(self, fds: Sequence[int], document: dict[str, Any]) -> None:
        """A line that descriptors ride on. It is small, and nothing waits before it."""
        try:
            protocol.send_line(self.sock, document, fds)
        except OSError:
            self.dead = True

    def flush(self) -> None:
        try:
            while self.out:
                sent = self.sock.send(memoryview(self.out)[: 1 << 18])
                del self.out[:sent]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.dead = True
        except BufferError:  # never: the view is gone before the delete
            raise

    def finish(self) -> None:
        """Ends the conversation once everything is sent."""
        self.closing = True

    @property
    def done(self) -> bool:
        return self.dead or (self.closing and not self.out)

    def fill(self) -> bool:
        """Reads what is there. False at the end."""
        try:
            return self.reader.fill()
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

    def close(self) -> None:
        self.reader.close_fds()
        self.sock.close()
