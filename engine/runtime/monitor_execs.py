"""The processes of a container beside its first: a monitor's `exec` and its health checks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from engine.runtime.clients import Client
from engine.runtime.exec_sessions import ClientListener, DetachedListener, Listener, Session
from engine.runtime.health import Healthcheck
from engine.runtime.probes import Prober

if TYPE_CHECKING:
    from engine.runtime.monitor import Monitor

_KEPT = 32  # ended ones, for who asks after their exit code


class Execs:
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._all: list[Session] = []

    def ask(self, request: dict[str, Any], fds: list[int], client: Client) -> None:
        """A client's request, with the streams in `fds`, which are closed."""
        refusal = self._monitor.refuses("exec")
        if refusal is not None:
            for fd in fds:
                os.close(fd)
            client.send_line(refusal)
            client.finish()
            return
        self.start(
            request,
            fds,
            DetachedListener(client, self._monitor.loop) if request.get("detach") else ClientListener(client),
        )

    def start(self, request: dict[str, Any], fds: list[int], listener: Listener) -> Session | None:
        """None: the listener was told why not. Closes `fds`."""
        assert self._monitor.started is not None
        identity = str(request.get("id") or os.urandom(32).hex())
        program, *arguments = map(str, request.get("args") or ("",))
        command = f"{program} {' '.join(arguments)}"  # with Docker's space behind a word that is alone
        self._monitor.note(f"exec_create: {command}", execID=identity)
        self._monitor.note(f"exec_start: {command}", execID=identity)
        told = [_Notes(self._monitor, identity), listener]
        session = self._monitor.launcher.exec(
            self._monitor.spec, {**request, "id": identity}, fds, self._monitor.started, told
        )
        if session is not None:
            ended = [one for one in self._all if one.exit_code is not None]
            self._all = [one for one in self._all if one.exit_code is None] + ended[-_KEPT:] + [session]
            session.register(self._monitor.loop)
        return session

    def documents(self) -> list[dict[str, Any]]:
        """Those that run, and those that ended lately."""
        return [{"id": one.id, "pid": one.pid, "exit_code": one.exit_code} for one in self._all]


class HealthChecks:
    """What is done about a container's health while it runs."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._prober: Prober | None = None

    def begin(self, wanted: dict[str, Any] | None) -> None:
        """With each start."""
        check = Healthcheck.from_spec(wanted)
        if check is not None:
            self._prober = Prober(self._monitor.loop, check, self._start, self._probed)
            self._prober.begin()
            self._monitor.state.health = self._prober.health.document()

    def stop(self) -> None:
        if self._prober is not None:
            self._prober.stop()
            self._monitor.state.health = self._prober.health.document()

    def go_on(self) -> None:
        """After a pause."""
        if self._prober is not None:
            self._prober.begin()

    def _start(self, args: tuple[str, ...], fds: list[int], listener: Listener) -> Session | None:
        return self._monitor.execs.start({"args": list(args)}, fds, listener)

    def _probed(self, changed: bool) -> None:
        assert self._prober is not None
        self._monitor.state.health = self._prober.health.document()
        if changed:
            self._monitor.note(f"health_status: {self._prober.health.status}")
        self._monitor.save()


class _Notes:
    """The journal's line on an exec's end."""

    def __init__(self, monitor: Monitor, identity: str) -> None:
        self._monitor, self._identity = monitor, identity

    def terminal(self, fds: list[int]) -> None: ...

    def started(self, pid: int) -> None: ...

    def failed(self, message: str, code: int, number: int) -> None:
        """One that never was does not die."""

    def ended(self, code: int) -> None:
        self._monitor.note("exec_die", execID=self._identity, exitCode=str(code))
