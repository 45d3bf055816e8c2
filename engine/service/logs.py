"""Reading a container's json-file log: from the start, the last lines, or on and on as it grows.

A line is Docker's record `{"log": "…\\n", "stream": "stdout", "time": "…"}`; a record whose text has no newline is a part of a
longer line and is joined with what follows in the same stream. A torn record (a crash, a full disk) is skipped, not fatal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engine.base.clock import parse_rfc3339
from engine.errors import NotFound, from_os_error
from engine.model import LogLine

BLOCK = 1 << 16


def open_log(path: Path) -> BinaryIO:
    """Opens a log for reading. It must be a regular file: a link in its place is not followed (CVE-2026-53489)."""
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        raise NotFound(f"no log at {path}") from None
    except OSError as error:
        raise from_os_error(error, "reading a log") from error


class LogReader:
    """Turns the bytes of a log into lines; keeps what is incomplete until more arrives."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file = file
        self._file.seek(offset)
        self._offset = offset
        self._rest = b""
        self._parts: dict[str, str] = {}

    def lines(self) -> Iterator[LogLine]:
        """Every whole line there is now."""
        while block := self._file.read(1 << 20):
            data = self._rest + block
            records = data.split(b"\n")
            self._rest = records.pop()
            for record in records:
                self._offset += len(record) + 1
                yield from self._line(record)

    def _line(self, record: bytes) -> Iterator[LogLine]:
        try:
            entry = json.loads(record)
            text, stream, time = entry["log"], entry["stream"], parse_rfc3339(entry["time"])
        except (ValueError, KeyError, TypeError):
            return
        text = self._parts.pop(stream, "") + text
        if not text.endswith("\n"):
            self._parts[stream] = text
            return
        yield LogLine(text[:-1], stream, time, self._offset)


def tail_offset(file: BinaryIO, count: int) -> int:
    """The offset from which about `count` records remain."""
    end = position = os.fstat(file.fileno()).st_size
    found = 0
    while position > 0 and found <= count:
        step = min(BLOCK, position)
        position -= step
        block = os.pread(file.fileno(), step, position)
        for index in range(len(block) - 1, -1, -1):
            if block[index] == 10:
                found += 1
                if found > count:
                    return position + index + 1
    return 0 if count > 0 else end


def rule_record(text: str, stamp: str) -> bytes:
    """A "workbench" line: what the inner loop says between two generations of a service."""
    return json.dumps({"log": text + "\n", "stream": "workbench", "time": stamp}, ensure_ascii=False).encode() + b"\n"
