"""For terminals that show nothing but ASCII (LANG=C): every other character becomes one of it, cell for cell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_PAIRS = {
    "●": "*", "○": "o", "◌": ".", "◐": "~", "◑": "~", "✗": "x", "✓": "+", "‖": "=", "↻": "@", "◆": "#", "▸": ">", "▾": "v",
    "─": "-", "━": "-", "│": "|", "┃": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "┌": "+", "┐": "+", "└": "+",
    "┘": "+", "├": "+", "┤": "+", "…": "~", "·": "-", "→": ">", "←": "<", "↑": "^", "↓": "v", "▲": "^", "▼": "v",
    "×": "x", "—": "-", "–": "-", "▌": "|", "█": "#", "▁": "_", "▂": "_", "▃": "_", "▄": "=", "▅": "=", "▆": "=",
    "▇": "#", "▔": "-", "▊": "|", "▎": "|", "▏": "|", "▕": "|", "⭘": "o", "▶": ">", "▷": ">", "◀": "<",
}  # fmt: skip
_OTHER = re.compile(r"[^\x00-\x7f]")


def wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the locale that the user set says nothing of UTF-8. None set at all says nothing either way."""
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    return locale in ("C", "POSIX") or (bool(locale) and "utf" not in locale.lower() and "." in locale)


@lru_cache(4096)
def to_ascii(text: str) -> str:
    return _OTHER.sub(lambda match: _PAIRS.get(match[0], "?" * cell_len(match[0])), text)


class AsciiOnly(LineFilter):
    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else Segment(to_ascii(segment.text), segment.style, segment.control)
            for segment in segments
        ]
