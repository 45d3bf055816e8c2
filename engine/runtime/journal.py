"""What happened to a container, written by its monitor for engines that may not be there: `events.jsonl` in the bundle.

A line is `{"time": ns, "action": "die", "attributes": {"exitCode": "0"}}`, with Docker's names. An engine copies the lines
into the shared journal, each once, when it next looks (`service.ingest`).
"""

from __future__ import annotations

import json
import os
import time

NAME = "events.jsonl"


class Journal:
    """Appends. What a full disk refuses is kept for the next time."""

    def __init__(self, bundle: str) -> None:
        self._path = os.path.join(bundle, NAME)
        self._pending = b""

    def note(self, action: str, when: int | None = None, /, **attributes: str) -> None:
        record = {"time": time.time_ns() if when is None else when, "action": action, "attributes": attributes}
        self._pending += json.dumps(record, separators=(",", ":")).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            self._pending = self._pending[os.write(fd, self._pending) :]
        except OSError:
            pass
        finally:
            os.close(fd)
