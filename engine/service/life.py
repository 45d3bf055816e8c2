"""What befalls a container after it was created: stop, kill, pause, wait, and what its monitor has noted meanwhile.

The monitor writes what happens into a file in the bundle, whether or not an engine is there. `reconcile` copies that into
the shared journal, each line once whichever engine comes first, and does what only an engine can do:

- a container with auto-remove that has ended is removed (its monitor starts an engine for that when none waits);
- a container whose monitor was killed is recorded as exited with an unknown code, and started again, once, if it has
  a restart policy and was not stopped by hand;
- a container that a reboot of the host has ended (its boot id is an older one) is recorded likewise, and started again
  if its policy is `always`, or `unless-stopped` and it was not stopped by hand.

`resume` is what a program that stands for the whole host does when it starts (`workbench serve`): Docker's rule at the
start of its daemon, by which `always` also brings back what was stopped by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.base import procfs
from engine.base.cancel import CancelToken
from engine.base.lazy import lazy
from engine.errors import Conflict, EngineError, InvalidInput, NotFound
from engine.linux.inotify import Inotify
from engine.runtime import journal
from engine.runtime.restart import on_boot
from engine.runtime.state import LOST, REBOOTED
from engine.service import moments
from engine.service.points import points_of
from engine.store.records import add_event

if TYPE_CHECKING:
    import shutil

    from engine.runtime.client import Runtime
    from engine.runtime.state import State
    from engine.service.containers import ContainerService
    from engine.service.listing import Entry
    from engine.store.store import Store
else:
    shutil = lazy("shutil")

STOP_SECONDS = 10
Condition = Literal["not-running", "next-exit", "removed"]
_LOOK = 0.05  # seconds between looks where the kernel tells nothing


class Life:
    """`containers` finds, starts and removes them."""

    def __init__(self, store: Store, runtime: Runtime, containers: ContainerService) -> None:
        self._store, self._runtime, self._containers = store, runtime, containers
        self._settled: dict[str, Entry] = {}  # what `reconcile` has nothing more to do for
        self._copied: dict[str, int] = {}  # how much of each monitor's journal this process knows to be in ours

    def state(self, container_id: str) -> State:
        return self._runtime.state(self._containers.bundle(container_id))

    # --- verbs -----------------------------------------------------------------------------------------

    def stop(
        self, name: str, timeout: int | None = None, signal: str = "", *, keep: bool = False, hurry: bool = False
    ) -> bool:
        """Signal, grace, kill. The monitor goes on with it when we go away. Already stopped is fine. `keep`: it is about
        to be started again, so auto-remove does not apply. `hurry`: no grace for a process that the signal cannot reach;
        returns whether that was so."""
        container_id, record = self._containers.resolve(name)
        state = self.state(container_id)
        if not state.active:
            return False
        wanted = record["spec"].get("stop_timeout")
        grace = timeout if timeout is not None else wanted if wanted is not None else STOP_SECONDS
        number = signal_number(signal or record["stop_signal"])
        deaf = hurry and not hears(state.pid, number)
        grace = 0 if deaf else grace
        bundle = self._containers.bundle(container_id)
        removes = bool(record["spec"]["auto_remove"])
        with contextlib.suppress(Conflict):  # it ended in between: what was asked for is so
            limit = None if grace < 0 else float(grace)
            self._runtime.stop(container_id, bundle, number, limit, removes=removes, keep=keep)
        self.reconcile(container_id)
        return deaf

    def restart(self, name: str, timeout: int | None = None, signal: str = "") -> None:
        container_id, record = self._containers.resolve(name)
        self.stop(container_id, timeout, signal, keep=True)
        self._containers.start(container_id)
        self._containers.event("restart", container_id, record)

    def kill(self, name: str, signal: str) -> None:
        container_id, _record = self._containers.resolve(name)
        number = signal_number(signal)
        if not self.state(container_id).active:
            raise Conflict(f"cannot kill container: {name}: container {container_id} is not running")
        self._runtime.signal(container_id, number)
        self.reconcile(container_id)

    def pause(self, name: str) -> None:
        self._freeze(name, self._runtime.pause)

    def unpause(self, name: str) -> None:
        self._freeze(name, self._runtime.unpause)

    def _freeze(self, name: str, act: Any) -> None:
        container_id, record = self._containers.resolve(name)
        if not self.state(container_id).active:
            raise Conflict(f"container {record['name']} is not running")
        act(container_id)
        self.reconcile(container_id)

    # --- wait ------------------------------------------------------------------------------------------

    def wait(self, name: str, condition: Condition = "not-running", cancel: CancelToken | None = None) -> int:
        """The exit code. `not-running` returns at once for one that does not run; `next-exit` waits for an end that is
        still to come; `removed` until it is removed. Raises EngineError when nobody knows the code, Cancelled."""
        cancel = cancel or CancelToken()
        container_id, record = self._containers.resolve(name)
        bundle = self._containers.bundle(container_id)
        state = self.state(container_id)
        # `docker run --rm` waits for the removal of what it has not started yet.
        to_come = condition == "next-exit" or (condition == "removed" and state.status == "created")
        if to_come and not state.active:
            self._await(bundle, lambda: not bundle.exists() or self._moved(container_id, state), cancel)
            state = self.state(container_id)
        code = self._wait(container_id, bundle, state, cancel, removes=bool(record["spec"]["auto_remove"]))
        # What its monitor has noted is copied by whoever asks for events; here only what is more than that.
        if record["spec"]["auto_remove"] or points_of(record) or self._policy(record) != "no":
            self.reconcile(container_id)
        if condition == "removed":
            self._await(bundle, lambda: not self._recorded(container_id), cancel)
        return code

    def _recorded(self, container_id: str) -> bool:
        """The record goes last: who hears of the removal finds all its events."""
        return self._store.records.one("SELECT id FROM containers WHERE id = ?", container_id) is not None

    def _moved(self, container_id: str, before: State) -> bool:
        """It was started since, even if it has ended already."""
        now = self.state(container_id)
        return now.active or now.started != before.started or (before.status == "created" and now.status != "created")

    def _wait(self, container_id: str, bundle: Path, state: State, cancel: CancelToken, *, removes: bool) -> int:
        if not state.active and state.exit_code is None and not state.error:
            return 0  # it was never started
        try:
            return self._runtime.wait(container_id, bundle, None, removes=removes, cancel=cancel)
        except EngineError:
            if bundle.exists():
                raise
            return self._last_code(container_id)  # removed between our looks at it

    def _last_code(self, container_id: str) -> int:
        query = "SELECT attributes FROM events WHERE id = ? AND action = 'die' ORDER BY time DESC LIMIT 1"
        row = self._store.records.one(query, container_id)
        return int(json.loads(row["attributes"]).get("exitCode", 0)) if row else 0

    def _await(self, bundle: Path, done: Any, cancel: CancelToken) -> None:
        """Looks when something happens in the bundle or beside it, and now and then anyway."""
        try:
            hints = Inotify()
        except OSError:  # the user's limit of instances (inotify(7): 128 at first) is reached: it looks by the clock
            while not done():
                cancel.check()
                cancel.wait(_LOOK)
            return
        try:
            for path in (bundle, bundle.parent):
                with contextlib.suppress(OSError):
                    hints.add(str(path))
            while not done():
                cancel.check()
                select.select([hints.fd], [], [], 1.0)
                hints.drain()
        finally:
            hints.close_beside()

    # --- what monitors have noted ------------------------------------------------------------------------

    def reconcile(self, container_id: str | None = None) -> None:
        """See the module. Of one container, or of all."""
        if container_id is None:
            self.settle(self._containers.listing.entries())
            return
        row = self._store.records.one("SELECT id, name, document FROM containers WHERE id = ?", container_id)
        if row is not None:
            record = {**json.loads(row["document"]), "name": row["name"]}
            present = self._containers.bundle(container_id).exists()
            self._settle(container_id, record, present, self.state(container_id))

    def settle(self, entries: Sequence[Entry]) -> bool:
        """Of all: of those that have changed since this process last looked. Whether it did something to a container."""
        self._sweep({entry.id for entry in entries})
        settled, acted = {}, False
        for entry in entries:
            if self._settled.get(entry.id) is entry or entry.untouched:
                settled[entry.id] = entry
            elif self._settle(entry.id, entry.record, entry.present, entry.state):
                acted = True
            else:
                settled[entry.id] = entry
        self._settled = settled
        return acted

    def _settle(self, container_id: str, record: dict[str, Any], present: bool, state: State) -> bool:
        if not present:  # an engine was killed while it removed it
            self._containers.finish_removal(container_id, record, volumes=bool(record["spec"]["auto_remove"]))
            return True
        self.copy_journal(container_id, record)
        return state.status == "exited" and self._after_end(container_id, record, state)

    def _sweep(self, known: set[str]) -> None:
        """What an engine that was killed in a `create` or a `rm` left: folders without a record."""
        for name in os.listdir(self._store.tmp):
            if name.startswith("stale-"):
                shutil.rmtree(self._store.tmp / name, ignore_errors=True)
        if set(os.listdir(self._store.containers)) <= known:
            return
        with contextlib.suppress(BlockingIOError), self._store.alone():
            known = {row["id"] for row in self._store.records.read("SELECT id FROM containers")}
            for name in set(os.listdir(self._store.containers)) - known:
                with contextlib.suppress(FileNotFoundError):  # a `rm` that goes on beside us was faster
                    os.rename(self._store.containers / name, self._store.tmp / f"stale-{name[:16]}")
                shutil.rmtree(self._store.tmp / f"stale-{name[:16]}", ignore_errors=True)

    def _after_end(self, container_id: str, record: dict[str, Any], state: State) -> bool:
        """Whether its end asks for something."""
        policy = self._policy(record)
        lost = state.error == LOST and policy != "no" and not state.stopped_by_hand
        if lost or (state.error == REBOOTED and on_boot(policy, by_hand=state.stopped_by_hand)):
            self._start_again(container_id)
            return True
        if record["spec"]["auto_remove"] and not state.kept:
            with contextlib.suppress(NotFound, Conflict):
                self._containers.remove(container_id, force=False, volumes=True)
            return True
        return False

    @staticmethod
    def _policy(record: dict[str, Any]) -> str:
        return record["spec"].get("restart_policy", {}).get("name") or "no"

    def _start_again(self, container_id: str) -> bool:
        """False: it could not (its record says why), or another engine was faster."""
        try:
            self._containers.start(container_id)
        except EngineError:
            return False
        return True

    def resume(self) -> list[str]:
        """See the module. Returns the names of those it started."""
        started = []
        for row in self._store.records.read("SELECT id, name, document FROM containers ORDER BY created"):
            state = self.state(row["id"])
            policy = self._policy(json.loads(row["document"]))
            if state.active or state.status == "created" or not on_boot(policy, by_hand=state.stopped_by_hand):
                continue
            if self._start_again(row["id"]):
                started.append(str(row["name"]))
        return started

    def copy_journal(self, container_id: str, record: dict[str, Any]) -> None:
        """The lines of the monitor's journal that are not in ours yet."""
        path = self._containers.bundle(container_id) / journal.NAME
        try:
            size = path.stat().st_size
        except OSError:
            return
        if size <= self._copied.get(container_id, 0):
            return
        # No flush: line and offset are lost together, if at all, and then copied again.
        with self._store.records.write(durable=False) as db:
            if db.execute("SELECT 1 FROM containers WHERE id = ?", (container_id,)).fetchone() is None:
                return  # removed since we looked, and all of it copied then
            db.execute("INSERT OR IGNORE INTO journals VALUES (?, 0)", (container_id,))
            (offset,) = db.execute("SELECT offset FROM journals WHERE id = ?", (container_id,)).fetchone()
            end, ends = offset, 0
            for behind, line in _lines(path, offset):
                end, ends = behind, ends + (line["action"] == "die")
                self._copy_line(db, container_id, record, line)
            if end != offset:
                db.execute("UPDATE journals SET offset = ? WHERE id = ?", (end, container_id))
        self._copied[container_id] = end
        if ends:
            self._containers.ended(container_id, record)

    def _copy_line(
        self, db: sqlite3.Connection, container_id: str, record: dict[str, Any], line: dict[str, Any]
    ) -> None:
        """With what its start or end means for its networks and volumes."""
        action, when = str(line["action"]), int(line["time"])
        if action == "start":
            for told in moments.begun(container_id, record, self._networks(db, record)):
                add_event(db, told.type, told.action, told.id, told.attributes, when)
        elif action == "die":
            for told in moments.ended(container_id, record, self._networks(db, record)):
                add_event(db, told.type, told.action, told.id, told.attributes, when)
        attributes = {**self._containers.event_attributes(record), **line.get("attributes", {})}
        add_event(db, "container", action, container_id, attributes, when)

    @staticmethod
    def _networks(db: sqlite3.Connection, record: dict[str, Any]) -> list[moments.Network]:
        """Those that it is on, or may be by its mode."""
        known = list(record.get("networks", ()))
        marks = ", ".join("?" * len(known))
        query = f"SELECT id, name, document FROM networks WHERE id IN ({marks}) OR name IN ('host', 'none')"
        rows = db.execute(query, known).fetchall()
        return [moments.Network(row["id"], row["name"], json.loads(row["document"])["driver"]) for row in rows]

    def start_failed(self, container_id: str, record: dict[str, Any]) -> None:
        """What it had got for its start is let go."""
        with self._store.records.write(durable=False) as db:
            for told in moments.failed(container_id, record, self._networks(db, record)):
                add_event(db, told.type, told.action, told.id, told.attributes)

    def forget(self, container_id: str) -> None:
        """It is removed."""
        self._copied.pop(container_id, None)


def hears(pid: int, number: int) -> bool:
    """Whether a signal means anything to a process; one that is gone is taken to hear."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        with contextlib.suppress(PermissionError):
            return procfs.hears(status, number, Path(f"/proc/{pid}/syscall").read_text())
        return procfs.hears(status, number)
    except OSError:
        return True


def _lines(path: Path, offset: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset behind it, line) of each whole line from `offset` on. What is no line of a journal is passed over."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    with os.fdopen(fd, "rb") as file:
        file.seek(offset)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            offset += len(raw)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                line = json.loads(raw)
                if "time" in line and "action" in line:
                    yield offset, line


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM`, `15`, `RTMIN+3`. Raises `InvalidInput`."""
    import signal

    text = name.upper().removeprefix("SIG")
    if text.isascii() and text.isdigit() and 0 < int(text) < 65:
        return int(text)
    base, plus, offset = text.partition("+")
    try:
        number = int(signal.Signals[f"SIG{base}"]) + (int(offset) if plus else 0)
    except (KeyError, ValueError):
        raise InvalidInput(f"invalid signal: {name}", hint="write TERM, SIGTERM or 15") from None
    return number
