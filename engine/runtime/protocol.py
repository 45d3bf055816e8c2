"""How client, supervisor and monitor talk: JSON lines on unix sockets, then, for an attached stream, frames.

A frame is type (1 byte), length (4 bytes, big-endian), payload. Towards the client: STDOUT, STDERR, EXIT (payload: the
decimal exit code). Towards the monitor: STDIN, STDIN_EOF, RESIZE (rows and columns, 2 bytes each), DETACH.

A monitor outlives the program that started it, so engines meet older ones: operations are only ever added, and an
engine that gets `no operation` for a newer one does it with older ones or says what is missing. `ping` tells VERSION.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

VERSION = 3  # 2: no policy; 1: no stop, pause, unpause, execs; no DETACH frame
STDIN, STDOUT, STDERR, EXIT, STDIN_EOF, RESIZE, DETACH = 0, 1, 2, 3, 4, 5, 6
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}
MAX_LINE = 8 << 20
_HEADER = struct.Struct("!BI")


def frame(kind: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def take_frame(buffer: bytearray) -> tuple[int, bytes] | None:
    """The first whole frame of `buffer`, taken out of it; None if there is none yet."""
    if len(buffer) < 5:
        return None
    kind, size = _HEADER.unpack_from(buffer)
    if len(buffer) < 5 + size:
        return None
    payload = bytes(buffer[5 : 5 + size])
    del buffer[: 5 + size]
    return kind, payload


MOST_FDS = 253  # in one message: SCM_MAX_FD, unix(7)


def line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def send_line(sock: socket.socket, document: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Sends all of it; the descriptors ride on the first byte."""
    raw = line(document)
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        raw = raw[sock.sendmsg([raw], rights) :]
        if (
            not raw
        ):  # sendall makes a call for nothing too, and a peer that has answered and closed already makes that an EPIPE
            return
    sock.sendall(raw)


class LineReader:
    """Reads JSON lines, and the descriptors that came with them, off a blocking or non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.fds: list[int] = []

    def fill(self) -> bool:
        """One recvmsg. False at the end of the stream."""
        data, ancillary, _flags, _address = self.sock.recvmsg(
            65536, socket.CMSG_SPACE(4 * MOST_FDS), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self.fds.extend(numbers)
        self.buffer += data
        return bool(data)

    def take(self) -> dict[str, Any] | None:
        """The next whole line, None if there is none yet. Raises ValueError on what is no JSON object."""
        end = self.buffer.find(b"\n")
        if end < 0:
            if len(self.buffer) > MAX_LINE:
                raise ValueError("a line that does not end")
            return None
        document = json.loads(bytes(self.buffer[:end]))
        del self.buffer[: end + 1]
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        return document

    def read(self) -> dict[str, Any] | None:
        """Blocks for a line; None when the peer closed."""
        while True:
            document = self.take()
            if document is not None:
                return document
            if not self.fill():
                return None

    def close_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


@contextlib.contextmanager
def socket_path(folder: str, name: str) -> Iterator[str]:
    """A path for bind(2) and connect(2) that fits sun_path (108 bytes) however long `folder` is."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def listen(folder: str, name: str, backlog: int = 128) -> socket.socket:
    """Listens on `folder/name` (0600). What lay there is replaced at once: it listens before it has the name."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    temporary = f".{name}.{os.getpid()}"
    before = os.umask(0o177)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, temporary))
        with socket_path(folder, temporary) as path:
            sock.bind(path)
        sock.listen(backlog)
        os.rename(os.path.join(folder, temporary), os.path.join(folder, name))
    finally:
        os.umask(before)
    return sock


def connect(folder: str, name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with socket_path(folder, name) as path:
            sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end (SO_PEERCRED), as it was at connect(2)."""
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
