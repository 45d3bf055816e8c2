"""Connections to registries that are kept open for the next transfer, and what an engine knows of registries for a while.

A pull of what is here is one question; a new connection, and the TLS on it, would cost more than the question. An engine keeps
its connections for all its transfers that trust alike, and closes what a minute has not used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from engine.oci.digest import Digest
from engine.registry.wire import Connection, Route

IDLE_SECONDS = 60.0
IDLE_EACH = 8  # open connections kept for one host
HELD_SECONDS = 300.0
_MOST_HELD = 20_000  # blobs


class Connections:
    """Open connections that nobody uses just now; which scheme a host answered to that may be asked over two; and which blobs a
    repository had a moment ago."""

    def __init__(self) -> None:
        self._idle: dict[Route, list[tuple[float, Connection]]] = {}
        self._schemes: dict[str, tuple[float, str]] = {}
        self._held: dict[tuple[str, str], dict[Digest, float]] = {}  # by host and repository
        self._lock = threading.Lock()

    def holds(self, host: str, repository: str) -> set[Digest]:
        """Blobs that were seen or put there in the last minutes. A registry that lost one refuses the manifest that names it."""
        before = time.monotonic() - HELD_SECONDS
        with self._lock:
            return {digest for digest, at in self._held.get((host, repository), {}).items() if at > before}

    def held(self, host: str, repository: str, digests: Iterable[Digest]) -> None:
        now = time.monotonic()
        with self._lock:
            if sum(map(len, self._held.values())) > _MOST_HELD:
                self._held.clear()
            self._held.setdefault((host, repository), {}).update(dict.fromkeys(digests, now))

    def lost(self, host: str, repository: str) -> None:
        """What was known of its blobs does not hold any more."""
        with self._lock:
            self._held.pop((host, repository), None)

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
