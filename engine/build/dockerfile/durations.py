"""Durations as Go writes them: `1m30s`, `.5s`, `300ms` (time.ParseDuration)."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises `ValueError`."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total, at = Decimal(0), 0
    while at < len(body) and (match := _PART.match(body, at)):
        total += Decimal(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not body or at < len(body) or total >= 2**63:
        raise ValueError(f"{text!r} is not a duration")
    return -int(total) if text.startswith("-") else int(total)


def format_duration(nanoseconds: int) -> str:
    """As Go prints one: `1m30s`, `1.5s`, `300ms`, `0s` (time.Duration.String)."""
    sign, left = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    if left < _UNITS["s"]:
        unit = next((unit for unit in ("ms", "µs", "ns") if left >= _UNITS[unit]), "s")
        return f"{sign}{_trimmed(Decimal(left) / _UNITS[unit])}{unit}"
    hours, left = divmod(left, _UNITS["h"])
    minutes, left = divmod(left, _UNITS["m"])
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_trimmed(Decimal(left) / _UNITS['s'])}s"


def _trimmed(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
