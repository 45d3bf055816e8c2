"""Text as Go prints it, for history entries that must equal BuildKit's (fmt %q and %+v, time.Duration)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(text: str) -> str:
    """strconv.Quote."""
    out = ""
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            out += _ESCAPES[char]
        elif char == " " or (char.isprintable() and not char.isspace()):
            out += char
        elif code < 0x80:
            out += f"\\x{code:02x}"
        elif code < 0x10000:
            out += f"\\u{code:04x}"
        else:
            out += f"\\U{code:08x}"
    return f'"{out}"'


def quoted_list(words: Sequence[str]) -> str:
    """`%q` of a list: `["a" "b"]`."""
    return f"[{' '.join(map(quote, words))}]"


def plain_list(words: Sequence[str]) -> str:
    """`%v` of a list: `[a b]`."""
    return f"[{' '.join(words)}]"


def duration(nanoseconds: int) -> str:
    """time.Duration's String: `1m30s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if rest < size * 1000 and rest < 10**9:
            return f"{sign}{_decimal(rest, size)}{unit}"
    hours, rest = divmod(rest, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    text = f"{_decimal(rest, 10**9)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    digits = len(str(unit)) - 1
    fraction = f"{part:0{digits}d}".rstrip("0") if digits else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def healthcheck(config: Mapping[str, Any]) -> str:
    """`%+v` of the health check as it stands in the config."""
    times = " ".join(
        f"{name}:{duration(int(config.get(name, 0)))}"
        for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")
    )
    return f"{{Test:{plain_list(config['Test'])} {times} Retries:{config.get('Retries', 0)}}}"
