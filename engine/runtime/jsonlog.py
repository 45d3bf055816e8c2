"""A container's log in Docker's json-file form: `{"log":"…\\n","stream":"stdout","time":"…"}` a line.

Exact: the `log` strings of one stream, joined and encoded with utf-8/surrogateescape, are the bytes the program wrote.
(A byte that is no UTF-8 is written as a lone surrogate `\\udcXX`; other readers show U+FFFD, as Docker itself would.)
Lines longer than 16 KiB are split like Docker's; so is a last line without a newline, which gets none. What arrives in one
read has one time stamp.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from json.encoder import encode_basestring

MAX_LINE = 16384
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_OPEN = b'{"log":"'
# Everything that may stand in a JSON string as it is, and the newline: what is left after deleting these needs care.
_PLAIN = bytes([10, *range(32, 256)])
_ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\x1b", b"\\u001b"))


def stamp(ns: int) -> str:
    """RFC3339Nano as Go prints it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


class Splitter:
    """Cuts one stream into records; keeps the unfinished line until its end comes, or 16 KiB of it. `extra` goes into
    every record: `,"attrs":{…}` or nothing."""

    def __init__(self, stream: str, extra: bytes = b"") -> None:
        self._tail = f'","stream":"{stream}"'.encode() + extra + b',"time":"'
        self._carry = b""

    def feed(self, data: bytes, when: int) -> bytes:
        if self._carry:
            data = self._carry + data
        cut = data.rfind(b"\n") + 1
        block, self._carry = data[:cut], data[cut:]
        end = self._tail + stamp(when).encode() + b'"}\n'
        records = _whole_lines(block, end) if block else b""
        if len(self._carry) >= MAX_LINE:
            pieces = []
            while len(self._carry) >= MAX_LINE:
                pieces.append(self._carry[:MAX_LINE])
                self._carry = self._carry[MAX_LINE:]
            records += _records(pieces, end)
        return records

    def finish(self, when: int) -> bytes:
        """What was left without a newline."""
        rest, self._carry = self._carry, b""
        return _records([rest], self._tail + stamp(when).encode() + b'"}\n') if rest else b""


def _whole_lines(block: bytes, end: bytes) -> bytes:
    """The records of whole lines. The usual ones are escaped all at once, at the speed of memchr(3)."""
    text = block
    for character, escaped in _ESCAPES:
        if character in text:
            text = text.replace(character, escaped)
    if text.translate(None, _PLAIN) or not _is_utf8(block) or not _lines_are_short(block):
        return _records(_pieces(block), end)
    return (_OPEN + text.replace(b"\n", b"\\n" + end + _OPEN))[: -len(_OPEN)]


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines_are_short(block: bytes) -> bool:
    at, size = 0, len(block)
    while size - at > MAX_LINE:
        newline = block.rfind(b"\n", at, at + MAX_LINE)
        if newline < 0:
            return False
        at = newline + 1
    return True


def _pieces(block: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    for text in block.split(b"\n")[:-1]:
        while len(text) >= MAX_LINE:
            pieces.append(text[:MAX_LINE])
            text = text[MAX_LINE:]
        pieces.append(text + b"\n")
    return pieces


def _records(pieces: list[bytes], end: bytes) -> bytes:
    # encode_basestring gives the closing quote that `end` begins with; backslashreplace writes a byte that is no UTF-8,
    # here a lone surrogate, in JSON's own notation.
    tail = end[1:].decode()
    encode = encode_basestring
    records = [f'{{"log":{encode(piece.decode("utf-8", "surrogateescape"))}{tail}' for piece in pieces]
    return "".join(records).encode("utf-8", "backslashreplace")


class Log:
    """The file, opened for appending, and the older ones beside it: `NAME.1`, `NAME.2`, … or `.gz`, the newest first.

    What cannot be written (a full disk) is kept; `blocked` until it could be. A file is put aside before the write that
    follows the one that made it reach `max_size` bytes (0: never); `max_files` counts it too, so 1 keeps no older ones.
    `compress` is called with the path of a file put aside and a function to call when that is done. Meanwhile nothing more is
    put aside: when the next file is full before that, the log is `blocked`, and `ready` is called once it no longer is (as
    Docker, whose writer waits too: with a limit a log is never larger for being written fast). Several containers may write to one path: whoever puts it aside holds its lock, the others notice.
    """

    def __init__(
        self,
        path: str,
        *,
        max_size: int = 0,
        max_files: int = 1,
        compress: Callable[[str, Callable[[], None]], None] | None = None,
        extra: bytes = b"",
    ) -> None:
        self.extra = extra
        self._path, self._max_size, self._max_files = path, max_size, max_files
        self._compress, self._compressing = compress, False
        self.ready: Callable[[], None] = lambda: None
        self._pending = b""
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self.close()
        self._fd, self._size = fd, os.fstat(fd).st_size
        # A record that a crash cut short must not swallow the first of this run.
        if self._size and os.pread(fd, 1, self._size - 1) != b"\n" and not self._pending:
            self._pending = b"\n"

    @property
    def blocked(self) -> bool:
        return len(self._pending) > 1

    def write(self, records: bytes) -> None:
        """One write(2) for a batch, so that containers sharing a file do not cut each other's records."""
        self._pending = self._pending + records if self._pending else records
        self.flush()

    def flush(self) -> None:
        try:
            while self._pending:
                part = self._next() if self._max_size else self._pending  # first: it may exchange the file
                if not part:
                    return
                done = os.write(self._fd, part)
                self._size += done
                self._pending = self._pending[done:]
        except OSError as error:
            if error.errno not in _FULL:
                raise

    def _next(self) -> bytes:
        """What of the pending records still goes into this file: up to and including the one that fills it. Nothing while
        it is full and the one before is being compressed."""
        there = _stat(self._path)
        mine = os.fstat(self._fd)
        if there is not None and (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            self._open()  # the monitor of another container has put it aside
        else:
            self._size = mine.st_size
        if self._size >= self._max_size and not self._compressing:
            self._put_aside()
        if self._size >= self._max_size and self._compressing:
            return b""
        cut = self._pending.find(b"\n", max(self._max_size - self._size - 1, 0)) + 1
        return self._pending[:cut] if cut else self._pending

    def _put_aside(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            mine, there = os.fstat(self._fd), _stat(self._path)
            if there is not None and (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                self._shift()
            elif there is not None and there.st_size < self._max_size:
                self._open()  # another container's monitor has done it
                return
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._open()
        if self._compress is not None and self._max_files > 1 and os.path.exists(f"{self._path}.1"):
            self._compressing = True
            self._compress(f"{self._path}.1", self._compressed)

    def _shift(self) -> None:
        if self._max_files < 2:
            os.unlink(self._path)
            return
        for ending in ("", ".gz"):
            _unlink(f"{self._path}.{self._max_files - 1}{ending}")
        for number in range(self._max_files - 2, 0, -1):
            for ending in ("", ".gz"):
                try:
                    os.rename(f"{self._path}.{number}{ending}", f"{self._path}.{number + 1}{ending}")
                except FileNotFoundError:
                    pass
        os.rename(self._path, f"{self._path}.1")

    def _compressed(self) -> None:
        self._compressing = False
        if self._pending:
            self.flush()
            if not self.blocked:
                self.ready()

    def settled(self) -> bool:
        """At the end: whether every line is in the file."""
        self.flush()
        return not self.blocked

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def compress_file(path: str) -> None:
    """Turns `path` into `path.gz`. The header's name field holds the inode number of the original, by which a reader
    that still has it open finds its place among the older files (RFC 1952)."""
    import gzip  # in a process of its own: the monitor does not carry it

    temporary = f"{path}.gz.new"
    with open(path, "rb") as source, open(temporary, "wb", opener=_private) as raw:
        status = os.fstat(source.fileno())
        with gzip.GzipFile(str(status.st_ino), "wb", 6, raw, mtime=status.st_mtime) as target:
            while block := source.read(1 << 18):
                target.write(block)
    os.rename(temporary, f"{path}.gz")
    os.unlink(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
