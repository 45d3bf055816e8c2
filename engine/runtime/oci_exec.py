"""A further process in a container that an OCI runtime made: `exec --detach`, whose process becomes the monitor's child.

Nothing waits here: the runtime's command is watched in the monitor's loop, then the process that it leaves.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from engine.linux import capability, libc, pty
from engine.runtime import init, oci_command, oci_config, oci_stage
from engine.runtime.exec_sessions import Listener
from engine.runtime.loop import READ, Loop, Timer
from engine.runtime.oci_command import Log
from engine.runtime.oci_console import Console, read_pid
from engine.runtime.users import identify

if TYPE_CHECKING:
    from engine.runtime.oci_runtime import OciRuntime


class OciExec:
    """As `exec_sessions.ExecSession`; `pid` is 0 until the runtime has started it."""

    def __init__(self, identity: str, runtime: OciRuntime, command: int, log: Log, console: Console) -> None:
        self.id = identity
        self.pid = 0
        self.exit_code: int | None = None
        self.listeners: list[Listener] = []
        self.size = (0, 0)
        self._runtime, self._command, self._log, self._console = runtime, command, log, console
        self._pidfd = os.pidfd_open(command)
        self._killed = self._told = False
        self._loop: Loop | None = None
        self._limit: Timer | None = None

    def files(self) -> tuple[str, str]:
        """Its `--process` and its `--pid-file`."""
        return _files(self._runtime, self.id)

    def register(self, loop: Loop) -> None:
        self._loop = loop
        if self._console.listener is not None:
            loop.watch(self._console.listener.fileno(), READ, self._on_console)
        loop.watch(self._pidfd, READ, self._on_command)
        self._limit = loop.later(oci_command.CREATE_SECONDS, self._late)

    def kill(self) -> None:
        self._killed = True
        if self.exit_code is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _late(self) -> None:
        if not self.pid:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_console(self, fd: int, _events: int) -> None:
        assert self._loop is not None
        try:
            if not self._console.take():
                return
        except OSError:
            return
        self._loop.forget(fd)
        if any(self.size):
            pty.resize(self._console.master, *self.size)
        for listener in self.listeners:
            listener.terminal([self._console.master])
        os.close(self._console.master)
        self._told = True

    def _on_command(self, pidfd: int, _events: int) -> None:
        """The runtime has ended: its process is ours, or it says why there is none."""
        assert self._loop is not None
        if self._console.listener is not None:
            if not self._told:
                self._on_console(self._console.listener.fileno(), READ)
            self._loop.forget(self._console.listener.fileno())
        self._console.close()
        self._loop.forget(pidfd)
        os.close(pidfd)
        if self._limit is not None:
            self._limit.cancel()
        _pid, status = os.waitpid(self._command, 0)
        try:
            if status:
                raise self._runtime.command.failure("exec", self._log, status)
            self.pid = read_pid(self.files()[1])
            self._runtime.waited.add(self.pid)
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            code = getattr(error, "code", 125)
            self.exit_code = code
            for listener in self.listeners:
                listener.failed(str(error), code, error.errno or 0)
            return
        finally:
            self._runtime.pending -= 1
            self._runtime.reap_strays()
            self._log.__exit__()
            _forget(self._runtime, self.id)
        for listener in self.listeners:
            listener.started(self.pid)
        self._loop.watch(self._pidfd, READ, self._on_exit)
        if self._killed:
            self.kill()

    def _on_exit(self, fd: int, _events: int) -> None:
        assert self._loop is not None
        self._loop.forget(fd)
        os.close(fd)
        result = os.waitid(os.P_PID, self.pid, os.WEXITED)
        assert result is not None
        self._runtime.waited.discard(self.pid)
        self.exit_code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        for listener in self.listeners:
            listener.ended(self.exit_code)


def start(
    runtime: OciRuntime,
    spec: dict[str, Any],
    request: dict[str, Any],
    fds: list[int],
    pid: int,
    listeners: list[Listener],
) -> OciExec | None:
    """Begins an exec in the container whose first process is `pid`. None: the listeners were told why not. Closes `fds`."""
    tty, identity = bool(request.get("tty")), str(request["id"])
    log = Log()
    try:
        if not request.get("args") or (not tty and len(fds) != 3):
            raise ValueError("an exec needs a command, and 3 descriptors or a terminal")
        console = Console(runtime.folder, tty, f"tty-{identity[:16]}")
        process, pid_file = _files(runtime, identity)
        words = ["exec", "--detach", "--process", process, "--pid-file", pid_file, *console.option, runtime.id]
        argv = runtime.command.argv(log.fd, *words)
        child = os.fork()
        if child == 0:
            _become(runtime, spec, request, pid, argv, log, None if tty else (fds[0], fds[1], fds[2]))
        session = OciExec(identity, runtime, child, log, console)
        runtime.pending += 1
        session.listeners = listeners
        rows, columns = request.get("tty_size") or (0, 0)
        session.size = (rows, columns)
        return session
    except (OSError, ValueError) as error:
        log.__exit__()
        for listener in listeners:
            listener.failed(str(error), 125, getattr(error, "errno", None) or 0)
        return None
    finally:
        for fd in fds:
            os.close(fd)


def _files(runtime: OciRuntime, identity: str) -> tuple[str, str]:
    base = os.path.join(runtime.folder, f"exec-{identity[:32]}")
    return f"{base}.json", f"{base}.pid"


def _forget(runtime: OciRuntime, identity: str) -> None:
    for path in _files(runtime, identity):
        try:
            os.unlink(path)
        except OSError:
            pass


def _become(
    runtime: OciRuntime,
    spec: dict[str, Any],
    request: dict[str, Any],
    pid: int,
    argv: list[str],
    log: Log,
    stdio: tuple[int, int, int] | None,
) -> NoReturn:
    """In the child: who the process is, from the files of the container; then the runtime."""
    stage = "user"
    try:
        init.default_signals()
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.umask(0o077)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        user = request.get("user")
        name = spec["workbench"]["user"] if user is None else str(user)
        identity = identify(root, name, spec["workbench"].get("group_add", ()))
        os.close(root)
        oci_stage.write(
            _files(runtime, str(request["id"]))[0],
            oci_config.process_document(spec, request, identity, capability.permitted()),
        )
        stage = f"starting {runtime.command.name} ({runtime.command.path})"
        oci_command.leave_hybrid(runtime.command.layout)
        oci_stage.show_root(runtime.folder)
        if stdio is None:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            stdio = (null, null, null)
        oci_command.execute(argv, log, stdio)
    except BaseException as error:
        log.report(stage, error)
    finally:
        os._exit(127)
