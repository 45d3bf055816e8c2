"""A container's log in Docker's json-file form: `{"log":"…\\n","stream":"stdout","time":"…"}` a line.

Exact: the `log` strings of one stream, joined and encoded with utf-8/surrogateescape, are the bytes the program wrote.
(A byte that is no UTF-8 is written as a lone surrogate `\\udcXX`; other readers show U+FFFD, as Docker itself would.)
Lines longer than 16 KiB are split like Docker's; so is a last line without a newline, which gets none.
"""

from __future__ import annotations

import errno
import os
import time
from json.encoder import encode_basestring_ascii

MAX_LINE = 16384
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def stamp(ns: int) -> str:
    """RFC3339Nano as Go prints it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


class Splitter:
    """Cuts one stream into records; keeps the unfinished line until its end comes, or 16 KiB of it."""

    def __init__(self, stream: str) -> None:
        self._tail = f',"stream":"{stream}","time":"'
        self._carry = b""

    def feed(self, data: bytes, when: int) -> bytes:
        lines = (self._carry + data).split(b"\n")
        self._carry = lines.pop()
        pieces: list[bytes] = []
        for text in lines:
            if len(text) >= MAX_LINE:
                while len(text) > MAX_LINE - 1:
                    pieces.append(text[:MAX_LINE])
                    text = text[MAX_LINE:]
            pieces.append(text + b"\n")
        while len(self._carry) >= MAX_LINE:
            pieces.append(self._carry[:MAX_LINE])
            self._carry = self._carry[MAX_LINE:]
        return self._records(pieces, when)

    def finish(self, when: int) -> bytes:
        """What was left without a newline."""
        rest, self._carry = self._carry, b""
        return self._records([rest], when) if rest else b""

    def _records(self, pieces: list[bytes], when: int) -> bytes:
        end = f'{self._tail}{stamp(when)}"}}\n'
        encode = encode_basestring_ascii
        return "".join([f'{{"log":{encode(p.decode("utf-8", "surrogateescape"))}{end}' for p in pieces]).encode("ascii")


class LogFile:
    """The file, opened for appending. What cannot be written (a full disk) is kept; `blocked` until it could be."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self._pending = b""
        size = os.fstat(self._fd).st_size
        # A record that a crash cut short must not swallow the first of this run.
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._pending = b"\n"

    @property
    def blocked(self) -> bool:
        return len(self._pending) > 1

    def write(self, records: bytes) -> None:
        """One write(2) for a batch, so that containers sharing a file do not cut each other's records."""
        self._pending += records
        self.flush()

    def flush(self) -> None:
        while self._pending:
            try:
                done = os.write(self._fd, self._pending)
            except OSError as error:
                if error.errno in _FULL:
                    return
                raise
            self._pending = self._pending[done:]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
