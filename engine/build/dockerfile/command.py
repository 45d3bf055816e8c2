"""One logical line taken apart: keyword, flags, words, JSON array (BuildKit parser/split_command.go, line_parsers.go)."""

from __future__ import annotations

import json
import re

BLANKS = re.compile(r"[\t\v\f\r ]+")


class NotStrings(ValueError):
    """A JSON array of something else than strings. What is no JSON array at all is the shell form, this is an error."""


def split_keyword(line: str) -> tuple[str, str]:
    """The keyword, and the rest without the blanks around it."""
    keyword, *rest = BLANKS.split(line.strip(), maxsplit=1)
    return keyword, rest[0].strip() if rest else ""


def split_blanks(text: str) -> list[str]:
    """Words between blanks; quotes mean nothing here."""
    return BLANKS.split(text) if text else []


def take_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """The leading words that begin with `--`, quotes and escapes resolved, and what follows. A bare `--` ends them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:].strip()
        word, at = _flag_word(text, at, escape)
        if word == "--":
            return tuple(flags), text[at:].strip()
        flags.append(word)


def _flag_word(text: str, at: int, escape: str) -> tuple[str, int]:
    word, quote = "", ""
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            break
        at += 1
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == escape:
            word += text[at : at + 1]
            at += 1
        else:
            word += char
    return word, at


def split_words(text: str, escape: str) -> list[str]:
    """Words split at blanks; quotes and escapes keep blanks together and stay in the word (BuildKit parseWords)."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if word:
                words.append(word)
                word = ""
            continue
        if char == escape and quote != "'":
            if at == len(text):
                break  # an escape at the very end is dropped
            word += char + text[at]
            at += 1
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        word += char
    if word:
        words.append(word)
    return words


def json_strings(text: str) -> list[str] | None:
    """The exec form; None when the text is no JSON array, and so the shell form. Raises `NotStrings`."""
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in value):
        raise NotStrings("when using JSON array syntax, arrays must be comprised of strings only")
    return [_LONE_SURROGATE.sub("\ufffd", word) for word in value]


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # Go reads an escape for half a character so, and no argv can hold one


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")  # Python would take NaN and Infinity
