"""How a row of a log looks: pure functions from its text to styled text and the rows of the screen that it takes.

What a program writes is never trusted: what drives a terminal, reorders what is read or cannot be seen is taken out
(CVE-2021-42574 and its like); colours stay, but for those attributes that hide text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.style import Style
from rich.text import Text

from workbench.state import neutral

# Zero width and direction marks, soft hyphens, separators that break a line, tags, interlinear annotations. The joiner
# U+200D and the variation selectors stay: emoji are made of them.
_UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_PILED = re.compile(
    "([\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3})[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
_RETURN = "␍"
LEVELS = {
    "fatal": "red", "panic": "red", "critical": "red", "crit": "red", "error": "red", "err": "red", "warning": "yellow",
    "warn": "yellow", "notice": "cyan", "info": "green", "debug": "blue", "trace": "blue",
}  # fmt: skip
_LEVEL_KEYS = ("level", "lvl", "severity", "levelname", "log.level")
_MESSAGE_KEYS = ("msg", "message", "event", "text")
_TIME_KEYS = frozenset(("time", "ts", "timestamp", "@timestamp", "datetime", "date"))
_NUMBERED = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}  # bunyan's and pino's


def safe(text: str, *, colours: bool = False) -> str:
    """`text` as it may be shown. A carriage return inside shows as one: what it would overwrite stays readable."""
    if text.isascii() and text.isprintable():
        return text
    text = text.rstrip("\r").replace("\r", _RETURN)
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        text = _PILED.sub(r"\1", _UNSEEN.sub("", text))
    return neutral(text, colours=colours)


def styled(text: str) -> Text:
    """With the colours that the program gave it."""
    if "\x1b" not in text:
        return Text(safe(text), no_wrap=True, end="")
    found = Text.from_ansi(safe(text, colours=True), no_wrap=True, end="")
    for index, span in enumerate(found.spans):
        style = span.style
        if isinstance(style, Style) and (style.conceal or style.blink or style.blink2):
            style = style + Style(conceal=False, blink=False, blink2=False)
            found.spans[index] = span._replace(style=style)
    return found


def parse_fields(text: str) -> Mapping[str, Any] | None:
    """The fields of a line that is a JSON object, else None."""
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}") and len(stripped) > 2):
        return None
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


def readable(fields: Mapping[str, Any]) -> Text:
    """`WARN  what happened  key=value …`: level and message first, a time last."""
    rest = dict(fields)
    line = Text(no_wrap=True, end="")
    level = _take(rest, _LEVEL_KEYS)
    if level is not None:
        name = _NUMBERED.get(level, str(level)) if isinstance(level, int) else str(level)
        line.append(f"{safe(name).upper():<5} ", f"bold {LEVELS.get(name.lower(), '')}".strip())
    message = _take(rest, _MESSAGE_KEYS)
    if message is not None:
        line.append(safe(_value(message)), "bold" if level is None else "")
        line.append("  " if rest else "")
    last = [key for key in rest if key.lower() in _TIME_KEYS]
    for key in [*(key for key in rest if key not in last), *last]:
        line.append(f"{safe(key)}=", "dim")
        line.append(f"{safe(_value(rest[key]))} ", "dim" if key in last else "")
    line.rstrip()
    return line


def _take(fields: dict[str, Any], keys: Iterable[str]) -> Any:
    for key in keys:
        if isinstance(fields.get(key), str | int | float):
            return fields.pop(key)
    return None


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\n", "⏎")


def clock(stamp: str) -> str:
    """A row's RFC 3339 time as this machine's time of day, with milliseconds."""
    try:
        return datetime.fromisoformat(f"{stamp[:26]}+00:00").astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return " " * 12


def spans(text: str, width: int) -> list[tuple[int, int]]:
    """The rows of the screen that `text` takes, as ranges of cells: broken behind a space where one is near the end, never
    inside a character that is two cells wide."""
    cells = cell_len(text)
    if cells <= width or width < 2:
        return [(0, max(cells, width))]
    found, start = [], 0
    if cells != len(text):
        for piece in chop_cells(text, width):
            found.append((start, start + cell_len(piece)))
            start = found[-1][1]
        return found
    while cells - start > width:
        space = text.rfind(" ", start + width // 2, start + width)
        end = space + 1 if space > 0 else start + width
        found.append((start, end))
        start = end
    return [*found, (start, cells)]
