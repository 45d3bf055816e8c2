"""Which log a container has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from engine.runtime import outside
from engine.runtime.jsonlog import Log, compress_file
from engine.runtime.loop import Loop
from engine.runtime.ringlog import BUFFER, RingLog


def open_log(loop: Loop, path: str, options: dict[str, Any], dropped: Callable[[int], None]) -> Log | RingLog | None:
    """By Docker's options (`type`, `mode`, sizes, labels). `dropped` is told how many lines a full ring has lost. Raises OSError."""
    if not path or options.get("type") == "none":
        return None

    def compress(rotated: str, done: Any) -> None:
        outside.run(loop, lambda: compress_file(rotated), done)

    attributes = options.get("attributes") or {}
    details = b',"attrs":' + json.dumps(attributes, sort_keys=True).encode() if attributes else b""

    def opened(compression: Any) -> Log:
        return Log(
            path,
            max_size=int(options.get("max_size") or 0),
            max_files=int(options.get("max_files") or 1),
            compress=compression if options.get("compress") else None,
            extra=details,
        )

    if options.get("mode") == "non-blocking":
        size = int(options.get("max_buffer_size") or BUFFER)
        return RingLog(loop, opened, details, size=size, told=dropped)
    return opened(compress)
