"""What stands behind directory digests, and digests of what cannot change: so that a changed tree is explained by its files, and an
unchanged stage is not read again. A cache in SQLite, never synced: what is lost is made again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path

KEPT_NS = 30 * 24 * 3600 * 10**9
_SCHEMA = """
CREATE TABLE IF NOT EXISTS listings (digest TEXT PRIMARY KEY, text TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, digest TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
"""


class Trees:
    """One file, shared by threads and processes. A file that is damaged, or a full disk, costs explanations, not builds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")
            db.executescript(_SCHEMA)
            self._db = db
        return self._db

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def _broken(self) -> None:
        """Begins anew with an empty file."""
        if self._db is not None:
            self._db.close()
        self._db = None
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def put(self, listings: Mapping[str, str]) -> None:
        """Remembers the text behind directory digests."""
        if not listings:
            return
        now = time.time_ns()
        self._write("INSERT OR IGNORE INTO listings VALUES (?, ?, ?)", [(d, t, now) for d, t in listings.items()])

    def listing(self, digest: str) -> dict[str, str] | None:
        """name -> `f 0644 digest`, None when it is not known."""
        text = self._one("SELECT text FROM listings WHERE digest = ?", digest)
        if text is None:
            return None
        lines = (line.partition("\0") for line in text.split("\n") if line)
        return {name: description for name, _, description in lines}

    def digest(self, key: str) -> str | None:
        """What `remember` was told of something that cannot change."""
        return self._one("SELECT digest FROM digests WHERE key = ?", key)

    def remember(self, key: str, digest: str) -> None:
        self._write("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", [(key, digest, time.time_ns())])

    def prune(self) -> None:
        """Forgets what is older than a month."""
        limit = time.time_ns() - KEPT_NS
        for table in ("listings", "digests"):
            self._write(f"DELETE FROM {table} WHERE used < ?", [(limit,)])

    def _one(self, sql: str, value: str) -> str | None:
        with self._lock:
            try:
                row = self._open().execute(sql, (value,)).fetchone()
            except sqlite3.DatabaseError:
                return None
        return str(row[0]) if row else None

    def _write(self, sql: str, rows: list[tuple[object, ...]]) -> None:
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE")
                try:
                    db.executemany(sql, rows)
                finally:
                    db.execute("COMMIT")
            except sqlite3.OperationalError:
                return  # busy, or no space
            except sqlite3.DatabaseError:
                self._broken()
