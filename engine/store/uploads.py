"""Where an upload that was cut goes on: one small file a blob, readable by its owner alone (an address may carry a key)."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from engine.base.atomic import write_atomic


class Uploads:
    """`engine.registry.upload.UploadJournal` in the store's folder for temporary files: the sweep forgets old entries."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp

    def _path(self, key: str) -> Path:
        return self._tmp / f"upload-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def get(self, key: str) -> str | None:
        try:
            return self._path(key).read_text() or None
        except (OSError, UnicodeDecodeError):
            return None

    def put(self, key: str, location: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop an upload
            write_atomic(self._path(key), location.encode(), durable=False)

    def drop(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)
