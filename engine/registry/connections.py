"""Connections to registries that are kept open for the next transfer.

A pull of what is here is one question; a new connection, and the TLS on it, would cost more than the question. An engine keeps
its connections for all its transfers that trust alike, and closes what a minute has not used.
"""

from __future__ import annotations

import threading
import time

from engine.registry.wire import Connection, Route

IDLE_SECONDS = 60.0
IDLE_EACH = 8  # open connections kept for one host


class Connections:
    """Open connections that nobody uses just now, and which scheme a host answered to that may be asked over two."""

    def __init__(self) -> None:
        self._idle: dict[Route, list[tuple[float, Connection]]] = {}
        self._schemes: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def scheme(self, host: str) -> str | None:
        at, scheme = self._schemes.get(host, (0.0, ""))
        return scheme if scheme and time.monotonic() - at < IDLE_SECONDS else None

    def answered(self, host: str, scheme: str | None) -> None:
        """None: what was known of it does not hold any more."""
        if scheme is None:
            self._schemes.pop(host, None)
        else:
            self._schemes[host] = (time.monotonic(), scheme)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, {}
        for one in (connection for kept in idle.values() for _, connection in kept):
            one.close()

    def take(self, route: Route) -> Connection | None:
        while True:
            with self._lock:
                old = self._expired()
                found = self._idle.get(route, [])
                connection = found.pop()[1] if found else None
            for one in old:
                one.close()
            if connection is None or not connection.stale:
                return connection
            connection.close()

    def give(self, route: Route, connection: Connection) -> None:
        with self._lock:
            old = self._expired()
            kept = self._idle.setdefault(route, [])
            if len(kept) < IDLE_EACH:
                kept.append((time.monotonic(), connection))
            else:
                old.append(connection)
        for one in old:
            one.close()

    def _expired(self) -> list[Connection]:
        """Taken out of the list; the caller closes them."""
        before = time.monotonic() - IDLE_SECONDS
        old = [one for kept in self._idle.values() for at, one in kept if at < before]
        if old:
            kept = {route: [pair for pair in pairs if pair[0] >= before] for route, pairs in self._idle.items()}
            self._idle = {route: pairs for route, pairs in kept.items() if pairs}
        return old
