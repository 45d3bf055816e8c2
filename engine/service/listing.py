"""The list of containers, as cheap to ask for as to keep: `ps`, the app and the API ask for it all the time.

A summary is made of a container's record (SQLite) and its monitor's state file, and any engine of the data root may change the one, any
monitor the other. So nothing here is told of changes: the database's version says in one step whether any record can have changed, a look
at a file (inode, time, size) whether a state or a journal has, and one `epoll_wait` for all of them whether a monitor has died.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.runtime import journal
from engine.runtime import state as states

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.model import ContainerSummary
    from engine.runtime.client import Runtime
    from engine.service.container_view import ContainerView
    from engine.store.store import Store

_SETTLED_NS = 50_000_000  # a file younger than this may change again within one tick of the file system's clock, unseen

Stamp = tuple[int, int, int]


@dataclass(slots=True)
class Entry:
    """A container as it is now. `stamps` are of its state file and of its monitor's journal, `present`: it has a folder."""

    id: str
    name: str
    document: str
    record: dict[str, Any]
    state: states.State
    stamps: tuple[Stamp | None, Stamp | None]
    trusted: bool
    present: bool
    summary: ContainerSummary | None = None

    @property
    def untouched(self) -> bool:
        """It was made, and no more."""
        return self.present and self.stamps == (None, None)


class Listing:
    """Every container, the one made last first. For any thread."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        networks: Callable[[], Mapping[str, str]],
        view: ContainerView,
        bundle: Callable[[str], Path],
    ) -> None:
        self._store, self._runtime, self._networks, self._view, self._bundle = store, runtime, networks, view, bundle
        self._lock = threading.Lock()
        self._version: int | None = None
        self._known: dict[str, Entry] = {}
        self._names: Mapping[str, str] = {}  # of networks, by id
        self._monitors = Monitors()

    def close(self) -> None:
        with self._lock:
            self._known.clear()
            self._version = None
            self._monitors.close()

    def entries(self) -> list[Entry]:
        """As they are now; an entry that nothing has changed is the very same object as before."""
        with self._lock:
            self._reread()
            present = set(os.listdir(self._store.containers))
            dead = self._monitors.dead()
            found = {key: self._current(entry, dead, key in present) for key, entry in self._known.items()}
            self._known = found
            self._monitors.keep({key for key, entry in found.items() if entry.state.active})
            return list(found.values())

    def summaries(self, entries: Sequence[Entry]) -> list[ContainerSummary]:
        found = []
        for entry in entries:
            if entry.summary is None:
                entry.summary = self._view.summary(entry.id, entry.record, entry.state, self._names)
            found.append(entry.summary)
        return found

    def _reread(self) -> None:
        """The records, when any can have changed."""
        version = self._store.records.version()
        if version == self._version:
            return
        names = self._networks()
        rows = self._store.records.read("SELECT id, name, document FROM containers ORDER BY created DESC")
        same = names == self._names
        known: dict[str, Entry] = {}
        for row in rows:
            old = self._known.get(row["id"]) if same else None
            if old is None or old.document != row["document"] or old.name != row["name"]:
                record = {**json.loads(row["document"]), "name": row["name"]}
                nothing = states.State()
                old = Entry(row["id"], row["name"], row["document"], record, nothing, (None, None), False, True)
            known[row["id"]] = old
        self._known, self._names, self._version = known, names, version

    def _current(self, entry: Entry, dead: set[str], present: bool) -> Entry:
        stamps, youngest = self._stamps(entry.id)
        if (
            entry.trusted
            and entry.stamps == stamps
            and entry.present == present
            and (not entry.state.active or self._monitors.alive(entry.id, entry.state, dead))
        ):
            return entry
        state = states.State() if stamps[0] is None else self._runtime.state(self._bundle(entry.id))
        # Stamps from before the reading, and none of them fresh: what changed since has other ones.
        trusted = time.time_ns() - youngest > _SETTLED_NS
        return Entry(entry.id, entry.name, entry.document, entry.record, state, stamps, trusted, present)

    def _stamps(self, container_id: str) -> tuple[tuple[Stamp | None, Stamp | None], int]:
        folder = f"{self._store.containers}/{container_id}/"
        first, one = _stamp(folder + states.NAME)
        second, other = _stamp(folder + journal.NAME)
        return (first, second), max(one, other)


def _stamp(path: str) -> tuple[Stamp | None, int]:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None, 0
    return (found.st_ino, found.st_mtime_ns, found.st_size), found.st_mtime_ns


class Monitors:
    """Which of the monitors have ended since the last look."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[str, tuple[int, int]] = {}  # container: descriptor (pidfd_open(2)), pid
        self._names: dict[int, str] = {}

    def dead(self) -> set[str]:
        if self._epoll is None:
            return set()
        return {self._names[fd] for fd, _ in self._epoll.poll(0, max(1, len(self._names))) if fd in self._names}

    def alive(self, container_id: str, state: states.State, dead: set[str]) -> bool:
        if container_id in dead:
            return False
        found = self._watched.get(container_id)
        if found is not None and found[1] == state.monitor_pid:
            return True
        if found is not None:
            self._drop(container_id)
        with contextlib.suppress(OSError):  # it has ended, or there are no descriptors left
            fd = os.pidfd_open(state.monitor_pid)
            try:
                self._epoll = self._epoll or select.epoll()
                self._epoll.register(fd, select.EPOLLIN)
            except OSError:
                os.close(fd)
                raise
            self._watched[container_id], self._names[fd] = (fd, state.monitor_pid), container_id
        return states.is_alive(
            state.monitor_pid, state.monitor_start
        )  # after the opening: the pid is that process's now

    def keep(self, active: set[str]) -> None:
        for one in self._watched.keys() - active:
            self._drop(one)

    def _drop(self, container_id: str) -> None:
        fd, _ = self._watched.pop(container_id)
        del self._names[fd]
        os.close(fd)  # which takes it out of the epoll set

    def close(self) -> None:
        self.keep(set())
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
