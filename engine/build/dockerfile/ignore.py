""".dockerignore: which paths the build context leaves out, exactly as Docker decides (moby/patternmatcher).

Patterns are anchored at the root, the last match wins, `!` takes back, and a match on a parent directory covers what
is below it.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Sequence

from engine.build.dockerfile.wild import FEW, Token, Wild
from engine.errors import InvalidInput


def read_patterns(text: str) -> list[str]:
    """The cleaned patterns of an ignore file. `#` makes a comment in the first column only."""
    patterns = []
    for raw in text.removeprefix("\ufeff").split("\n"):
        line = raw.strip()
        if raw.startswith("#") or not line:
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
    """One cleaned line. Plain names, `name**` and `**name` are compared as strings, as the reference does."""

    def __init__(self, text: str) -> None:
        self.negated = text.startswith("!")
        if text == "!":
            raise InvalidInput('illegal exclusion pattern: "!"', hint="write !PATTERN to take paths back in")
        self.text = text[1:] if self.negated else text
        _check(self.text)
        self.folders = self.text.split("/")
        self._kind, expression = _translate(self.text)
        self._regex = _compile(expression, self.text) if self._kind == "regex" else None
        self._wild = Wild(_tokens(self.text)) if self._regex and _is_heavy(self.text) else None
        self._folders: list[re.Pattern[str] | None] | None = None

    def matches(self, path: str) -> bool:
        if self._wild:
            return self._wild.match(path)
        if self._regex:
            return self._regex.match(path) is not None
        if self._kind == "prefix":
            return path.startswith(self.text[:-2])
        if self._kind == "suffix":
            suffix = self.text[2:]
            return path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])
        return path == self.text

    def may_match_below(self, parts: Sequence[str]) -> bool:
        """Whether a path below the directory `parts` could match: each component fits as far as both go."""
        if self._folders is None:
            # `**` may stand for any number of components, and `[a/b]` is no component: then only a walk can tell.
            plain = all("**" not in name and name.count("[") == name.count("]") for name in self.folders)
            self._folders = [_compile(_translate(name)[1], name) for name in self.folders] if plain else [None]
        for part, folder in zip(parts, self._folders, strict=False):
            if folder is None:
                return True
            if not folder.match(part):
                return False
        return True


class Matcher:
    """Raises `InvalidInput` for a pattern that cannot be read."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_Pattern(_clean(text)) for text in (p.strip() for p in patterns) if text]
        self._negated = [pattern for pattern in self._patterns if pattern.negated]

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns as they are used, cleaned."""
        return tuple("!" * pattern.negated + pattern.text for pattern in self._patterns)

    @property
    def has_exclusions(self) -> bool:
        """Whether a `!` pattern is among them."""
        return bool(self._negated)

    def excluded(self, path: str) -> bool:
        """Whether `path` (relative, with slashes) is left out."""
        matched = False
        ends = [index for index, char in enumerate(path) if char == "/"]
        for pattern in self._patterns:
            if pattern.negated != matched:
                continue  # it could change nothing
            if pattern.matches(path) or any(pattern.matches(path[:end]) for end in ends):
                matched = not pattern.negated
        return matched

    def may_include_under(self, path: str) -> bool:
        """Whether an excluded directory must still be walked, because a `!` pattern could match below it."""
        parts = path.split("/")
        return any(pattern.may_match_below(parts) for pattern in self._negated)


def _check(pattern: str) -> None:
    """The errors of Go's filepath.Match, which it reports only as far as it reads: up to where `.` fails to match."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\":
            if at == len(pattern):
                raise InvalidInput(f"syntax error in pattern {pattern!r}: it ends with a backslash")
            at += 1
        elif char == "[":
            at = _check_class(pattern, at)


def _check_class(pattern: str, at: int) -> int:
    """`[^a-z\\]]`: at least one range, no bare `-` or `]` at an end of one. Returns the index behind it."""
    match = re.compile(r"\^?(?:(?:[^\]\\-]|\\.)(?:-(?:[^\]\\-]|\\.))?)+\]", re.DOTALL).match(pattern, at)
    if not match:
        raise InvalidInput(f"syntax error in pattern {pattern!r}: a bad character class", hint="write [a-z] or \\[")
    return match.end()


_PIECE = re.compile(r"\*\*/?|\*|\?|\\(?:.|\Z)|\[\^?(?:\\.|[^\]\\*?])+\]|.", re.DOTALL)


def _is_heavy(pattern: str) -> bool:
    """Whether a regular expression could take long: many wildcards."""
    return sum(piece[0] in "*" for piece in _PIECE.findall(pattern)) > FEW


def _tokens(pattern: str) -> list[Token]:
    """As `_translate`, piece by piece. Raises `InvalidInput` for a class that mixes with wildcards."""
    pieces = _PIECE.findall(pattern)
    tokens: list[Token] = []
    for index, piece in enumerate(pieces):
        if piece.startswith("**"):
            tokens.append(("rest" if index == len(pieces) - 1 else "deep", ""))
        elif piece == "*":
            tokens.append(("star", ""))
        elif piece == "?":
            tokens.append(("one", "[^/]"))
        elif len(piece) > 2:
            tokens.append(("one", "".join(c if c in "[]-^" else re.escape(c) for c in piece.replace("\\", ""))))
        elif piece in ("[", "]"):
            raise InvalidInput(f"the pattern {pattern[:80]!r} is too complicated", hint="use fewer wildcards in it")
        else:
            tokens.append(("one", re.escape(piece[-1]) if piece != "\\" else "(?!)"))
    return tokens


def _compile(expression: str, pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `[[`, which Go and Python read as a plain bracket
            return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise InvalidInput(f"syntax error in pattern {pattern!r}: {error}") from None


def _translate(pattern: str) -> tuple[str, str]:
    """How to compare, and the regular expression: `*` and `?` stay within a component, `**` does not.

    A leading `**` makes the rest a plain suffix as long as nothing else in it is special: `**.go` matches `a.go`,
    though `**.g?` does not.
    """
    kind, out, index, size = "exact", "", 0, len(pattern)
    while index < size:
        start, char = index, pattern[index]
        index += 1
        if char == "*" and pattern[index : index + 1] == "*":
            index += 1
            if pattern[index : index + 1] == "/":
                index += 1
            if index == size:
                out += ".*"
                kind = "prefix" if kind == "exact" else "regex"
            else:
                out += "(?:.*/)?"
                kind = "regex"
            if start == 0:
                kind = "suffix"
        elif char in "*?":
            out += "[^/]*" if char == "*" else "[^/]"
            kind = "regex"
        elif char == "\\":
            out += re.escape(pattern[index : index + 1])
            index += 1
            kind = "regex"
        elif char in "[]":
            out += char
            kind = "regex"
        elif char in "-^":  # ranges and negation in a class
            out += char
        else:
            out += re.escape(char)
    return kind, f"^{out}\\Z"
