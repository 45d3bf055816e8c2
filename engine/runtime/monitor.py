"""The process that stays with one container: starts it, keeps its log, answers for it, records its end.

Forked, warm, from the supervisor; it depends on no engine and no supervisor from then on. One thread, one epoll loop,
nothing in it blocks except (before the container runs) the wait for init's report.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from engine.linux import cgroup as cg
from engine.linux import libc, overlay, pty
from engine.runtime import init, init_namespaces, protocol, stubs
from engine.runtime import state as states
from engine.runtime.clients import Client
from engine.runtime.exec_sessions import ExecSession, start_exec
from engine.runtime.jsonlog import LogFile, Splitter
from engine.runtime.rootfs_devices import SetupError

_CHUNK = 65536
_RETRY = 0.25  # seconds between attempts to write to a full disk
_STDIN_BUFFER = 1 << 20


class StartError(Exception):
    """The container did not start: `code` as Docker's."""

    def __init__(self, message: str, code: int = 125, number: int = 0) -> None:
        super().__init__(message)
        self.code, self.number = code, number


class Monitor:
    """See the module. `run()` is the whole life."""

    def __init__(self, run_dir: str, boot: str, layout: cg.Layout, client: Client) -> None:
        self.run_dir = run_dir
        self.layout = layout
        self.starter = client
        self.state = states.State(boot_id=boot, monitor_pid=os.getpid(), monitor_start=states.start_time(os.getpid()))
        self.selector = selectors.DefaultSelector()
        self.clients: set[Client] = set()
        self.execs: dict[int, ExecSession] = {}
        self.log: LogFile | None = None
        self.splitters: dict[int, Splitter] = {}
        self.outputs: dict[int, int] = {}  # our end of a stream → protocol.STDOUT or STDERR
        self.stdin = -1
        self.stdin_buffer = bytearray()
        self.stdin_ending = False
        self.master = -1
        self.paused = False
        self.pid = self.pidfd = -1
        self.dead = False
        self.stub_report: tuple[list[Any], dict[str, Any]] = ([], {})
        self.listener: socket.socket | None = None
        self.cgroup: cg.Cgroup | None = None
        self.spec: dict[str, Any] = {}
        self.bundle = self.id = ""

    # --- start ---------------------------------------------------------------------------------------

    def run(self, request: dict[str, Any], fds: list[int]) -> None:
        try:
            self._start(request, fds)
        except Exception as error:
            self._start_failed(error)
            return
        self.loop()

    def _start(self, request: dict[str, Any], fds: list[int]) -> None:
        self.bundle, self.id = str(request["bundle"]), str(request["id"])
        self._lock()
        with open(os.path.join(self.bundle, "config.json"), "rb") as file:
            self.spec = json.loads(file.read())
        libc.set_name(f"wb-{self.id[:12]}")
        extra = self.spec["workbench"]
        self.cgroup = cg.Cgroup(self.layout, self.spec["linux"]["cgroupsPath"])
        self.cgroup.create(limits(self.spec))
        self.state.notes = tuple(self.cgroup.notes)
        stdio, ours = self._streams(extra, fds)
        if extra["log"] and extra["stdio"] == "log":
            self.log = LogFile(extra["log"])
        folder = os.path.join(self.run_dir, "c")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.listener = protocol.listen(folder, f"{self.id[:12]}.sock")
        self._fork_init(stdio)
        for fd in {*stdio}:
            os.close(fd)
        self._open_streams(ours)
        self.state.status, self.state.pid = "running", self.pid
        self.state.pid_start = states.start_time(self.pid)
        self.state.started = time.time_ns()
        states.write(self.bundle, self.state, durable=False)
        self._answer_starter(request)

    def _lock(self) -> None:
        self.lock = os.open(os.path.join(self.bundle, "monitor.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A monitor that has just recorded its container's end holds the lock for some milliseconds more.
        end = time.monotonic() + 2
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end or states.read(self.bundle).status == "running":
                    self.bundle = ""  # another monitor's: leave its files alone
                    raise StartError(f"container {self.id[:12]} is running already") from None
                time.sleep(0.002)

    def _streams(self, extra: dict[str, Any], fds: list[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """(the container's ends, ours). Ours are -1 where there is none."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self.spec["process"]["terminal"]:
            return (null, null, null), (-1, -1, -1)
        if extra["stdio"] == "fds":
            if len(fds) != 3:
                raise StartError(f"this container needs 3 descriptors from its starter, not {len(fds)}")
            os.close(null)
            return (fds[0], fds[1], fds[2]), (-1, -1, -1)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        in_read, in_write = null, -1
        if extra["open_stdin"]:
            os.close(null)
            in_read, in_write = os.pipe2(os.O_CLOEXEC)
        return (in_read, out_write, err_write), (in_write, out_read, err_read)

    def _fork_init(self, stdio: tuple[int, int, int]) -> None:
        assert self.cgroup is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # For children only. Our execs land in it too, which spares them a second fork.
        init_namespaces.before_fork(self.spec)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            init.run(self.spec, self.bundle, self.cgroup, theirs, stdio)
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)
        with ours:
            self._join_cgroup(ours)
            error = self._hear(ours)
        if error is not None:
            os.waitpid(self.pid, 0)
            self.pid = -1
            raise StartError(str(error["message"]), int(error["code"]), int(error["errno"]))

    def _join_cgroup(self, channel: socket.socket) -> None:
        assert self.cgroup is not None
        try:
            self.cgroup.join(self.pid)
            channel.send(init.JOINED)
        except ProcessLookupError:  # it died: what it had to say is on the channel
            pass
        except BrokenPipeError:
            pass

    def _hear(self, channel: socket.socket) -> dict[str, Any] | None:
        """Init's messages until execve closes the channel; its error if there was one."""
        while True:
            raw, fds, _flags, _address = socket.recv_fds(channel, 1 << 20, 1, socket.MSG_CMSG_CLOEXEC)
            if not raw:
                return None
            message = json.loads(raw)
            if "error" in message:
                return dict(message["error"])
            if fds:
                self.master = fds[0]
            if "stubs" in message:
                self.stub_report = (message["stubs"], message["copied"])

    def _open_streams(self, ours: tuple[int, int, int]) -> None:
        streams = [(ours[1], protocol.STDOUT), (ours[2], protocol.STDERR)]
        self.stdin = ours[0]
        if self.master >= 0:
            streams, self.stdin = [(self.master, protocol.STDOUT)], self.master
        for fd, kind in streams:
            if fd >= 0:
                os.set_blocking(fd, False)
                self.outputs[fd] = kind
                self.splitters[kind] = Splitter(protocol.STREAM_NAMES[kind])
                self.selector.register(fd, selectors.EVENT_READ, self._on_output)
        if self.stdin >= 0 and self.stdin != self.master:
            os.set_blocking(self.stdin, False)
        self.selector.register(self.pidfd, selectors.EVENT_READ, self._on_exit)
        assert self.listener is not None
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self._on_connect)

    def _answer_starter(self, request: dict[str, Any]) -> None:
        client = self.starter
        client.tether, client.attached = bool(request.get("tether")), bool(request.get("attach"))
        client.stdin = client.attached
        client.waiting = client.tether and not client.attached
        tty = self.master >= 0
        client.send_line({"pid": self.pid, "started": self.state.started, "tty": tty, "notes": self.state.notes})
        if not (client.tether or client.attached):
            client.finish()
        self._adopt(client)

    def _start_failed(self, error: Exception) -> None:
        if isinstance(error, StartError):
            message, code, number = str(error), error.code, error.number
        elif isinstance(error, SetupError):
            message, code, number = str(error), 125, 0
        elif isinstance(error, OSError):
            message, code, number = f"starting the container: {error}", 125, error.errno or 0
        else:
            message, code, number = f"starting the container: {type(error).__name__}: {error}", 125, 0
        if self.pid > 0 and self.pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        if self.bundle:
            self._clean()
            self.state.status, self.state.exit_code, self.state.error = "exited", code, message
            self.state.finished = time.time_ns()
            with contextlib.suppress(OSError):
                states.write(self.bundle, self.state, durable=False)
        self.starter.sock.setblocking(True)
        with contextlib.suppress(OSError):
            self.starter.sock.sendall(protocol.line({"error": message, "code": code, "errno": number}))

    # --- the loop ------------------------------------------------------------------------------------

    def loop(self) -> None:
        while not (self.dead and self._finalized()):
            waiting = self.paused or self.dead
            for key, events in self.selector.select(_RETRY if waiting else None):
                handler: Callable[[int, int], None] = key.data
                handler(key.fd, events)
            if self.paused and self.log is not None:
                self._resume_reading()
            self._sweep()
        self._farewell()

    def _on_output(self, fd: int, _events: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: a terminal whose last slave is closed
            data = b""
        if not data:
            self.selector.unregister(fd)
            self.outputs.pop(fd)
            if fd != self.master:
                os.close(fd)
            return
        self._output(self.outputs[fd], data)

    def _output(self, kind: int, data: bytes) -> None:
        if self.log is not None:
            self.log.write(self.splitters[kind].feed(data, time.time_ns()))
            if self.log.blocked and not self.paused:
                # The disk is full: leave the rest in the pipe, so that the program waits instead of losing lines.
                self.paused = True
                for fd in self.outputs:
                    self.selector.unregister(fd)
        message = b""
        for client in self.clients:
            if client.attached:
                message = message or protocol.frame(kind, data)
                client.send(message)

    def _resume_reading(self) -> None:
        assert self.log is not None
        self.log.flush()
        if not self.log.blocked:
            self.paused = False
            for fd in self.outputs:
                self.selector.register(fd, selectors.EVENT_READ, self._on_output)

    def _on_exit(self, _fd: int, _events: int) -> None:
        self.selector.unregister(self.pidfd)
        result = os.waitid(os.P_PID, self.pid, os.WEXITED)
        assert result is not None
        normal = result.si_code == os.CLD_EXITED
        self.state.exit_code = result.si_status if normal else 128 + result.si_status
        self.state.finished = time.time_ns()
        self.state.status = "exited"
        self.dead = True
        if self.cgroup is not None and init_namespaces.shares_pids(self.spec):
            self.cgroup.kill()
        self._drain()
        self._clean()

    def _drain(self) -> None:
        """What the streams still hold. Everything in the pid namespace is dead, so it is finite."""
        for fd, kind in list(self.outputs.items()):
            if not self.paused:
                self.selector.unregister(fd)
            while True:
                try:
                    data = os.read(fd, _CHUNK)
                except OSError:
                    break
                if not data:
                    break
                self._feed_dead(kind, data)
        self.outputs.clear()
        if self.log is not None:
            for splitter in self.splitters.values():
                self.log.write(splitter.finish(time.time_ns()))
        self.paused = False

    def _feed_dead(self, kind: int, data: bytes) -> None:
        if self.log is not None:
            self.log.write(self.splitters[kind].feed(data, time.time_ns()))
        for client in self.clients:
            if client.attached:
                client.send(protocol.frame(kind, data))

    def _clean(self) -> None:
        """Everything the container left outside its (gone) namespaces, before anybody hears of its end."""
        extra = self.spec.get("workbench", {})
        if self.cgroup is not None:
            self.state.oom_killed = self.cgroup.oom_killed()
            self.cgroup.remove()
        if extra.get("clean_stubs") and (self.stub_report[0] or self.stub_report[1]):
            with contextlib.suppress(OSError):
                stubs.clean(extra["upper"], *self.stub_report)
        if extra.get("volatile"):
            overlay.forget_volatile(extra["work"])
        if not self.dead and self.listener is not None:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.run_dir, "c", f"{self.id[:12]}.sock"))

    def _finalized(self) -> bool:
        """Log and exit record are on disk. False: the disk is full; try again, and go on answering meanwhile."""
        if self.log is not None:
            self.log.flush()
            if self.log.blocked:
                return False
        try:
            states.write(self.bundle, self.state, durable=self.spec["workbench"]["stdio"] == "log")
        except FileNotFoundError:  # the bundle was removed under us: there is nobody to record for
            pass
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                return False
            raise
        return True

    def _farewell(self) -> None:
        """Tells everyone who waits. The socket's name goes after the record is written: there is always an answer."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.run_dir, "c", f"{self.id[:12]}.sock"))
        self._on_connect(-1, 0)
        for client in list(self.clients):
            self._tell_exit(client)
        deadline = time.monotonic() + 5
        while self.clients and time.monotonic() < deadline:
            self._sweep()
            if self.clients:
                for key, events in self.selector.select(0.1):
                    key.data(key.fd, events)

    def _tell_exit(self, client: Client) -> None:
        code = self.state.exit_code
        if client.attached:
            client.send(protocol.frame(protocol.EXIT, str(code).encode()))
        elif client.waiting:
            client.send_line({"exit_code": code, "oom_killed": self.state.oom_killed, "finished": self.state.finished})
        client.finish()

    # --- clients -------------------------------------------------------------------------------------

    def _on_connect(self, _fd: int, _events: int) -> None:
        assert self.listener is not None
        while True:
            try:
                sock, _address = self.listener.accept()
            except OSError:
                return
            if protocol.peer_uid(sock) != os.geteuid():
                sock.close()
                continue
            self._adopt(Client(sock))

    def _adopt(self, client: Client) -> None:
        self.clients.add(client)
        client.sock.setblocking(False)
        self.selector.register(client.sock, selectors.EVENT_READ, lambda _fd, events: self._on_client(client, events))

    def _on_client(self, client: Client, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            client.flush()
        if not events & selectors.EVENT_READ:
            return
        if not client.fill():
            if client.tether and not self.dead:
                self._kill(signal.SIGKILL)
            client.dead = True
            return
        try:
            self._serve(client)
        except (ValueError, KeyError, TypeError) as error:
            client.send_line({"error": f"bad request: {error}"})
            client.finish()

    def _serve(self, client: Client) -> None:
        while not client.attached and not client.closing:
            request = client.reader.take()
            if request is None:
                return
            self._request(client, request)
        while client.attached and (item := protocol.take_frame(client.reader.buffer)) is not None:
            self._frame(client, *item)

    def _request(self, client: Client, request: dict[str, Any]) -> None:
        op = request.get("op")
        if op == "ping":
            client.send_line({"ok": True, "pid": self.pid, "status": self.state.status})
        elif op == "wait":
            client.waiting = True
        elif op == "signal":
            self._kill(int(request["signum"]), client)
        elif op == "resize":
            if self.master >= 0:
                pty.resize(self.master, int(request["rows"]), int(request["columns"]))
            client.send_line({"ok": True})
        elif op == "attach":
            client.send_line({"ok": True, "tty": self.master >= 0})
            client.attached, client.stdin = True, bool(request.get("stdin", True))
        elif op == "exec":
            fds, client.reader.fds = client.reader.fds, []
            assert self.cgroup is not None
            target = (self.pid, self.pidfd, self.cgroup)
            session = start_exec(self.spec, request, fds, target, client, alive=not self.dead)
            if session is not None:
                self.execs[session.pid] = session
                session.register(self.selector, lambda: self.execs.pop(session.pid, None))
        else:
            client.send_line({"error": f"no operation {op!r}"})

    def _kill(self, number: int, client: Client | None = None) -> None:
        """Race free: while we have not reaped it the pid is its own."""
        answer: dict[str, Any] = {"ok": True}
        try:
            if self.dead:
                raise ProcessLookupError(errno.ESRCH, "the container is not running")
            signal.pidfd_send_signal(self.pidfd, number)
        except OSError as error:
            answer = {"error": error.strerror or str(error), "errno": error.errno}
        if client is not None:
            client.send_line(answer)

    def _frame(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == protocol.STDIN and client.stdin:
            self._feed_stdin(payload)
        elif kind == protocol.STDIN_EOF and client.stdin and self.master < 0:
            self.stdin_ending = True
            self._feed_stdin(b"")
        elif kind == protocol.RESIZE and self.master >= 0 and len(payload) == 4:
            pty.resize(self.master, int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big"))

    def _feed_stdin(self, data: bytes) -> None:
        if self.stdin < 0:
            return
        self.stdin_buffer += data
        try:
            while self.stdin_buffer:
                done = os.write(self.stdin, self.stdin_buffer[:_CHUNK])
                del self.stdin_buffer[:done]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: the program closed its stdin
            self.stdin_buffer.clear()
            self.stdin_ending = self.master < 0
        self._watch_stdin()
        if self.stdin_ending and not self.stdin_buffer and self.master < 0:
            os.close(self.stdin)
            self.stdin = -1

    def _watch_stdin(self) -> None:
        """Waits for room while there is something to write."""
        fd, full = self.stdin, bool(self.stdin_buffer)
        registered = fd in self.selector.get_map()
        if fd == self.master:
            if registered and not self.paused:
                mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if full else 0)
                self.selector.modify(fd, mask, self._on_terminal)
        elif full and not registered:
            self.selector.register(fd, selectors.EVENT_WRITE, lambda _fd, _events: self._feed_stdin(b""))
        elif registered and not full:
            self.selector.unregister(fd)

    def _on_terminal(self, fd: int, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._feed_stdin(b"")
        if events & selectors.EVENT_READ and fd in self.outputs:
            self._on_output(fd, events)

    def _sweep(self) -> None:
        """Lets go of finished clients, and watches for room where bytes wait. A client that feeds faster than the
        program reads is not read from."""
        for client in list(self.clients):
            if client.done:
                self.clients.discard(client)
                self.selector.unregister(client.sock)
                client.close()
                continue
            mask = selectors.EVENT_WRITE if client.out else 0
            if not (client.attached and len(self.stdin_buffer) > _STDIN_BUFFER):
                mask |= selectors.EVENT_READ
            mask = mask or selectors.EVENT_READ
            key = self.selector.get_key(client.sock)
            if key.events != mask:
                self.selector.modify(client.sock, mask, key.data)


def limits(spec: dict[str, Any]) -> cg.Limits:
    """The resource section as the cgroup's limits."""
    resources = spec["linux"]["resources"]
    memory, cpu, pids = resources.get("memory", {}), resources.get("cpu", {}), resources.get("pids", {})
    return cg.Limits(
        memory=int(memory.get("limit", 0)),
        swap=max(int(memory.get("swap", 0)), 0),
        quota=int(cpu.get("quota", 0)),
        period=int(cpu.get("period", 100_000)),
        pids=max(int(pids.get("limit", 0)), 0),
        all_devices=bool(spec["workbench"]["privileged"]),
    )
