"""Logs as numbered rows: what `Engine.open_logs` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which rows: those that contain `text`, or (`regex`) match it as a regular expression of Python's `re`; `inverse`: those
    that do not. Capitals count only when `text` has one. Escape sequences in a row are no part of its text."""

    text: str
    regex: bool = False
    inverse: bool = False


class LogRow(NamedTuple):
    """One record of a log: a line without its newline, or one piece of at most 16 KiB of a longer line."""

    place: int  # its number in the book, whatever the query; the same as long as the book is open
    source: int  # which of the book's names
    stream: str  # stdout, stderr, or workbench: a rule that the inner loop wrote
    stamp: str  # RFC 3339 with nine digits of a second
    text: str  # bytes that are no UTF-8 are lone surrogates (surrogateescape)
    whole: bool = True  # False: the line goes on in the next row of its stream


class LogHit(NamedTuple):
    """A row that matches the search."""

    row: int  # its number among the rows that the query keeps
    number: int  # which hit it is, from 1


class LogExtent(NamedTuple):
    """How much of a book is known. Rows are numbered from `first` (0, unless the oldest files were dropped meanwhile) to
    `end` - 1 among those that the query keeps."""

    first: int
    end: int
    total: int  # rows of the book, kept or not
    hits: int
    share: float  # of the bytes that were looked at with the present query and search; 1: all
