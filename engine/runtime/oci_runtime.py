"""A container that an OCI runtime makes and the monitor keeps: `--runtime runc`, `crun` or a path.

The monitor is a subreaper, so the container's first process and every exec become its children when the runtime's command
has ended: it waits for them, has their streams and knows their codes, as with the native launcher. The runtime's state is
in the run directory's own `oci` folder. A runtime's operation is waited for, with a limit, and so holds the monitor's loop
for some milliseconds; what the container writes meanwhile waits in its pipes.

The native launcher's processes die with their monitor by PR_SET_PDEATHSIG. Here a guard does it: a child that wakes when
the monitor is gone, and becomes the runtime's `delete --force`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from engine.linux import libc, pty
from engine.linux.cgroup import Cgroup, Layout
from engine.runtime import init, oci_command, oci_exec, oci_stage, oci_strays, protocol
from engine.runtime.exec_sessions import Listener, Session
from engine.runtime.launch import First, Started, StartError, stdio_of
from engine.runtime.netns import ContainerLink
from engine.runtime.oci_command import Command, Log, RuntimeFailed
from engine.runtime.oci_console import Console, read_pid


class OciRuntime:
    """One container's runtime. Raises StartError (launch), ProcessLookupError (kill), RuntimeFailed."""

    def __init__(self, run_dir: str, bundle: str, identity: str, spec: dict[str, Any], layout: Layout) -> None:
        self.id, self.bundle = identity, bundle
        self.folder = os.path.join(bundle, "oci")
        self.command = Command(spec["workbench"]["runtime"], os.path.join(run_dir, oci_command.STATE), layout)
        self.pending = 0  # execs that the runtime is at: whose process has no known number yet
        self.waited: set[int] = set()  # processes that somebody waits for
        self._guard = 0
        self._made = False

    # --- start ---------------------------------------------------------------------------------------

    def launch(
        self,
        spec: dict[str, Any],
        cgroup: Cgroup,
        network: ContainerLink,
        fds: list[int],
        first: First | None,
        meanwhile: Callable[[], object],
    ) -> Started:
        """`create` and `start`; the group is the runtime's to make. The caller cleans up after an error (`delete`)."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.makedirs(self.command.root, mode=0o700, exist_ok=True)
        self.delete()  # what a start that was killed has left
        network.prepare()
        stdio, ours = stdio_of(spec, fds)
        started = Started(0, -1)
        try:
            self._watch_over()
            self._create(spec, network, stdio, started, ours[2])
            self.waited = {started.pid}
            network.moved(started.pid)
            started.stdin, started.stdout, started.stderr = ours
            if started.master >= 0:
                started.stdin = started.stdout = started.master
            meanwhile()
            self.command.call("start", self.id)
        except BaseException as error:
            self._abandon(started)
            for fd in {*ours, started.master, started.pidfd} - {-1}:
                os.close(fd)
            if isinstance(error, RuntimeFailed):
                raise StartError(str(error), error.code, error.errno or 0) from error
            raise
        finally:
            for fd in {*stdio}:
                os.close(fd)
        return started

    def _abandon(self, started: Started) -> None:
        """A container that was created and will not be started."""
        if started.pid:
            with contextlib.suppress(RuntimeFailed):
                self.command.call("delete", "--force", self.id)
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(started.pidfd, signal.SIGKILL)
            os.waitpid(started.pid, 0)

    def _create(
        self,
        spec: dict[str, Any],
        network: ContainerLink,
        stdio: tuple[int, int, int],
        started: Started,
        printed: int,
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid_file = os.path.join(self.folder, "pid")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pid_file)
        with Log() as log, Console(self.folder, spec["process"]["terminal"]) as console:
            words = self.command.argv(
                log.fd, "create", "--bundle", self.folder, "--pid-file", pid_file, *console.option, self.id
            )
            pid = os.fork()
            if pid == 0:
                ours.close()
                oci_stage.run(spec, self.bundle, self.command, words, log, theirs, stdio)
            theirs.close()
            spaces: list[int] = []
            try:
                try:
                    with ours:
                        _converse(ours, network, pid, spaces)
                except BaseException as error:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    if log.own is not None:  # its namespace went with it: then what it says is the reason
                        raise self.command.failure("create", log, 0) from error
                    raise
                self._made = True
                self.command.wait(
                    pid,
                    "create",
                    log,
                    oci_command.CREATE_SECONDS,
                    ready=console.take if console.option else None,
                    printed=printed,
                )
            finally:
                for fd in spaces:
                    os.close(fd)
            started.master = console.master
        started.pid = read_pid(pid_file)
        started.pidfd = os.pidfd_open(started.pid)
        if started.master >= 0:
            rows, columns = spec["workbench"]["tty_size"]
            if rows and columns:
                pty.resize(started.master, rows, columns)

    # --- while it runs -------------------------------------------------------------------------------

    def kill(self, started: Started, number: int) -> None:
        """A signal to the first process. A runtime that fails keeps nobody alive. Raises ProcessLookupError, RuntimeFailed."""
        try:
            self.command.call("kill", self.id, str(number))
        except RuntimeFailed as error:
            if oci_command.is_gone(error):
                raise ProcessLookupError(errno.ESRCH, "the container is not running") from error
            if number != signal.SIGKILL:
                raise
            signal.pidfd_send_signal(started.pidfd, number)

    def pause(self) -> None:
        self.command.call("pause", self.id)

    def resume(self) -> None:
        """Fine when it is not paused: a runtime may have let it go on with a kill."""
        try:
            self.command.call("resume", self.id)
        except RuntimeFailed as error:
            if "not paused" not in str(error):
                raise

    def update(self, resources: dict[str, Any]) -> None:
        """New limits: OCI's `linux.resources`, what is not in it stays."""
        path = os.path.join(self.folder, "resources.json")
        oci_stage.write(path, resources)
        try:
            self.command.call("update", "--resources", path, self.id)
        finally:
            os.unlink(path)

    def exec(
        self, spec: dict[str, Any], request: dict[str, Any], fds: list[int], started: Started, listeners: list[Listener]
    ) -> Session | None:
        return oci_exec.start(self, spec, request, fds, started.pid, listeners)

    def reap_strays(self) -> None:
        """After an exec. While the runtime is at another one, a process that is not known may be that one's."""
        if not self.pending:
            oci_strays.reap(self.waited)

    # --- the end -------------------------------------------------------------------------------------

    def delete(self) -> None:
        """The runtime forgets it, and its groups go. Fine when it knows nothing of it. Raises RuntimeFailed."""
        try:
            if self._made or os.path.exists(os.path.join(self.command.root, self.id)):
                self.command.call("delete", "--force", self.id)
        except RuntimeFailed as error:
            if not oci_command.is_gone(error):
                raise
        finally:
            self._made = False
            self._dismiss()

    def _watch_over(self) -> None:
        monitor = os.getpid()
        pid = os.fork()
        if pid:
            self._guard = pid
            return
        try:
            libc.close_from(0)
            libc.set_name(f"wb-guard-{self.id[:6]}")
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == monitor:
                while os.getppid() == monitor:  # somebody else's SIGTERM is none
                    signal.sigwait({signal.SIGTERM})
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
                os.open("/dev/null", flags)
            libc.prctl(libc.PR_SET_PDEATHSIG, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            init.default_signals()
            oci_command.leave_hybrid(self.command.layout)
            words = self.command.argv(None, "delete", "--force", self.id)
            os.execve(words[0], words, oci_command.ENVIRONMENT)
        finally:
            os._exit(127)

    def _dismiss(self) -> None:
        if self._guard:
            os.kill(self._guard, signal.SIGKILL)  # ours, and not reaped: the number is its own
            os.waitpid(self._guard, 0)
            self._guard = 0


def _converse(channel: socket.socket, network: ContainerLink, pid: int, spaces: list[int]) -> None:
    """With the child that prepares: the network is set up in the namespace that it made; it is told what the namespaces are
    called; it says that it is about to become the runtime. Raises RuntimeFailed with what it could not do."""
    error = network.receive(channel, pid)
    while error is None:
        raw, fds, _flags, _address = socket.recv_fds(channel, 1 << 16, 8, socket.MSG_CMSG_CLOEXEC)
        spaces += fds
        if not raw:
            raise RuntimeFailed("the process that prepares the container went away")
        message = json.loads(raw)
        if "ready" in message:
            return
        if "spaces" in message:
            paths = {kind: f"/proc/{os.getpid()}/fd/{fd}" for kind, fd in zip(message["spaces"], fds, strict=True)}
            channel.send(protocol.line({"paths": paths}))
        error = message.get("error")
    raise RuntimeFailed(str(error["message"]), int(error["code"]), int(error["errno"]))
