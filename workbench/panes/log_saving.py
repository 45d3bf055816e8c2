"""Rows of a log as text, and into a file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from engine.api import LogBook, LogRow
from engine.errors import from_os_error
from workbench.widgets import log_format

BATCH = 5000  # rows in memory at a time


class Saved(NamedTuple):
    path: Path
    rows: int


def text_of(rows: Sequence[LogRow]) -> str:
    """To be pasted: as it is read, without what drives a terminal. Pieces of a long line are joined."""
    parts = [log_format.safe(row.text) + ("\n" if row.whole else "") for row in rows]
    return "".join(parts).removesuffix("\n")


def default_name(names: Sequence[str]) -> str:
    stem = names[0] if len(names) == 1 else "logs"
    return os.path.join("~", f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.log")


async def save_rows(
    book: LogBook, name: str, first: int, end: int, *, times: bool = False, names: Sequence[str] = ()
) -> Saved:
    """Kept rows `first` to `end` - 1 as the program wrote them, colours too. Raises `EngineError`: the file is not overwritten."""
    path = Path(name).expanduser()

    def begin() -> TextIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "x", encoding="utf-8", errors="surrogateescape")

    try:
        file = await asyncio.to_thread(begin)
        with file:
            written = 0
            while rows := await book.rows(first + written, min(BATCH, end - first - written)):
                await asyncio.to_thread(file.write, "".join(_line(row, times, names) for row in rows))
                written += len(rows)
    except OSError as error:
        raise from_os_error(error, f"saving to {path}") from error
    return Saved(path, written)


def _line(row: LogRow, times: bool, names: Sequence[str]) -> str:
    name = f"{names[row.source]} | " if len(names) > 1 else ""
    return f"{name}{row.stamp + ' ' if times else ''}{row.text}\n" if row.whole else row.text
