""".dockerignore: which paths the build context leaves out, exactly as Docker decides (moby/patternmatcher, Go filepath.Clean).

Patterns are anchored at the root, the last match wins, `!` takes back, and a match on a parent directory covers what is below it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from engine.errors import InvalidInput


def read_patterns(text: str) -> list[str]:
    """The cleaned patterns of an ignore file."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        line = line.strip()
        if not line:
            continue
        invert = line.startswith("!")
        body = line[1:].strip() if invert else line
        if body:
            body = _clean(body)
            if len(body) > 1 and body.startswith("/"):
                body = body[1:]
        patterns.append("!" + body if invert else body)
    return patterns


def _clean(path: str) -> str:
    """Go's filepath.Clean: one leading slash at most, no trailing one."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


class _Pattern:
    def __init__(self, text: str) -> None:
        self.negated = text.startswith("!")
        if text == "!":
            raise InvalidInput('illegal exclusion pattern: "!"')
        self.text = text[1:] if self.negated else text
        self.folders = self.text.split("/")
        self._regex = re.compile(_translate(self.text), re.DOTALL)

    def matches(self, path: str) -> bool:
        return self._regex.match(path) is not None


class Matcher:
    """Raises `InvalidInput` for a pattern that cannot be read."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_Pattern(_normal(text)) for text in (p.strip() for p in patterns) if text]
        self._negates = any(pattern.negated for pattern in self._patterns)

    def excluded(self, path: str) -> bool:
        """Whether `path` (relative, with slashes) is left out."""
        matched = False
        parents = path.split("/")[:-1]
        for pattern in self._patterns:
            if pattern.negated != matched:
                continue  # it could change nothing
            hit = pattern.matches(path) or any(
                pattern.matches("/".join(parents[: count + 1])) for count in range(len(parents))
            )
            if hit:
                matched = not pattern.negated
        return matched

    def may_include_under(self, path: str) -> bool:
        """Whether an excluded directory must still be walked, because a `!` pattern could match below it."""
        if not self._negates:
            return False
        parts = path.split("/")
        for pattern in self._patterns:
            if not pattern.negated:
                continue
            for mine, theirs in zip(parts, pattern.folders, strict=False):
                if theirs.startswith("**") or "**" in theirs:
                    return True
                if mine != theirs and not re.match(_translate(theirs), mine, re.DOTALL):
                    break
            else:
                return True
        return False


def _normal(text: str) -> str:
    invert = text.startswith("!")
    body = text[1:] if invert else text
    if body:
        body = _clean(body)
    return ("!" if invert else "") + body


def _translate(pattern: str) -> str:
    """Go's matcher as a regular expression: `*` and `?` stay within a component, `**` does not."""
    out, index, size = "^", 0, len(pattern)
    while index < size:
        char = pattern[index]
        index += 1
        if char == "*":
            if index < size and pattern[index] == "*":
                index += 1
                if index < size and pattern[index] == "/":
                    index += 1
                out += ".*" if index == size else "(.*/)?"
            else:
                out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "\\":
            if index == size:
                raise InvalidInput(f"syntax error in pattern {pattern!r}: it ends with a backslash")
            out += re.escape(pattern[index])
            index += 1
        elif char == "[":
            out, index = _class(pattern, index, out)
        else:
            out += re.escape(char)
    return out + r"\Z"


def _class(pattern: str, index: int, out: str) -> tuple[str, int]:
    end = pattern.find("]", index + 1)
    if end < 0:
        raise InvalidInput(f"syntax error in pattern {pattern!r}: [ without ]")
    body = pattern[index:end]
    body = body.replace("\\-", "\\-").replace("[", "\\[")
    try:
        re.compile(f"[{body}]")
    except re.error:
        raise InvalidInput(f"syntax error in pattern {pattern!r}: a bad character class") from None
    return out + f"[{body}]", end + 1
