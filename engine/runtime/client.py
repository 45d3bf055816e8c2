"""The engine's side of the runtime: starts containers through the supervisor and talks to their monitors.

Synchronous and safe to use from several threads; every call has its own connection. The process that calls never forks
itself (`subprocess` does, in C, once per supervisor).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.cancel import CancelToken
from engine.errors import Conflict, EngineError, StartFailed, Unavailable, Unsupported
from engine.runtime import protocol
from engine.runtime import state as states
from engine.runtime.answers import raise_error
from engine.runtime.bootstrap import SOCKET
from engine.runtime.state import State

if TYPE_CHECKING:
    from engine.runtime.connections import AttachConnection, ExecConnection
    from engine.runtime.exec_client import ExecParams

_ABSENT = (FileNotFoundError, ConnectionRefusedError)
_ENDED = (*_ABSENT, ConnectionResetError, BrokenPipeError)  # or is just ending


@dataclass(frozen=True, slots=True)
class Started:
    """`attach` is there when it was asked for; it misses no byte."""

    pid: int
    started_ns: int
    attach: AttachConnection | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Runtime:
    """Containers of one run directory."""

    run_dir: Path
    caretaker: Sequence[str] = ()  # the command that sees to containers whose monitor was killed
    _tethers: dict[str, protocol.LineReader] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- supervisor ----------------------------------------------------------------------------------

    def _supervisor(self) -> socket.socket:
        folder = str(self.run_dir)
        try:
            return protocol.connect(folder, SOCKET)
        except _ABSENT:
            pass
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
        (self.run_dir / "c").mkdir(exist_ok=True, mode=0o700)
        # Others may pass through to the API's socket, whose group says who they are; all else in it is for us alone.
        os.chmod(self.run_dir, 0o711)
        # One starter at a time, over all processes: the second finds the first's supervisor.
        fd = os.open(self.run_dir / "supervisor.starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                return protocol.connect(folder, SOCKET)
            except _ABSENT:
                pass
            import json

            from engine.base.atomic import write_atomic
            from engine.runtime import deaths, launching

            write_atomic(self.run_dir / deaths.COMMAND, json.dumps(self.caretaker).encode(), durable=False)
            launching.launch(self.run_dir)
            return protocol.connect(folder, SOCKET)
        except OSError as error:
            raise Unavailable(f"the supervisor in {self.run_dir} cannot be reached: {error.strerror}") from error
        finally:
            os.close(fd)

    # --- start ---------------------------------------------------------------------------------------

    def start(
        self,
        container_id: str,
        bundle: Path,
        *,
        stdio: tuple[int, int, int] | None = None,
        attach: bool = False,
        removes: bool = False,
    ) -> Started:
        """Starts what `bundle/config.json` says; `removes`: whoever calls removes it after its end (auto-remove). With `stdio` (a build step) the container gets these descriptors and
        is killed when this process goes away, or on `release`. Raises StartFailed (125, 126, 127) or Conflict."""
        from engine.runtime import launching
        from engine.runtime.connections import AttachConnection

        request = {
            "op": "start",
            "id": container_id,
            "bundle": str(bundle),
            "tether": stdio is not None,
            "attach": attach,
            "removes": removes,
            "program": launching.program(),
        }
        try:
            reader, answer = self._request_start(request, stdio or ())
        except OSError as error:
            raise StartFailed(f"starting {container_id[:12]}: {error.strerror or error}") from error
        keep = False
        try:
            if "error" in answer:
                message, code = str(answer["error"]), int(answer.get("code", 125))
                if "is running already" in message:
                    raise Conflict(message)
                raise StartFailed(message, exit_code=code)
            connection = None
            if attach:
                connection = AttachConnection(reader.sock, tty=bool(answer["tty"]), buffered=bytes(reader.buffer))
                keep = True
            elif stdio is not None:
                with self._lock:
                    self._tethers[container_id] = reader
                keep = True
            return Started(int(answer["pid"]), int(answer["started"]), connection, tuple(answer["notes"]))
        finally:
            if not keep:
                reader.sock.close()

    def _request_start(self, request: dict[str, Any], fds: Sequence[int]) -> tuple[protocol.LineReader, dict[str, Any]]:
        """The monitor's answer. A supervisor of another version of the program is replaced first, and so is one that was
        killed before it forked: the end of the stream without an answer says that no monitor holds the other end."""
        for _attempt in range(5):
            reader = protocol.LineReader(self._supervisor())
            answer = None
            try:
                protocol.send_line(reader.sock, request, fds)
                answer = reader.read()
            except (BrokenPipeError, ConnectionResetError):
                pass
            except BaseException:
                reader.sock.close()
                raise
            if answer is not None and "stale" not in answer:
                return reader, answer
            reader.sock.close()
            if answer is not None:
                _await_end(int(answer["stale"]))
        raise StartFailed("the supervisor closed the connection without an answer")

    def view(self, request: dict[str, Any]) -> list[int] | None:
        """Descriptors of a container's root (see `viewer.make_view`), or None when its state is just changing."""
        try:
            from engine.runtime import launching

            reader, answer = self._request_start({"op": "view", "program": launching.program(), **request}, ())
        except OSError as error:
            raise Unavailable(f"the supervisor does not answer: {error.strerror or error}") from error
        try:
            if "error" in answer:
                raise EngineError(f"the container's files cannot be mounted: {answer['error']}")
            fds, reader.fds = reader.fds, []
            return None if "busy" in answer else fds
        finally:
            reader.sock.close()

    def release(self, container_id: str) -> None:
        """Lets go of a build step's container: it is killed if it still runs."""
        with self._lock:
            reader = self._tethers.pop(container_id, None)
        if reader is not None:
            with contextlib.suppress(OSError):
                reader.sock.shutdown(socket.SHUT_RDWR)
            reader.sock.close()

    # --- a monitor -----------------------------------------------------------------------------------

    def _monitor(self, container_id: str) -> socket.socket:
        return protocol.connect(str(self.run_dir / "c"), f"{container_id[:12]}.sock")

    def _ask(self, container_id: str, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        try:
            with self._monitor(container_id) as sock:
                sock.settimeout(30)
                protocol.send_line(sock, request, fds)
                answer = protocol.LineReader(sock).read()
        except _ENDED:
            answer = None
        except OSError as error:
            raise Unavailable(f"the monitor of {container_id[:12]} does not answer: {error}") from error
        if answer is None:
            raise Conflict(f"container {container_id[:12]} is not running")
        raise_error(container_id, answer)
        return answer

    def signal(self, container_id: str, signum: int) -> None:
        """Raises Conflict when it does not run."""
        self._ask(container_id, {"op": "signal", "signum": int(signum)})

    def end(self, container_id: str, bundle: Path) -> None:
        """SIGKILL, and its end awaited, by one who removes it then. Raises Conflict when it does not run."""
        try:
            with self._monitor(container_id) as sock:
                reader = protocol.LineReader(sock)
                protocol.send_line(sock, {"op": "signal", "signum": int(signal.SIGKILL)})
                answer = reader.read()
                if answer is not None:
                    raise_error(container_id, answer)
                    protocol.send_line(sock, {"op": "wait", "removes": True})
                    reader.read()
        except _ENDED:
            pass
        self._gone(container_id, bundle)

    def _gone(self, container_id: str, bundle: Path) -> State:
        """Its state, which must be that of an ended one."""
        state = self.state(bundle)
        if state.active:
            raise Unavailable(
                f"the monitor of {container_id[:12]} (process {state.monitor_pid}) cannot be reached",
                hint="if it stays so, kill that process: its container ends with it",
            )
        return state

    def stop(
        self,
        container_id: str,
        bundle: Path,
        signum: int,
        grace: float | None,
        *,
        removes: bool = False,
        keep: bool = False,
    ) -> int | None:
        """Signal, `grace` seconds (None: for ever), SIGKILL; returns the exit code (None: unknown) when it has ended. The
        monitor goes on with it when this process goes away. `removes` as in `start`; `keep`: auto-remove does not apply to
        this end. Raises Conflict when it does not run."""
        request = {"op": "stop", "signum": int(signum), "timeout": grace, "removes": removes, "keep": keep}
        try:
            with self._monitor(container_id) as sock:
                protocol.send_line(sock, request)
                reader = protocol.LineReader(sock)
                answer = reader.read()
                if answer is not None and str(answer.get("error", "")).startswith("no operation"):
                    return self._stop_by_hand(container_id, bundle, signum, grace)
                if answer is not None:
                    raise_error(container_id, answer)
                    reader.read()
        except _ENDED:
            pass
        return self._gone(container_id, bundle).exit_code

    def _stop_by_hand(self, container_id: str, bundle: Path, signum: int, grace: float | None) -> int:
        """With a monitor of protocol version 1."""
        self.signal(container_id, signum)
        try:
            return self.wait(container_id, bundle, grace)
        except TimeoutError:
            self.signal(container_id, signal.SIGKILL)
            return self.wait(container_id, bundle)

    def pause(self, container_id: str) -> None:
        """Raises Conflict when it does not run or is paused already, Unsupported where nothing can freeze it."""
        self._newer(container_id, "pause")

    def unpause(self, container_id: str) -> None:
        self._newer(container_id, "unpause")

    def change_policy(self, container_id: str, name: str, maximum: int) -> None:
        """Another restart policy of a running container. Raises Conflict when it does not run."""
        policy = {"name": name, "maximum_retry_count": maximum}
        self._newer(container_id, "policy", "change its restart policy", restart_policy=policy)

    def _newer(self, container_id: str, op: str, verb: str = "", **more: Any) -> None:
        try:
            self._ask(container_id, {"op": op, **more})
        except EngineError as error:
            if "no operation" in error.message:
                raise Unsupported(
                    f"container {container_id[:12]} was started by an older version, whose monitor cannot {verb or f'{op} it'}",
                    hint="restart the container",
                ) from error
            raise

    def execs(self, container_id: str) -> list[dict[str, Any]]:
        """`{"id", "pid", "exit_code"}` of what was executed in it, running (exit_code None) or lately ended."""
        try:
            return list(self._ask(container_id, {"op": "execs"})["execs"])
        except EngineError:
            return []

    def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """New limits for a running container that an OCI runtime made, by that runtime. Raises Conflict, EngineError."""
        self._ask(container_id, {"op": "update", "resources": resources})

    def resize(self, container_id: str, rows: int, columns: int) -> None:
        self._ask(container_id, {"op": "resize", "rows": rows, "columns": columns})

    def state(self, bundle: Path) -> State:
        """What is so now. A container whose monitor is gone is ended, and recorded as "exited" with code None."""
        state = states.sound(str(bundle))
        if not state.active:
            return state
        if state.boot_id == states.boot_id() and states.is_alive(state.monitor_pid, state.monitor_start):
            return state
        state = states.sound(str(bundle))  # it may have recorded the end between the two looks
        if not state.active:
            return state
        from engine.runtime import burial

        return burial.bury(self.run_dir, bundle)

    def change_network(self, container_id: str, request: dict[str, Any]) -> None:
        """Connects, disconnects or renames a running container on a network. Raises Conflict, EngineError."""
        self._ask(container_id, request)

    def hand_over(self, old_id: str, new_id: str, names: dict[str, list[str]]) -> None:
        """The published ports and names of a running container go to another, which is on standby; `names` by network id.
        Raises Conflict, EngineError; nothing has changed then."""
        with self._lent(old_id) as (fds, lent):
            self._ask(new_id, {"op": "take_ports", "lent": lent, "names": names}, fds)
        with contextlib.suppress(Conflict):  # it has just ended, and with that let go of everything
            self._ask(old_id, {"op": "let_go"})

    @contextlib.contextmanager
    def _lent(self, container_id: str) -> Iterator[tuple[list[int], dict[str, Any]]]:
        nothing: dict[str, Any] = {"ports": [], "endpoint": None}
        try:
            sock = self._monitor(container_id)
        except _ABSENT:  # it has ended: its ports are free
            yield [], nothing
            return
        with sock:
            reader = protocol.LineReader(sock)
            try:
                protocol.send_line(sock, {"op": "lend_ports"})
                answer = reader.read()
                if answer is not None:
                    raise_error(container_id, answer)
                yield reader.fds, answer or nothing
            finally:
                reader.close_fds()

    def wait(
        self,
        container_id: str,
        bundle: Path,
        timeout: float | None = None,
        *,
        removes: bool = False,
        cancel: CancelToken | None = None,
    ) -> int:
        """The exit code, when it has ended (also when its restart policy will start it again). Raises TimeoutError,
        Cancelled; EngineError when nobody knows the code. `removes` as in `start`."""
        with self._lock:
            reader = self._tethers.get(container_id)
        try:
            if reader is not None:
                answer = self._wait_line(reader, timeout)
                self.release(container_id)
            else:
                with self._monitor(container_id) as sock:
                    protocol.send_line(sock, {"op": "wait", "removes": removes})
                    if cancel is not None:
                        cancel.on_cancel(lambda: _shut(sock))
                    answer = self._wait_line(protocol.LineReader(sock), timeout)
            if answer is not None and answer.get("exit_code") is not None:
                return int(answer["exit_code"])
        except _ENDED:
            pass
        if cancel is not None:
            cancel.check()
        state = self.state(bundle)
        if state.exit_code is None:
            raise EngineError(f"container {container_id[:12]}: {state.error or 'it is not running'}")
        return state.exit_code

    def _wait_line(self, reader: protocol.LineReader, timeout: float | None) -> dict[str, Any] | None:
        # Zero would mean "do not block", and raise something else.
        reader.sock.settimeout(None if timeout is None else max(timeout, 0.001))
        return reader.read()

    # --- streams -------------------------------------------------------------------------------------

    def attach(
        self, container_id: str, *, stdin: bool = True, stdout: bool = True, stderr: bool = True
    ) -> AttachConnection:
        """Output from now on. `start(attach=True)` is the way to miss nothing."""
        try:
            sock = self._monitor(container_id)
        except _ABSENT:
            raise Conflict(f"container {container_id[:12]} is not running") from None
        reader = protocol.LineReader(sock)
        try:
            protocol.send_line(sock, {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr})
            answer = reader.read()
            if answer is None:
                raise Conflict(f"container {container_id[:12]} is not running")
            raise_error(container_id, answer)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise Conflict(f"container {container_id[:12]} is not running") from None
            raise
        from engine.runtime.connections import AttachConnection

        return AttachConnection(sock, tty=bool(answer["tty"]), buffered=bytes(reader.buffer))

    def exec(self, container_id: str, params: ExecParams) -> ExecConnection:
        """Runs a further process. Raises StartFailed (126, 127 as Docker) or Conflict."""
        try:
            sock = self._monitor(container_id)
        except _ABSENT:
            raise Conflict(f"container {container_id[:12]} is not running") from None
        from engine.runtime import exec_client

        return exec_client.execute(sock, container_id, params)


def _await_end(pid: int) -> None:
    """Of a supervisor that was told to go, at most 10 s."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    select.select([pidfd], [], [], 10)
    os.close(pidfd)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
