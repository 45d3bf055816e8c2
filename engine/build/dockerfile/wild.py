"""Wildcard matching whose time grows with pattern times text: a set of positions moves through the pattern, nothing is tried twice.

A regular expression with several `*` takes a time that explodes with the length of the text; patterns come from anybody's
Dockerfile, and names from anybody's context.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

FEW = 2  # wildcards that a regular expression handles without harm

Token = tuple[Literal["one", "star", "deep", "rest"], str]


class Wild:
    """`one` is a regular expression for one character; `star` any within a component, `deep` any number of whole ones
    (`(.*/)?`), `rest` anything at all."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._steps = [(kind, re.compile(text, re.DOTALL) if kind == "one" else None) for kind, text in tokens]

    def match(self, text: str) -> bool:
        """Whether the whole of `text` fits."""
        at = {0}
        for kind, one in self._steps:
            if one is not None:
                at = {p + 1 for p in at if p < len(text) and one.match(text, p, p + 1)}
            elif kind == "star":
                at = _within(text, at)
            else:
                start = min(at)
                later = range(start, len(text))
                at = at | {p + 1 for p in later if text[p] == "/"} if kind == "deep" else {*later, len(text)}
            if not at:
                return False
        return len(text) in at


def _within(text: str, at: set[int]) -> set[int]:
    """From each position on to the end of its component."""
    found: set[int] = set()
    for start in sorted(at):
        if start in found:
            continue
        end = text.find("/", start)
        found.update(range(start, (len(text) if end < 0 else end) + 1))
    return found
