"""The engine's own launcher, behind what a monitor asks of whoever makes its container (`Launcher`)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Protocol

from engine.linux import freezer
from engine.linux.cgroup import Cgroup
from engine.runtime import launch
from engine.runtime.exec_sessions import Listener, Session, start_exec
from engine.runtime.launch import First, Started
from engine.runtime.netns import ContainerLink


class Launcher(Protocol):
    """Makes one container's processes. Each may raise OSError; `launch` also StartError, NetworkError and SetupError."""

    def launch(
        self,
        spec: dict[str, Any],
        cgroup: Cgroup,
        network: ContainerLink,
        fds: list[int],
        first: First | None,
        meanwhile: Callable[[], object],
    ) -> Started:
        """`fds` are a build step's streams, and are closed; `first` is a process that was made before (`launch.begin`); calls
        `meanwhile` when all is there but the last steps. The caller cleans up after an error."""

    def kill(self, started: Started, number: int) -> None:
        """A signal to the first process."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def update(self, resources: dict[str, Any]) -> None:
        """New limits: OCI's `linux.resources`; what is not in it stays."""

    def exec(
        self, spec: dict[str, Any], request: dict[str, Any], fds: list[int], started: Started, listeners: list[Listener]
    ) -> Session | None:
        """None: the listeners were told why not. Closes `fds`."""

    def delete(self) -> None:
        """The container has ended, or did not start: what was made for it goes. The monitor takes its group away."""


class Native:
    """Forks the first process from the monitor itself (`init`)."""

    def __init__(self, bundle: str) -> None:
        self._bundle = bundle
        self._cgroup: Cgroup | None = None
        self._froze = False

    def launch(
        self,
        spec: dict[str, Any],
        cgroup: Cgroup,
        network: ContainerLink,
        fds: list[int],
        first: First | None,
        meanwhile: Callable[[], object],
    ) -> Started:
        self._cgroup = cgroup
        return launch.launch(spec, self._bundle, cgroup, network, fds, first, meanwhile)

    def kill(self, started: Started, number: int) -> None:
        """Race free: while the monitor has not reaped it the pid is its own."""
        signal.pidfd_send_signal(started.pidfd, number)

    def pause(self) -> None:
        assert self._cgroup is not None
        self._froze = True
        freezer.freeze(self._cgroup, self._cgroup.path)

    def resume(self) -> None:
        assert self._cgroup is not None
        freezer.thaw(self._cgroup, self._cgroup.path)

    def update(self, resources: dict[str, Any]) -> None:
        assert self._cgroup is not None
        self._cgroup.update(resources)

    def exec(
        self, spec: dict[str, Any], request: dict[str, Any], fds: list[int], started: Started, listeners: list[Listener]
    ) -> Session | None:
        assert self._cgroup is not None
        return start_exec(spec, request, fds, (started.pid, started.pidfd, self._cgroup), listeners)

    def delete(self) -> None:
        if self._cgroup is not None and self._froze:
            freezer.remove(self._cgroup, self._cgroup.path)
