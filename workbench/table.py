"""Rows of cells in a given width (pure): which columns fit, which rows a filter lets through, in which order."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size

from engine.base.patterns import Pattern, SlowPattern
from engine.errors import InvalidInput

LEAST = 16  # cells that the growing column keeps before another one goes, where it does not say otherwise (`squeeze`)
ROOMY = 50  # cells from which a list writes words out


@dataclass(frozen=True, slots=True)
class Column:
    """How a cell is set. `grow` takes the room that is left; `short` replaces words where there is little of it; `styles` name a
    colour of the theme, "dim" or "bold" for a cell's whole text ("" is for any other). Columns with a `drop` go when there is no
    room, the highest first. `key` makes of a subject's record what its rows are sorted by; else it is the text."""

    grow: bool = False
    right: bool = False
    short: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    drop: int = 0
    key: Callable[[Any], Any] | None = None
    least: int = 0  # cells that it has before it has a text: of one whose texts come later and shall move nothing
    cap: int = 0  # cells that it takes at most; 0: as many as its longest text
    squeeze: int = 0  # cells down to which it is cut before another column goes
    ends: bool = False  # what does not fit loses its beginning: of an image's name the end tells more


def fit(natural: Sequence[int], columns: Sequence[Column], width: int, gap: int = 2) -> list[int]:
    """A width for each column, 0 for one that does not show, in `width` cells together with the gaps."""
    full = [min(size, column.cap or size) for size, column in zip(natural, columns, strict=True)]
    sizes = [min(size, column.squeeze or size) for size, column in zip(full, columns, strict=True)]
    grows = next((i for i, column in enumerate(columns) if column.grow), None)
    least = (columns[grows].squeeze if grows is not None else 0) or LEAST

    def needed() -> int:
        used = [min(size, least) if i == grows else size for i, size in enumerate(sizes) if size or i == grows]
        return sum(used) + gap * max(0, len(used) - 1)

    droppable = sorted((i for i, column in enumerate(columns) if column.drop), key=lambda i: -columns[i].drop)
    for i in droppable:
        if needed() <= width:
            break
        sizes[i] = 0
    for i, column in enumerate(columns):  # what was cut for the others gets back what they leave
        if column.squeeze and sizes[i]:
            sizes[i] += max(0, min(full[i] - sizes[i], width - needed()))
    if grows is not None:
        others = [size for i, size in enumerate(sizes) if i != grows and size]
        sizes[grows] = max(0, width - sum(others) - gap * len(others))
    return sizes


def set_text(text: str, width: int, right: bool = False, *, ends: bool = False) -> str:
    """Exactly `width` cells: padded, or cut with an ellipsis (in front, if it `ends` with what matters)."""
    size = len(text) if text.isascii() else cell_len(text)
    if size > width:
        if ends and text.isascii() and width > 0:
            return f"…{text[size - width + 1 :]}"
        return f"{set_cell_size(text, width - 1)}…" if width > 0 else ""
    return " " * (width - size) + text if right else text + " " * (width - size)


class Matcher:
    """Of a filter: words that must all occur, `!word` that must not, and `~regular expression` (taken for words where it is none, or
    takes too long). Case does not matter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._pattern: Pattern[str] | None = None
        if text.startswith("~"):
            with contextlib.suppress(InvalidInput):
                self._pattern = Pattern(text[1:], ignore_case=True)

    def __call__(self, cells: Sequence[str]) -> bool:
        whole = " ".join(cells).lower()
        if self._pattern is not None:
            try:
                return self._pattern.found_in(whole)
            except SlowPattern:
                self._pattern = None
        if self.text.startswith("~"):
            return self.text[1:].lower() in whole
        return all(
            word[1:] not in whole if word.startswith("!") and len(word) > 1 else word in whole
            for word in self.text.lower().split()
        )


def natural_key(text: str) -> tuple[object, ...]:
    """Sorts "web-2" before "web-10"."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text.lower()) if part)
