"""Who talks to a monitor: its socket, the conversations on it, and what each request does."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from engine.runtime import protocol
from engine.runtime.clients import Client
from engine.runtime.exec_sessions import discard
from engine.runtime.loop import READ, WRITE, Loop

if TYPE_CHECKING:
    from engine.runtime.monitor import Monitor

_FAREWELL = 5.0  # seconds for the last bytes to slow clients


class Clients:
    """All connections of one monitor."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._loop: Loop = monitor.loop
        self._all: set[Client] = set()
        self._listener: socket.socket | None = None
        self._folder = self._name = ""
        self.remover_waits = False  # an engine said that it removes the container after its end

    def listen(self, folder: str, name: str) -> None:
        """From the first start on; it goes on over restarts."""
        if self._listener is not None:
            return
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._folder, self._name = folder, name
        self._listener = protocol.listen(folder, name)
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), READ, self._on_connect)

    def unlisten(self) -> None:
        """The name goes; who has connected is still taken."""
        if self._listener is not None:
            try:
                os.unlink(os.path.join(self._folder, self._name))
            except OSError:
                pass

    def adopt(self, client: Client) -> None:
        self._all.add(client)
        client.sock.setblocking(False)
        self._loop.watch(client.sock.fileno(), READ, lambda _fd, events: self._on_client(client, events))

    def output(self, kind: int, data: bytes) -> None:
        """To all who are attached to that stream."""
        message = b""
        for client in self._all:
            if client.attached and kind in client.kinds:
                message = message or protocol.frame(kind, data)
                client.send(message)

    def tell_exit(self) -> None:
        """The container has ended, for good or until its next start."""
        state = self._monitor.state
        code = state.exit_code
        for client in self._all:
            if client.attached:
                client.send(protocol.frame(protocol.EXIT, str(code).encode()))
            elif client.waiting:
                client.send_line({"exit_code": code, "oom_killed": state.oom_killed, "finished": state.finished})
            else:
                continue
            client.finish()

    def farewell(self) -> None:
        """Answers all who are there, and who came while we were ending, and lets go of them."""
        self._on_connect(-1, 0)
        for client in list(self._all):
            self._serve(client)
        self.tell_exit()
        for client in self._all:
            client.finish()
        deadline = time.monotonic() + _FAREWELL
        self.sweep()
        while self._all and time.monotonic() < deadline:
            self._loop.turn(0.1)
            self.sweep()

    def sweep(self) -> None:
        """Lets go of finished clients, and watches for room where bytes wait. A client that feeds faster than the
        program reads is not read from."""
        full = self._monitor.streams.stdin_full
        for client in list(self._all):
            fd = client.sock.fileno()
            if client.done:
                self._all.discard(client)
                self._loop.forget(fd)
                client.close()
                if client.feeds and client.last_word:
                    self._monitor.stdin_left(self._feeders())
                continue
            mask = WRITE if client.out else 0
            if not (client.attached and full):
                mask |= READ
            client.watch(self._loop, mask or READ)

    def _feeders(self) -> int:
        return sum(1 for client in self._all if client.feeds and not client.done)

    # --- conversations -------------------------------------------------------------------------------

    def _on_connect(self, _fd: int, _events: int) -> None:
        assert self._listener is not None
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            if protocol.peer_uid(sock) != os.geteuid():
                sock.close()
                continue
            self.adopt(Client(sock))

    def _on_client(self, client: Client, events: int) -> None:
        if events & WRITE:
            client.flush()
        if not events & READ:
            return
        if not client.fill():
            if client.tether:
                self._monitor.kill(signal.SIGKILL)
            client.dead = True
            return
        self._serve(client)

    def _serve(self, client: Client) -> None:
        try:
            while not client.attached and not client.closing:
                request = client.reader.take()
                if request is None:
                    return
                self._request(client, request)
            while client.attached and (item := protocol.take_frame(client.reader.buffer)) is not None:
                self._frame(client, *item)
        except (ValueError, KeyError, TypeError) as error:
            client.send_line({"error": f"bad request: {error}"})
            client.finish()

    def _request(self, client: Client, request: dict[str, Any]) -> None:
        monitor, op = self._monitor, request.get("op")
        if op == "ping":
            client.send_line(monitor.about())
        elif op == "wait":
            client.waiting = True
            self.remover_waits = self.remover_waits or bool(request.get("removes"))
        elif op == "signal":
            client.send_line(monitor.signal(int(request["signum"])))
        elif op == "stop":
            timeout = request.get("timeout")
            grace = None if timeout is None else float(timeout)
            client.send_line(monitor.stop(int(request["signum"]), grace, keep=bool(request.get("keep"))))
            client.waiting = True
            self.remover_waits = self.remover_waits or bool(request.get("removes"))
        elif op == "pause":
            client.send_line(monitor.pause())
        elif op == "unpause":
            client.send_line(monitor.unpause())
        elif op == "policy":
            client.send_line(monitor.change_policy(dict(request["restart_policy"])))
        elif op == "update":
            client.send_line(monitor.update(dict(request["resources"])))
        elif op == "resize":
            monitor.resize(int(request["rows"]), int(request["columns"]))
            client.send_line({"ok": True})
        elif op == "attach":
            self._attach(client, request)
        elif op == "exec":
            fds, client.reader.fds = client.reader.fds, []
            monitor.execs.ask(request, fds, client)
        elif op in ("connect", "disconnect", "names"):
            client.send_line(monitor.change_network(request))
        elif op == "lend_ports":
            socks, document = monitor.network.lend()
            if len(socks) > protocol.MOST_FDS:
                client.send_line({"error": f"{len(socks)} published ports are too many to hand over"})
                return
            client.send_with([sock.fileno() for sock in socks], document)
        elif op == "take_ports":
            fds, client.reader.fds = client.reader.fds, []
            client.send_line(monitor.take_over(fds, request))
        elif op == "let_go":
            client.send_line(monitor.let_go())
        elif op == "exec_detach":
            fds, client.reader.fds = client.reader.fds, []
            for fd in fds:
                discard(self._loop, fd)
            monitor.note("exec_detach", execID=str(request.get("id")))
            client.send_line({"ok": True})
            client.finish()
        elif op == "execs":
            client.send_line({"execs": monitor.execs.documents()})
        else:
            client.send_line({"error": f"no operation {op!r}"})

    def _attach(self, client: Client, request: dict[str, Any]) -> None:
        if refusal := self._monitor.refuses("attach"):
            client.send_line(refusal)
            client.finish()
            return
        client.send_line({"ok": True, "tty": self._monitor.streams.tty})
        client.attach(request)
        self._monitor.note("attach")

    def _frame(self, client: Client, kind: int, payload: bytes) -> None:
        streams = self._monitor.streams
        if kind == protocol.STDIN and client.feeds:
            streams.feed(payload)
        elif kind == protocol.STDIN_EOF and client.feeds:
            if self._monitor.life.get("stdin_once", True):  # else the next one that attaches may feed it
                streams.end_stdin()
        elif kind == protocol.RESIZE and len(payload) == 4:
            self._monitor.resize(int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big"))
        elif kind == protocol.DETACH:
            client.last_word = False  # stdin stays open for the next one
            self._monitor.note("detach")
            client.finish()
