"""Wildcards of COPY's sources, exactly as Go's path/filepath.Match: `*` and `?` stay within one component."""

from __future__ import annotations

import re
from functools import lru_cache

from engine.build.dockerfile.wild import Token, Wild

_SPECIAL = "*?["


def has_wildcards(text: str) -> bool:
    """Whether an unescaped `*`, `?` or `[` stands in it."""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in _SPECIAL:
            return True
    return False


def split_wildcards(path: str) -> tuple[str, str]:
    """The leading components without wildcards, and the rest."""
    parts = [part for part in path.split("/") if part]
    for index, part in enumerate(parts):
        if has_wildcards(part):
            return "/".join(parts[:index]), "/".join(parts[index:])
    return "/".join(parts), ""


@lru_cache(maxsize=512)
def compile_glob(pattern: str) -> Wild | None:
    """None for a malformed pattern, which matches nothing."""
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not tokens or tokens[-1][0] != "star":
                tokens.append(("star", ""))
        elif char == "?":
            tokens.append(("one", "[^/]"))
        elif char == "\\":
            if at == len(pattern):
                return None
            tokens.append(("one", re.escape(pattern[at])))
            at += 1
        elif char == "[":
            found = _class(pattern, at)
            if found is None:
                return None
            tokens.append(("one", found[0]))
            at = found[1]
        else:
            tokens.append(("one", re.escape(char)))
    try:
        return Wild(tokens)
    except re.error:
        return None


_RANGE = re.compile(r"(\\.|[^\]\\-])(?:-(\\.|[^\]\\-]))?", re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int] | None:
    """`[^a-z\\]]` from behind its bracket; the expression and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges = ""
    while not (ranges and pattern[at : at + 1] == "]"):
        match = _RANGE.match(pattern, at)
        if not match:
            return None
        low = match[1][-1]
        high = match[2][-1] if match[2] else low
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
        else:
            ranges += "\ue000"  # an empty range: it matches no character that a path has
        at = match.end()
    return (f"(?!/)[^{ranges}]" if negated else f"[{ranges}]"), at + 1
