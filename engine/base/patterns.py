"""Regular expressions that a user types: each match has a time limit.

Python's `re` has none and keeps the interpreter while it works: of `(a|aa)+$` and a line of 60 letters the whole app would wait for
ever. `regex` (PyPI) knows the same language, and `re`'s flags, and takes a limit; another engine without backtracking (RE2) would know
neither lookahead nor backreferences, which people use on logs.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any, AnyStr, Generic

from engine.errors import InvalidInput

LIMIT = 0.05  # seconds of CPU for one line or path; what is usual takes some microseconds


class SlowPattern(InvalidInput):
    """A regular expression that would need for ever on some line. `pattern` is its text."""

    pattern = ""


class Pattern(Generic[AnyStr]):
    """`literal`: the text itself. Raises `InvalidInput` for what is no regular expression."""

    def __init__(self, text: AnyStr, *, ignore_case: bool = False, literal: bool = False) -> None:
        self._text = text.decode(errors="replace") if isinstance(text, bytes) else text
        self._options: dict[str, object] = {}
        if literal:
            self._compiled: Any = re.compile(re.escape(text), re.IGNORECASE if ignore_case else 0)
            return
        regex: Any = importlib.import_module("regex")  # 8 ms that most commands need not wait for
        # `concurrent`: leaving the interpreter and getting it back for each line would take longer than the match
        self._options = {"timeout": LIMIT, "concurrent": False}
        try:
            self._compiled = regex.compile(text, regex.IGNORECASE if ignore_case else 0)
        except regex.error as error:
            raise InvalidInput(f"{self._text!r} is no regular expression: {error}") from None
        except (RecursionError, OverflowError, MemoryError):
            raise InvalidInput(f"{self._text!r} is too large for a regular expression") from None

    def found_in(self, text: AnyStr) -> bool:
        """Raises `SlowPattern`."""
        try:
            return self._compiled.search(text, **self._options) is not None
        except TimeoutError:
            raise self._slow() from None

    def spans(self, text: AnyStr) -> Iterator[tuple[int, int]]:
        """Of each match. Raises `SlowPattern`."""
        try:
            for match in self._compiled.finditer(text, **self._options):
                yield match.span()
        except TimeoutError:
            raise self._slow() from None

    def _slow(self) -> SlowPattern:
        error = SlowPattern(
            f"{self._text!r} takes too long: a line needs more than {LIMIT * 1000:.0f} ms",
            hint="a repetition within a repetition, like (a|aa)+, tries all ways to divide a line: make one of them exact",
        )
        error.pattern = self._text
        return error
