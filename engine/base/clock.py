"""Times as Docker writes them: RFC 3339 in UTC with nanoseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def rfc3339(ns: int | None = None) -> str:
    """`ns` since the epoch (now if None) as `2026-11-23T18:43:59.123456789Z`; trailing zeros are dropped as Go does."""
    ns = time.time_ns() if ns is None else ns
    seconds, rest = divmod(ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{stamp}{fraction}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch. Raises ValueError."""
    head, dot, tail = text.partition(".")
    fraction = ""
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        fraction, zone = tail[:digits], tail[digits:]
        head += zone
    moment = datetime.fromisoformat(head.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction + "000000000")[:9])
