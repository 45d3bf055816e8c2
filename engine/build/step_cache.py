"""What steps made, by key; one process does a step, others wait; and what each step depended on last time, to say why it runs.

A row enters after its layer is whole on disk (blob synced and renamed, tree renamed), so a crash at any point leaves a step that is
not there, never half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.cancel import CancelToken
from engine.oci.digest import Digest
from engine.store.store import Store

F_OFD_SETLK = 37  # fcntl.h; a lock of the open file, not of the process
_WAIT = 0.01  # seconds between tries for a step that another build does
_TOUCH_NS = 3600 * 10**9  # how exact "last used" is


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a step stands: its Dockerfile and stage, its place, and its own words (a line that was put in moves places)."""

    file: Path
    stage: str
    key: str
    instruction: str
    occurrence: int = 0

    @property
    def place(self) -> str:
        return f"{self.file}#{self.key}"

    @property
    def words(self) -> str:
        digest = hashlib.sha256(self.instruction.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return f"{self.file}#{self.stage}#{digest}.{self.occurrence}"


def step_key(kind: str, chain: str, inputs: Mapping[str, str]) -> str:
    """Equal content meets equal keys, however it came about."""
    return hashlib.sha256(json.dumps([kind, chain, sorted(inputs.items())]).encode()).hexdigest()


class StepCache:
    def __init__(self, store: Store) -> None:
        self._store = store

    def lookup(self, key: str) -> dict[str, Any] | None:
        """What a step of this key made, if that is still all there."""
        row = self._store.records.one("SELECT document, used FROM cache WHERE key = ?", key)
        if row is None:
            return None
        document: dict[str, Any] = json.loads(row["document"])
        if not self._store.blobs.has(Digest(document["layer"]["digest"])):
            return None
        now = time.time_ns()
        if now - row["used"] > _TOUCH_NS:
            with self._store.records.write(durable=False) as db:
                db.execute("UPDATE cache SET used = ? WHERE key = ?", (now, key))
        return document

    def put(self, key: str, document: Mapping[str, Any]) -> None:
        with self._store.records.write(durable=False) as db:
            values = (key, json.dumps(dict(document)), time.time_ns())
            db.execute("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", values)

    @contextlib.contextmanager
    def making(self, key: str, cancel: CancelToken, waiting: Callable[[], None]) -> Iterator[None]:
        """Held by the one that does the step of this key, in any process. `waiting` is called once when another one does.

        The lock goes with its holder: a builder that is killed leaves the step to the next. It is one byte of a file, at a place
        that the key gives (fcntl(2), open file description locks).
        """
        fd = os.open(f"{self._store.tmp}/making.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(fd, int(key[:15], 16), cancel, waiting)
            yield
        finally:
            os.close(fd)

    # --- what it depended on ----------------------------------------------------------------------------

    def remembered(self, scope: Scope) -> tuple[dict[str, str] | None, bool]:
        """What the step depended on last time, and whether it was the same instruction then."""
        for name, same in ((scope.words, True), (scope.place, False)):
            found = self._store.records.document("inputs", "scope", name)
            if found is not None:
                return dict(found), same
        return None, False

    def remember(self, scope: Scope, inputs: Mapping[str, str]) -> None:
        document = json.dumps(dict(inputs))
        names = (scope.words, scope.place)
        known = {
            row["scope"]: row["document"]
            for row in self._store.records.read("SELECT scope, document FROM inputs WHERE scope IN (?, ?)", *names)
        }
        changed = [name for name in names if known.get(name) != document]
        if changed:
            with self._store.records.write(durable=False) as db:
                db.executemany("INSERT OR REPLACE INTO inputs VALUES (?, ?)", [(name, document) for name in changed])


def _take(fd: int, place: int, cancel: CancelToken, waiting: Callable[[], None]) -> None:
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    told = False
    while True:
        try:
            fcntl.fcntl(fd, F_OFD_SETLK, wanted)
            return
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: somebody holds it
            if not told:
                told = True
                waiting()
            cancel.wait(_WAIT)
            cancel.check()
