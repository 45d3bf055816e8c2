"""Characters of text that is drawn in cells: which one is where, and what stands between two of them (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

_WORD = re.compile(r"[\w./:@%+~-]+|\s+|.", re.DOTALL)  # a path, an address, a number with its unit


class Spot(NamedTuple):
    """A character of a row; of a row without any the place 0."""

    row: int
    at: int


def cell_of(text: str, at: int) -> int:
    """The cell in which the character begins."""
    return at if text.isascii() else cell_len(text[:at])


def at_cell(text: str, cell: int) -> int:
    """The character that is drawn in the cell; the last one for a cell behind them."""
    if text.isascii():
        return max(0, min(cell, len(text) - 1))
    left = cell
    for at, letter in enumerate(text):
        left -= cell_len(letter)
        if left < 0:
            return at
    return max(0, len(text) - 1)


def step_from(text: str, at: int, step: int) -> int:
    """The next character (1) or the one before (-1); accents and joiners belong to the letter before them. It may be outside."""
    at += step
    while 0 < at < len(text) and not cell_len(text[at]):
        at += step
    return at


def end_of(text: str, at: int) -> int:
    """The place behind the character, with what belongs to it."""
    return min(len(text), max(at + 1, step_from(text, at, 1)))


def word_at(text: str, at: int) -> tuple[int, int]:
    """The first and the last character of the word there."""
    for match in _WORD.finditer(text):
        if match.start() <= at < match.end():
            return match.start(), match.end() - 1
    return at, at


def word_step(text: str, at: int, step: int) -> int:
    """The beginning of the next word, or of the one before; outside where there is none."""
    begins = [match.start() for match in _WORD.finditer(text) if not match[0].isspace()]
    found = [begin for begin in begins if (begin > at if step > 0 else begin < at)]
    if not found:
        return len(text) if step > 0 else -1
    return found[0] if step > 0 else found[-1]


def between(first: Spot, last: Spot, texts: Sequence[str], whole: Sequence[bool]) -> str:
    """From one character to another, both included. `texts` are the rows `first.row` to `last.row`; one that is not `whole` goes on in
    the next."""
    parts = []
    for number, (text, ends) in enumerate(zip(texts, whole, strict=True), first.row):
        begin = first.at if number == first.row else 0
        end = end_of(text, last.at) if number == last.row else len(text)
        parts.append(text[begin:end] + ("\n" if ends and number != last.row else ""))
    return "".join(parts)
