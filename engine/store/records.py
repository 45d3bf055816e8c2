"""Names, relations and the journal of events, in SQLite (WAL).

Every write is one `BEGIN IMMEDIATE` transaction: a plain `BEGIN` that later upgrades gets SQLITE_BUSY at once in
spite of the busy timeout (measured: 829 of 1,200). `synchronous=FULL` where a user was told that it happened.
A connection is used by one thread at a time (they are kept in a pool) and never crosses a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import Corrupt, StorageFull, Unsupported

VERSION = 5
SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    digest TEXT PRIMARY KEY, config TEXT NOT NULL, created INTEGER NOT NULL, size INTEGER NOT NULL, added INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tags (name TEXT PRIMARY KEY, digest TEXT NOT NULL REFERENCES images(digest));
CREATE TABLE IF NOT EXISTS repo_digests (name TEXT PRIMARY KEY, digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS steps (config TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, document TEXT NOT NULL, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (scope TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image TEXT NOT NULL, created INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS networks (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS endpoints (
    network TEXT NOT NULL, container TEXT NOT NULL, id TEXT NOT NULL, ipv4 TEXT, ipv6 TEXT, since INTEGER NOT NULL,
    holder TEXT NOT NULL, PRIMARY KEY (network, container), UNIQUE (network, ipv4), UNIQUE (network, ipv6));
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL,
    id TEXT NOT NULL, attributes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS kept (owner TEXT NOT NULL, image TEXT NOT NULL, PRIMARY KEY (owner, image));
CREATE TABLE IF NOT EXISTS unsynced (
    kind TEXT NOT NULL, name TEXT NOT NULL, previous TEXT NOT NULL, boot TEXT NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS journals (id TEXT PRIMARY KEY, offset INTEGER NOT NULL);
"""
KEPT_EVENTS = 10_000


def add_event(
    db: sqlite3.Connection, type_: str, action: str, id_: str, attributes: Mapping[str, str], when: int | None = None
) -> None:
    """Within a transaction of `Records.write`. `when` in ns, None for now."""
    cursor = db.execute(
        "INSERT INTO events (time, type, action, id, attributes) VALUES (?, ?, ?, ?, ?)",
        (time.time_ns() if when is None else when, type_, action, id_, json.dumps(dict(attributes))),
    )
    if cursor.lastrowid and cursor.lastrowid % 500 == 0:
        db.execute("DELETE FROM events WHERE seq <= ?", (cursor.lastrowid - KEPT_EVENTS,))


class Records:
    """One database file shared by any number of processes and threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._closed = False
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writer = threading.Lock()  # SQLite's own queue of writers is sleeping and trying again
        self._watcher: sqlite3.Connection | None = None
        self._watching = threading.Lock()
        with self.write() as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise Unsupported(
                    f"{path} was written by a newer workbench (schema {found}, this one knows {VERSION})",
                    hint="upgrade container-workbench, or choose another data root with --root",
                )
            if found < VERSION:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    def _open(self) -> sqlite3.Connection:
        # Autocommit mode: transactions are opened by hand below, never by the module.
        db = sqlite3.connect(self._path, timeout=100, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone. Within `write` it is the one that writes, so that it sees what it wrote."""
        writing: sqlite3.Connection | None = getattr(self._local, "writing", None)
        if writing is not None:
            yield writing
            return
        with self._lock:
            db = self._idle.pop() if self._idle else None
        db = db or self._open()
        try:
            yield db
        finally:
            with self._lock:
                kept = not self._closed
                if kept:
                    self._idle.append(db)
            if not kept:
                db.close()

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction: commits at the end, rolls back on an exception. Within one of the same thread it is part of that one.

        What is not `durable` may be lost in a power cut (never half of it): for what is found again or does not matter.
        """
        outer: sqlite3.Connection | None = getattr(self._local, "writing", None)
        if outer is not None:
            assert not durable or self._local.durable, "what shall last is written within what need not"
            yield outer
            return
        self._local.durable = durable
        try:
            with self._writer, self._borrowed() as db:
                try:
                    if not durable:
                        db.execute("PRAGMA synchronous = NORMAL")
                    db.execute("BEGIN IMMEDIATE")
                    self._local.writing = db
                    yield db
                    db.execute("COMMIT")
                finally:
                    self._local.writing = None
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    if not durable:
                        db.execute("PRAGMA synchronous = FULL")
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def read(self, sql: str, *values: object) -> list[sqlite3.Row]:
        try:
            with self._borrowed() as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        rows = self.read(sql, *values)
        return rows[0] if rows else None

    def event(
        self, type_: str, action: str, id_: str, attributes: Mapping[str, str] | None = None, *, durable: bool = True
    ) -> None:
        with self.write(durable=durable) as db:
            add_event(db, type_, action, id_, attributes or {})

    def version(self) -> int:
        """Changes with whatever any connection of any process commits (sqlite.org/pragma.html#pragma_data_version); it means
        nothing in another process."""
        try:
            with self._watching:
                if self._watcher is None:  # one that never writes: its own commits would not count
                    self._watcher = self._open()
                return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def document(self, table: str, key_column: str, key: str) -> Any | None:
        """The JSON document of a row of `cache`, `containers`, `inputs` or `steps`, None if there is none."""
        row = self.one(f"SELECT document FROM {table} WHERE {key_column} = ?", key)
        return json.loads(row["document"]) if row else None

    def integrity(self) -> list[str]:
        rows = [row[0] for row in self.read("PRAGMA integrity_check")]
        problems = [text for text in rows if text != "ok"]
        return problems + [f"broken reference in table {row[0]}" for row in self.read("PRAGMA foreign_key_check")]

    def close(self) -> None:
        """A connection that a thread still works with (its caller was cancelled, it was not) is closed when it is done:
        SQLite crashes when that happens under its hands."""
        with self._lock:
            self._closed, connections, self._idle = True, self._idle, []
        for db in connections:
            db.close()
        with self._watching:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None

    def _no_room(self) -> bool:
        """SQLite says only "I/O error" where it lacks room for its shared memory."""
        with contextlib.suppress(OSError):
            free = os.statvfs(self._path.parent)
            return free.f_bavail * free.f_frsize < 1 << 20
        return False

    def _explain(self, error: sqlite3.DatabaseError) -> Exception:
        text = str(error)
        if "full" in text or ("disk I/O error" in text and self._no_room()):
            return StorageFull(
                f"{self._path}: no space left for the database", hint="free some space and run the command again"
            )
        if "malformed" in text or "not a database" in text:
            return Corrupt(f"{self._path} is damaged: {text}", hint="run `workbench check`")
        return Corrupt(
            f"{self._path}: {text}", hint="run `workbench check`; if the disk is full or read-only, mend that first"
        )
