"""Sizes and durations as Docker prints and reads them (docker/go-units)."""

from __future__ import annotations

import re

from engine.errors import InvalidInput

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?$", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def human_size(size: float, digits: int = 3) -> str:
    """Decimal units, so many significant digits: `1.03MB`, `74.2MB`, `0B`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.4g}{unit}" if unit == "B" else f"{size:.{digits}g}{unit}"
        size /= 1000
    raise AssertionError("unreachable")


def binary_size(size: float) -> str:
    """Powers of 1024, four significant digits: `1.5MiB`, `2GiB`, `512B`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            return f"{size:.4g}{unit}"
        size /= 1024
    raise AssertionError("unreachable")


def parse_size(text: str) -> int:
    """Bytes of `512m`, `1g`, `64k`, `1024`: binary units, as `docker run --memory` reads them."""
    match = _SIZE.match(text.strip())
    if not match:
        raise InvalidInput(f"{text!r} is not a size", hint="write a number and b, k, m or g: 512m")
    return int(float(match[1]) * 1024 ** _POWER[match[2].lower()])


def human_duration(seconds: float) -> str:
    """`4 seconds`, `About a minute`, `3 hours`, `2 days`: what `docker ps` shows."""
    seconds = int(seconds)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def brief_seconds(seconds: float) -> str:
    """`41 ms`, `1.3 s`, `2 m 05 s`: durations of steps, for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} m {int(seconds) % 60:02d} s"
