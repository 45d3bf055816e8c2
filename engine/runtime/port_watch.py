"""The sockets of a container's published ports: watched, until somebody comes by a way that the packet filter does not lead (localhost
by IPv6, hairpins); from then on a child serves them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from engine.runtime import outside, proxy
from engine.runtime.loop import READ, Loop
from engine.runtime.netconfig import Endpoint
from engine.runtime.ports import Held


class PortWatch:
    """`endpoint` is where the ports lead (None: nowhere now), `enter` is called in the child, `again` when that has ended by
    itself."""

    def __init__(
        self,
        loop: Loop,
        endpoint: Callable[[], Endpoint | None],
        enter: Callable[[], object],
        again: Callable[[], object],
    ) -> None:
        self._loop, self._endpoint, self._enter, self._again = loop, endpoint, enter, again
        self._held: list[Held] = []  # watched
        self._proxy = (-1, -1)  # pid, pidfd

    def listen(self, held: Sequence[Held]) -> None:
        """Fine when it listens already."""
        if not self._held:
            self._held = list(held)
            for each in self._held:
                self._loop.watch(each.sock.fileno(), READ, self._on_port)

    def stop(self) -> None:
        """Watches no more; a child goes on."""
        for each in self._held:
            self._loop.forget(each.sock.fileno())
        self._held = []

    def let_go(self) -> None:
        """A child takes no new connection; those that are there stay."""
        self.stop()
        if self._proxy[0] >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._proxy[1], signal.SIGUSR1)

    def end(self) -> None:
        """Of a child, with all its connections."""
        pid, pidfd = self._proxy
        if pid < 0:
            return
        self._loop.forget(pidfd)
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(pidfd)
        self._proxy = (-1, -1)

    def _on_port(self, _fd: int, _events: int) -> None:
        endpoint = self._endpoint()
        if not self._held or endpoint is None:
            return
        served, targets = self._held, []
        for each in served:
            text = endpoint.address4 or endpoint.address6
            if ":" in each.port.host_ip and endpoint.address6:
                text = endpoint.address6
            targets.append((text.partition("/")[0], each.port.container_port))
        self.stop()
        pid = outside.fork()
        if pid == 0:
            self._enter()
            proxy.run(served, targets, ())
        pidfd = os.pidfd_open(pid)
        self._proxy = (pid, pidfd)
        self._loop.watch(pidfd, READ, self._on_exit)

    def _on_exit(self, _fd: int, _events: int) -> None:
        if self._proxy[0] >= 0:
            self.end()
            self._again()
