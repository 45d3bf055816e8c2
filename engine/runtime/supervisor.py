"""The small, warm process that containers are forked from: one per run directory, started on demand, detached.

It runs the standard library alone, single-threaded, from a sealed copy of the interpreter in memory: what enters a
container through it has a /proc/self/exe that nobody can write to (CVE-2019-5736). It holds no state; killing it loses
nothing, and the next start makes a new one.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.linux import cgroup, delegation, libc
from engine.linux.inotify import IN_CLOSE_WRITE, IN_DELETE_SELF, Inotify
from engine.runtime import bridges, outside, protocol, state, usernet
from engine.runtime.bootstrap import SOCKET, bootstrap
from engine.runtime.clients import Client
from engine.runtime.data_root import DataRoot
from engine.runtime.deaths import Deaths
from engine.runtime.monitor import Monitor
from engine.runtime.parked import Parked
from engine.runtime.rootfs_devices import SetupError
from engine.runtime.spares import Serve, Spares
from engine.runtime.viewer import Busy, make_view

LOCK = "supervisor.lock"


def main(argv: list[str]) -> None:
    run_dir, ready, form, version = argv[0], int(argv[1]), argv[2], argv[3]
    note = _reexec_sealed(run_dir, ready, version) if form == "plain" else ""
    _detach(ready)
    lock = os.open(os.path.join(run_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(0)  # another one serves
    listener = protocol.listen(run_dir, SOCKET, backlog=1024)
    os.write(ready, b"ready " + note.encode())
    os.close(ready)
    serve(run_dir, listener, lock, version)


def _reexec_sealed(run_dir: str, ready: int, version: str) -> str:
    """Becomes the same program from a sealed memfd. Returns (why not) when that does not work here."""
    try:
        fd = os.memfd_create("workbench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open("/proc/self/exe", "rb") as program:
            size, done = os.fstat(program.fileno()).st_size, 0
            while done < size:
                count = os.sendfile(fd, program.fileno(), done, size - done)
                if not count:
                    break
                done += count
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        os.set_inheritable(ready, True)
        real = os.readlink("/proc/self/exe")
        root = sys.path[-1]
        # argv[0] is the real path: the interpreter finds its library beside it.
        words = [real, "-I", "-S", "-c", bootstrap(root), run_dir, str(ready), "sealed", version]
        # Bound now: every fork would look up the same functions again, and write down where they are in pages of its own.
        os.execve(fd, words, {**os.environ, "LD_BIND_NOW": "1"})
    except OSError as error:
        return f"interpreter not sealed in memory: {error.strerror}"


def _detach(ready: int) -> None:
    """A daemon: own session, no terminal, nothing of the starter's but the one descriptor."""
    os.set_inheritable(ready, False)
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o022)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if ready != 3:
        os.dup2(ready, 3, inheritable=False)
    libc.close_from(4)
    if ready != 3:
        os.dup2(3, ready, inheritable=False)
        os.close(3)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    libc.set_name("wb-supervisor")
    # Inherited by every fork: what enters a container cannot be traced from inside while it is still ours.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-500")
    except OSError:
        pass


def serve(run_dir: str, listener: socket.socket, lock: int, version: str) -> None:
    """One fork a connection; the child answers it."""
    boot = state.boot_id()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        layout = delegation.take(cgroup.discover(file.read()))
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page
    gc.disable()
    me = os.getpid()
    idle, deaths, root = _IdleNetworks(run_dir), Deaths(run_dir), DataRoot(run_dir)

    place = _Place(run_dir, boot, layout, version, me)

    def spare() -> Serve:
        """In a spare: all that a monitor is before anybody knows whose."""
        monitor = Monitor(run_dir, boot, layout)
        return lambda connection, parked, begin: _serve(place, connection, parked, begin, monitor)

    def alone() -> None:
        """In a child."""
        deaths.close()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever ends the session means the container: it gets its own
        os.setsid()
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        listener.close()
        os.close(lock)
        idle.close()
        root.close()

    spares = Spares(layout, alone, spare)
    while True:
        try:
            if not _wait(listener, idle, deaths, root, spares):
                if not os.fstat(lock).st_nlink:
                    return  # its folder was removed: nobody can ask it for anything any more
                if root.over():
                    os.unlink(os.path.join(run_dir, SOCKET))
                    return
                continue
            connection, _address = listener.accept()
        except OSError:
            continue
        if not spares.hand(connection):
            try:
                if not os.fork():
                    try:
                        spares.forget()
                        alone()
                        _serve(place, connection)
                    finally:  # the child must never come back into this loop
                        os._exit(0)
            except OSError as error:
                _refuse(connection, f"cannot fork: {error.strerror}")
        connection.close()


def _wait(listener: socket.socket, idle: _IdleNetworks, deaths: Deaths, root: DataRoot, spares: Spares) -> bool:
    """Does what is to be done beside; True when there is a connection to accept."""
    due = [when for when in (idle.due(), deaths.due(), root.due(), spares.due()) if when is not None]
    timeout = max(0.0, min(due) - time.monotonic()) if due else None
    watched: list[Any] = [listener, *idle.fds(), *deaths.fds(), *root.fds(), *spares.fds()]
    ready = select.select(watched, [], [], timeout)[0]
    for fd in ready:
        if isinstance(fd, int) and fd in spares.fds():
            spares.hear(fd)
    idle.turn(ready)
    deaths.turn(ready)
    root.turn(ready)
    if listener not in ready:
        spares.turn()
    return listener in ready


class _IdleNetworks:
    """Networks whose last container has gone are removed a little later (see `bridges`). A monitor that ends, in whatever
    way, closes its lock on them, which inotify(7) tells."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._deadline: float | None = 0.0  # first what a supervisor before this one has left
        self._events: Inotify | None = None
        try:
            folder = os.path.join(run_dir, bridges.FOLDER)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._events = Inotify()
            self._events.add(folder, IN_CLOSE_WRITE | IN_DELETE_SELF)
        except OSError:
            pass  # no instance left: then it looks every second as long as there are networks

    def fds(self) -> list[int]:
        return [] if self._events is None else [self._events.fd]

    def due(self) -> float | None:
        """When `turn` has something to do (time.monotonic)."""
        return self._deadline

    def turn(self, ready: list[Any]) -> None:
        if self._events is not None and self._events.fd in ready and self._events.drain() and self._deadline is None:
            self._deadline = time.monotonic() + bridges.IDLE
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._look()

    def close(self) -> None:
        """In a monitor: it is not its affair."""
        if self._events is not None:
            self._events.close()

    def _look(self) -> None:
        ready, soon = bridges.idle(self._run_dir)
        again = ready or soon or self._events is None
        self._deadline = time.monotonic() + bridges.IDLE if again else None
        if ready and not os.fork():  # in a child: this process stays as small as it is
            try:
                usernet.enter(self._run_dir)
                bridges.reap(self._run_dir)
            finally:
                os._exit(0)


def _refuse(connection: socket.socket, message: str) -> None:
    try:
        connection.setblocking(True)
        connection.sendall(protocol.line({"error": message, "code": 125, "errno": 0}))
        connection.close()
    except OSError:
        pass


def _view(request: dict[str, Any], connection: socket.socket) -> None:
    try:
        fds = make_view(request)
    except Busy:
        connection.sendall(protocol.line({"busy": True}))
    except (SetupError, OSError) as error:
        connection.sendall(protocol.line({"error": str(error), "errno": getattr(error, "errno", 0) or 0}))
    else:
        protocol.send_line(connection, {"ok": True}, fds)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a monitor has of the supervisor it is forked from."""

    run_dir: str
    boot: str
    layout: cgroup.Layout
    version: str
    supervisor: int


def _serve(
    place: _Place,
    connection: socket.socket,
    parked: Parked | None = None,
    begin: Callable[[], None] | None = None,
    monitor: Monitor | None = None,
) -> bool:
    """In a child: answers a connection, or becomes a container's monitor. `begin`, before that, is for a spare, which goes on after
    either; True: it was a monitor and can be one again. Others never return from it."""
    try:
        connection.settimeout(30)
        reader = protocol.LineReader(connection)
        request = reader.read() if protocol.peer_uid(connection) == os.geteuid() else None
        if request is None:
            return False
        if request.get("op") == "start" and request.get("program", place.version) == place.version:
            return _monitor(place, connection, reader, request, parked, begin, monitor)
        if begin is None:
            _answer(place, connection, request)
        else:  # a view goes into namespaces of its own, which is no way for a monitor
            pid = outside.fork()
            if not pid:
                try:
                    _answer(place, connection, request)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
    except BaseException as error:
        _refuse(connection, f"{type(error).__name__}: {error}")
    return False


def _answer(place: _Place, connection: socket.socket, request: dict[str, Any]) -> None:
    if request.get("op") == "ping":
        connection.sendall(protocol.line({"ok": True, "pid": place.supervisor, "program": place.version}))
    elif request.get("op") not in ("start", "view"):
        _refuse(connection, f"no operation {request.get('op')!r}")
    elif request.get("program", place.version) != place.version:
        # Ours is another version of the program than the caller's. It starts its own supervisor; what we have started
        # goes on, since a monitor needs no supervisor.
        os.kill(place.supervisor, signal.SIGTERM)
        connection.sendall(protocol.line({"error": "another version of the program", "stale": place.supervisor}))
    else:
        _view(request, connection)


def _monitor(
    place: _Place,
    connection: socket.socket,
    reader: protocol.LineReader,
    request: dict[str, Any],
    parked: Parked | None,
    begin: Callable[[], None] | None,
    monitor: Monitor | None,
) -> bool:
    try:
        client = Client(connection)
        client.reader = reader
        fds, reader.fds = reader.fds, []
        connection.setblocking(True)
        ended = (monitor or Monitor(place.run_dir, place.boot, place.layout)).run(client, request, fds, parked, begin)
        if ended and begin is not None:
            return True
        os._exit(0)
    except BaseException as error:
        _refuse(connection, f"{type(error).__name__}: {error}")
    os._exit(1)  # which `deaths` hears
