"""What a query keeps of a log: asked of raw blocks first, since most blocks hold nothing that a narrow query wants."""

from __future__ import annotations

import re
from collections.abc import Callable

from engine.base.patterns import Pattern
from engine.model import LogQuery

# Sequences that drive a terminal: CSI, OSC, DCS and the like, or an escape with one character (ECMA-48).
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|.?)")
_RAW_ESCAPE = b"\\u001b"


def plain(text: str) -> str:
    """`text` as it is read: without escape sequences."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


class Matcher:
    """A query, compiled. Raises `InvalidInput` for what is no regular expression."""

    def __init__(self, query: LogQuery) -> None:
        flags = 0 if any(letter.isupper() for letter in query.text) else re.IGNORECASE
        self._found = Pattern(query.text, ignore_case=bool(flags), literal=not query.regex).found_in
        self._inverse = query.inverse
        # Without letters that JSON escapes, and in ASCII, the text stands in the file as it is.
        literal = not query.regex and not query.inverse and query.text.isascii() and query.text.isprintable()
        simple = literal and not any(letter in query.text for letter in '"\\<>&')
        self._raw = re.compile(re.escape(query.text.encode()), flags) if simple else None

    def may_be_in(self, block: bytes) -> bool:
        """Whether a raw block may hold a row that matches."""
        return self._raw is None or _RAW_ESCAPE in block or self._raw.search(block) is not None

    @property
    def test(self) -> Callable[[str], bool]:
        """Whether a row's text matches. It raises `SlowPattern`."""
        found = self._found
        if self._inverse:
            return lambda text: not found(plain(text))
        return lambda text: found(plain(text))
