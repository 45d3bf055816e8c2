"""What is typed to find or to filter lines of a log, as the engine's query and as what the view marks (pure)."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from engine.api import LogQuery
from engine.base.patterns import Pattern
from engine.errors import InvalidInput

HINT = "words, !without, ~regular expression"


def parse_query(typed: str) -> LogQuery | None:
    """`text`, `~regular expression` (or `/regular expression/`), with `!` before it what does not match; None for nothing."""
    inverse = typed.startswith("!") and len(typed) > 1
    text = typed[1:] if inverse else typed
    if text.startswith("~") and len(text) > 1:
        return LogQuery(text[1:], True, inverse)
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return LogQuery(text[1:-1], True, inverse)
    return LogQuery(text, False, inverse) if text else None


def highlight(query: LogQuery | None) -> Pattern[str] | None:
    if query is None or query.inverse:
        return None
    with contextlib.suppress(InvalidInput):
        ignore = not any(letter.isupper() for letter in query.text)
        return Pattern(query.text, ignore_case=ignore, literal=not query.regex)
    return None


def unfinished(typed: str) -> bool:
    """Whether it is a regular expression so far that is none yet."""
    query = parse_query(typed)
    if query is None or not query.regex:
        return typed.lstrip("!")[:1] in ("~", "/")
    return highlight(replace(query, inverse=False)) is None
