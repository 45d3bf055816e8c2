"""Times as Docker writes them: RFC 3339 in UTC with nanoseconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from engine.errors import InvalidInput

# Go's time.ParseDuration: 300ms, 1.5h, 2h45m.
_DURATION = re.compile(r"(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SECONDS = re.compile(r"(-?\d+)(?:\.(\d+))?")


def rfc3339(ns: int | None = None) -> str:
    """`ns` since the epoch (now if None) as `2026-11-23T18:43:59.123456789Z`; trailing zeros are dropped as Go does."""
    ns = time.time_ns() if ns is None else ns
    seconds, rest = divmod(ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{stamp}{fraction}Z"


def go_time(ns: int, *, fraction: bool = False) -> str:
    """As Go prints a time, in this machine's zone: `2026-11-24 11:34:34 +0000 UTC`; with its `fraction`, in UTC."""
    seconds, rest = divmod(ns, 1_000_000_000)
    if fraction:
        part = f".{rest:09d}".rstrip("0").rstrip(".")
        return time.strftime(f"%Y-%m-%d %H:%M:%S{part} +0000 UTC", time.gmtime(seconds))
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


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


def parse_moment(text: str, now: int) -> int:
    """Nanoseconds since the epoch of what `--since` and `until=` take. `now` is what a duration counts back from.

    A Go duration (`1h30m`), seconds since the epoch with a fraction, or RFC 3339 in any length; without a zone it is this
    machine's time, as in Docker. Raises `InvalidInput`.
    """
    if _DURATION.fullmatch(text):
        return now - sum(int(float(number) * _NS[unit]) for number, unit in _DURATION_PART.findall(text))
    if seconds := _SECONDS.fullmatch(text):
        return int(seconds[1]) * 10**9 + int(((seconds[2] or "") + "000000000")[:9])
    try:
        if re.search(r"T.*(Z|[+-]\d\d:?\d\d)$", text):
            return parse_rfc3339(text)
        head, _, fraction = text.removesuffix("Z").partition(".")
        moment = datetime.fromisoformat(head).astimezone()
        return int(moment.timestamp()) * 10**9 + int((fraction + "000000000")[:9])
    except ValueError:
        raise InvalidInput(
            f"{text!r} is neither a time nor a duration", hint="write 10m, 2h30m, 2026-11-23 or 2026-11-23T10:00:00Z"
        ) from None
