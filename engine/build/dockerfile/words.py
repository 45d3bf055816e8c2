"""Variable expansion and quotes in Dockerfile words (BuildKit frontend/dockerfile/shell/lex.go, rule by rule).

Inside single quotes nothing is expanded; inside double quotes variables are, and an escape works before `"`, `$` and
itself. `${v:-w}` `${v-w}` `${v:+w}` `${v+w}` `${v:?w}` `${v?w}` `${v#p}` `${v##p}` `${v%p}` `${v%%p}` `${v/p/r}`
`${v//p/r}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import InvalidInput

MAX_DEPTH = 64
_SPECIAL = "@*#?-$!0"  # POSIX, Shell Command Language, 2.5.2


@dataclass(frozen=True, slots=True)
class Expanded:
    """`text` is the whole, `words` are its parts. Names of variables that were looked up, by whether they are set."""

    text: str
    words: tuple[str, ...]
    matched: frozenset[str] = frozenset()
    unmatched: frozenset[str] = frozenset()


def expand(word: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """One word, quotes removed. Raises `InvalidInput`."""
    return process(word, env, escape).text


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Words split at blanks after expansion; what stood in quotes stays together. Raises `InvalidInput`."""
    return list(process(text, env, escape).words)


def process(
    text: str,
    env: Mapping[str, str],
    escape: str = "\\",
    *,
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    skip_quotes: bool = False,
    skip_unset: bool = False,
) -> Expanded:
    """`raw_…` keep quotes and escapes, `skip_quotes` reads them as plain text, `skip_unset` leaves unset variables."""
    lex = _Lex(text, env, escape, raw_quotes, raw_escapes, skip_quotes, skip_unset)
    try:
        whole, words = lex.run("", raw_escapes)
    except InvalidInput as error:
        raise InvalidInput(f"failed to process {text[:200]!r}: {error.message}", hint=error.hint) from None
    return Expanded(whole, tuple(words), frozenset(lex.matched), frozenset(lex.unmatched))


class _Lex:
    """A cursor over one word. `""` stands for the end of the text."""

    def __init__(
        self,
        text: str,
        env: Mapping[str, str],
        escape: str,
        raw_quotes: bool,
        raw_escapes: bool,
        skip_quotes: bool,
        skip_unset: bool,
    ) -> None:
        self._text, self._env, self._escape = text, env, escape
        self._raw_quotes, self._raw_escapes = raw_quotes, raw_escapes
        self._skip_quotes, self._skip_unset = skip_quotes, skip_unset
        self._at = self._depth = 0
        self._buffer = ""
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def run(self, stop: str, raw_escapes: bool) -> tuple[str, list[str]]:
        """Up to an unquoted `stop`, or to the end when it is empty.

        The buffer of the word in progress is shared with the nested call for `${v:-w}`, as in BuildKit: there a word
        loses what it has before such a substitution when it is split, and images built elsewhere have it so.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidInput("substitutions are nested too deep")
        outer, self._raw_escapes = self._raw_escapes, raw_escapes
        self._buffer = ""
        words: list[str] = []
        out: list[str] = []
        found = False
        while char := self._peek():
            if char == stop:
                self._at += 1
                found = True
                break
            if not self._step(char, out, words):
                break
        self._raw_escapes = outer
        self._depth -= 1
        if stop and not found:
            raise InvalidInput(f"unexpected end of statement while looking for matching {stop}")
        if self._buffer:
            words.append(self._buffer)
            self._buffer = ""
        return "".join(out), words

    def _step(self, char: str, out: list[str], words: list[str]) -> bool:
        """One character or one quoted or substituted part. False at an escape that ends the text."""
        if char == "$":
            part = self._dollar()
            self._split(part, words)
        elif char == "<":
            part = self._less()
            self._buffer += part
        elif char == "'" and not self._skip_quotes:
            part = self._single()
            self._buffer += part
        elif char == '"' and not self._skip_quotes:
            part = self._double()
            self._buffer += part
        elif char == self._escape:
            self._at += 1
            part = char if self._raw_escapes else ""
            following = self._next()
            part += following
            self._buffer += part
            out.append(part)
            return bool(following)
        else:
            self._at += 1
            part = char
            self._split(part, words)
        out.append(part)
        return True

    def _split(self, part: str, words: list[str]) -> None:
        for char in part:
            if not char.isspace():
                self._buffer += char
            elif self._buffer:
                words.append(self._buffer)
                self._buffer = ""

    def _less(self) -> str:
        """`<< EOF` stays one word: the heredoc's name may stand apart."""
        self._at += 1
        if self._peek() != "<":
            return "<"
        self._at += 1
        start = self._at
        while self._peek() and self._peek() in "\t\r ":
            self._at += 1
        return "<<" + self._text[start : self._at]

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise InvalidInput("unexpected end of statement while looking for matching single-quote")
        text = self._text[self._at : end + 1] if self._raw_quotes else self._text[self._at + 1 : end]
        self._at = end + 1
        return text

    def _double(self) -> str:
        self._at += 1
        out = '"' if self._raw_quotes else ""
        while char := self._peek():
            if char == "$":
                out += self._dollar()
                continue
            self._at += 1
            if char == '"':
                return out + ('"' if self._raw_quotes else "")
            if char == self._escape:
                out += char if self._raw_escapes else ""
                if not self._peek():
                    continue
                if self._peek() in ('"', "$", self._escape):
                    char = self._next()
            out += char
        raise InvalidInput("unexpected end of statement while looking for matching double-quote")

    # --- substitutions --------------------------------------------------------------------------------

    def _get(self, name: str) -> str | None:
        value = self._env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def _name(self) -> str:
        start = self._at
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self._at += 1
        return self._text[start : self._at]

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() == "{":
            self._at += 1
            return self._braced()
        name = self._name()
        if not name:
            return "$"
        value = self._get(name)
        return (f"${name}" if self._skip_unset else "") if value is None else value

    def _braced(self) -> str:
        if not self._peek():
            raise InvalidInput("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise InvalidInput("syntax error: bad substitution")
        name = self._name()
        modifier = self._next()
        if modifier == "}":
            value = self._get(name)
            return (f"${{{name}}}" if self._skip_unset else "") if value is None else value
        if modifier == "/":
            return self._replace(name)
        colon = modifier == ":"
        if colon:
            modifier = self._next()
        if not modifier or modifier not in "+-?#%" or (colon and modifier in "#%"):
            raise InvalidInput(f"unsupported modifier ({':' * colon}{modifier}) in substitution")
        word = self._until("}", modifier in "#%")
        value = self._get(name)
        if value is None and self._skip_unset:
            return f"${{{name}{':' * colon}{modifier}{word}}}"
        if modifier in "#%":
            greedy = word.startswith(modifier)
            trim = _trim_prefix if modifier == "#" else _trim_suffix
            return trim(word[greedy:], value or "", greedy)
        return _default(name, value, modifier, colon, word)

    def _until(self, stop: str, raw_escapes: bool) -> str:
        try:
            return self.run(stop, raw_escapes)[0]
        except InvalidInput:
            if not self._peek():
                raise InvalidInput(f"syntax error: missing {stop!r} in ${{}}") from None
            raise

    def _replace(self, name: str) -> str:
        everywhere = self._peek() == "/"
        self._at += everywhere
        pattern = self._until("/", True)
        replacement = self._until("}", True)
        value = self._get(name)
        if value is None and self._skip_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        regex = _glob(pattern, greedy=True)
        return _substitute(regex, value or "", replacement, everywhere)


def _default(name: str, value: str | None, modifier: str, colon: bool, word: str) -> str:
    is_set = value is not None and (value != "" or not colon)
    if modifier == "+":
        return word if is_set else ""
    if modifier == "-":
        return (value or "") if is_set else word
    if not is_set:
        raise InvalidInput(f"{name}: {word or 'is not allowed to be ' + ('unset' if value is None else 'empty')}")
    return value or ""


def _glob(pattern: str, *, greedy: bool) -> re.Pattern[str]:
    """`*` and `?` of a substitution's pattern; a backslash keeps `*`, `?`, itself, `/` and `}` plain."""
    parts, out, index = [], "", 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            parts.append(out)
            out = ""
        elif char == "?":
            out += "."
        elif char == "\\":
            following = pattern[index : index + 1]
            if not following or following not in "*?\\/}":
                raise InvalidInput(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'")
            out += re.escape(following)
            index += 1
        else:
            out += re.escape(char)
    return re.compile(_joined([*parts, out], greedy))


def _joined(parts: list[str], greedy: bool) -> str:
    """The parts with `*` between them. What is between two `*` is best found as early as it can be, and never tried again:
    without that, a pattern of many `*` would take a time that explodes with the value's length."""
    first, *rest = parts
    if not rest:
        return first
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return f"{first}{middle}{'.*' if greedy else '.*?'}{rest[-1]}"


def _substitute(regex: re.Pattern[str], value: str, replacement: str, everywhere: bool) -> str:
    """Go's ReplaceAll: an empty match right behind another match does not count."""
    out, at, last = "", 0, -1
    for match in regex.finditer(value):
        if match.start() == match.end() == last:
            continue
        out += value[at : match.start()] + replacement
        at = last = match.end()
        if not everywhere:
            break
    return out + value[at:]


def _trim_prefix(pattern: str, value: str, greedy: bool) -> str:
    match = _glob(pattern, greedy=greedy).match(value)
    return value[match.end() :] if match else value


def _trim_suffix(pattern: str, value: str, greedy: bool) -> str:
    """The shortest match at the end is the shortest at the beginning of the reversed text."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return _trim_prefix("".join(reversed(parts)), value[::-1], greedy)[::-1]
