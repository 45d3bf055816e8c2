"""Variable expansion and quotes in Dockerfile words (BuildKit frontend/dockerfile/shell/lex.go).

Inside single quotes nothing is expanded; inside double quotes variables are, and an escape works before `"`, `$` and itself.
`${v:-w}` `${v-w}` `${v:+w}` `${v+w}` `${v:?w}` `${v?w}` `${v#p}` `${v##p}` `${v%p}` `${v%%p}` `${v/p/r}` `${v//p/r}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.errors import InvalidInput

MAX_DEPTH = 64


def expand(word: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """One word, quotes removed. Raises `InvalidInput`."""
    return _Lex(word, env, escape).word()


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Words split at blanks after expansion; what stood in quotes stays together."""
    lex = _Lex(text, env, escape)
    lex.word()
    return lex.words()


class _Lex:
    def __init__(self, text: str, env: Mapping[str, str], escape: str, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise InvalidInput("variables are nested too deep")
        self._text, self._env, self._escape, self._depth = text, env, escape, depth
        self._at = 0
        self._words: list[str] = []
        self._word: str | None = None

    def words(self) -> list[str]:
        return self._words + ([self._word] if self._word is not None else [])

    def _collect(self, text: str, *, split: bool) -> None:
        """Feeds the word list: unquoted blanks split, quoted text does not."""
        if not split:
            self._word = (self._word or "") + text
            return
        for char in text:
            if char in " \t\r\n":
                if self._word is not None:
                    self._words.append(self._word)
                    self._word = None
            else:
                self._word = (self._word or "") + char

    def word(self) -> str:
        out = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "'":
                part, split = self._single(), False
            elif char == '"':
                part, split = self._double(), False
            elif char == "$":
                part, split = self._dollar(), True
            elif char == self._escape:
                self._at += 1
                if self._at == len(self._text):
                    break
                part, split = self._text[self._at], False
                self._at += 1
            else:
                part, split = char, True
                self._at += 1
            out += part
            self._collect(part, split=split)
        return out

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise InvalidInput("unexpected end of statement while looking for matching single-quote")
        text = self._text[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double(self) -> str:
        out = ""
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return out
            if char == "$":
                out += self._dollar()
                continue
            self._at += 1
            if char == self._escape and self._at < len(self._text):
                following = self._text[self._at]
                if following in ('"', "$", self._escape):
                    char = following
                    self._at += 1
            out += char
        raise InvalidInput("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._at += 1
        if self._at == len(self._text):
            return "$"
        if self._text[self._at] == "{":
            self._at += 1
            return self._braced()
        match = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?\-$!]").match(self._text, self._at)
        if not match:
            return "$"
        self._at = match.end()
        return self._env.get(match[0], "")

    def _braced(self) -> str:
        match = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?\-$!]").match(self._text, self._at)
        if not match:
            raise InvalidInput("syntax error: bad substitution")
        name = match[0]
        self._at = match.end()
        value = self._env.get(name)
        if self._peek() == "}":
            self._at += 1
            return value or ""
        colon = self._peek() == ":"
        self._at += colon
        modifier = self._peek()
        self._at += 1
        if modifier in ("+", "-", "?"):
            return self._default(name, value, modifier, colon)
        if colon:
            raise InvalidInput(f"unsupported modifier (:{modifier}) in substitution")
        if modifier in ("#", "%"):
            greedy = self._peek() == modifier
            self._at += greedy
            pattern = self._until("}", raw=True)
            return _trim(value or "", pattern, modifier, greedy, self._escape)
        if modifier == "/":
            everywhere = self._peek() == "/"
            self._at += everywhere
            pattern = self._until("/", raw=True)
            replacement = self._until("}")
            regex = re.compile(_glob(pattern, True, self._escape), re.DOTALL)
            return regex.sub(lambda _: replacement, value or "", count=0 if everywhere else 1)
        raise InvalidInput(f"unsupported modifier ({modifier}) in substitution")

    def _default(self, name: str, value: str | None, modifier: str, colon: bool) -> str:
        word = self._until("}")
        is_set = value is not None and (value != "" or not colon)
        if modifier == "+":
            return word if is_set else ""
        if modifier == "-":
            return (value or "") if is_set else word
        if not is_set:
            raise InvalidInput(
                f"{name}: {word or ('not allowed to be unset or empty' if colon else 'not allowed to be unset')}"
            )
        return value or ""

    def _peek(self) -> str:
        if self._at >= len(self._text):
            raise InvalidInput("syntax error: missing '}'")
        return self._text[self._at]

    def _until(self, stop: str, *, raw: bool = False) -> str:
        """The text up to an unquoted `stop`, expanded; `raw` keeps escapes, for a pattern reads them itself."""
        start, depth = self._at, 0
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == self._escape:
                self._at += 2
                continue
            if char == "$" and self._text[self._at + 1 : self._at + 2] == "{":
                depth += 1
            elif char == "}" and depth:
                depth -= 1
            elif char == stop and not depth:
                text = self._text[start : self._at]
                self._at += 1
                if raw:
                    return text if "$" not in text else _Lex(text, self._env, "\0", self._depth + 1).word()
                return _Lex(text, self._env, self._escape, self._depth + 1).word()
            self._at += 1
        raise InvalidInput(f"syntax error: missing {stop!r} in substitution")


def _glob(pattern: str, greedy: bool, escape: str) -> str:
    out, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == escape:
            if index == len(pattern):
                raise InvalidInput("invalid escape at the end of a pattern")
            if pattern[index] not in ("*", "?", "\\", escape, "/", "}"):
                raise InvalidInput(f"invalid escape {escape}{pattern[index]} in a pattern")
            out += re.escape(pattern[index])
            index += 1
        elif char == "*":
            out += ".*" if greedy else ".*?"
        elif char == "?":
            out += "."
        else:
            out += re.escape(char)
    return out


def _trim(value: str, pattern: str, side: str, greedy: bool, escape: str) -> str:
    if side == "#":
        match = re.match(_glob(pattern, greedy, escape), value, re.DOTALL)
        return value[match.end() :] if match else value
    starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
    regex = re.compile(_glob(pattern, True, escape) + r"\Z", re.DOTALL)
    for start in starts:
        if regex.match(value, start):
            return value[:start]
    return value
