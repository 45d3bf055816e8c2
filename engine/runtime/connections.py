"""What a caller holds of a running process: an attached container, an exec. Blocking; one reader, any writers."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

from engine.errors import Unavailable
from engine.linux import pty
from engine.runtime import protocol

_CHUNK = 65536


class AttachConnection:
    """A container's output from the moment of attaching, and its stdin. Closing it leaves the container alone."""

    def __init__(self, sock: socket.socket, *, tty: bool, buffered: bytes = b"") -> None:
        self._sock = sock
        self._buffer = bytearray(buffered)
        self._write_lock = threading.Lock()
        self._exit: int | None = None
        self.tty = tty

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self) -> tuple[str, bytes] | None:
        """The next ("stdout" or "stderr", bytes); None when the container has ended or its monitor is gone."""
        while self._exit is None:
            item = protocol.take_frame(self._buffer)
            if item is None:
                try:
                    data = self._sock.recv(_CHUNK)
                except OSError:
                    return None
                if not data:
                    return None
                self._buffer += data
            elif item[0] == protocol.EXIT:
                self._exit = int(item[1])
            elif item[0] in protocol.STREAM_NAMES:
                return protocol.STREAM_NAMES[item[0]], item[1]
        return None

    def _send(self, kind: int, payload: bytes = b"") -> None:
        with self._write_lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(protocol.frame(kind, payload))

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK):
            self._send(protocol.STDIN, data[start : start + _CHUNK])

    def close_stdin(self) -> None:
        self._send(protocol.STDIN_EOF)

    def resize(self, rows: int, columns: int) -> None:
        self._send(protocol.RESIZE, rows.to_bytes(2, "big") + columns.to_bytes(2, "big"))

    def detach(self) -> None:
        """Lets go as the detach keys do: the program's stdin stays open, and `events` tells it."""
        self._send(protocol.DETACH)

    def wait(self) -> int:
        """Reads on to the end and returns the exit code."""
        while self.read() is not None:
            pass
        if self._exit is None:
            raise Unavailable("the connection to the container's monitor broke off before it ended")
        return self._exit

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class ExecConnection:
    """A process started by exec: its streams are pipes (or a terminal) held here, its exit comes from the monitor."""

    def __init__(
        self,
        reader: protocol.LineReader,
        pid: int,
        identity: str,
        *,
        stdin: int,
        outputs: dict[int, str],
        master: int,
    ) -> None:
        self.id = identity
        self._reader = reader
        self._stdin = stdin
        self._outputs = outputs
        self._master = master
        self._exit: int | None = None
        self._lost = False
        self._write_lock = threading.Lock()
        self._poll = select.epoll()
        for fd in outputs:
            self._poll.register(fd, select.EPOLLIN)
        self._poll.register(reader.sock.fileno(), select.EPOLLIN)
        self.pid = pid
        self.tty = master >= 0

    def fileno(self) -> int:
        """Readable when `read` or `wait` has something."""
        return self._poll.fileno()

    def read(self) -> tuple[str, bytes] | None:
        """The next ("stdout" or "stderr", bytes); None at the end of both, or once the process has ended and what it
        wrote is read (something it left behind may hold the streams open for ever)."""
        while self._outputs:
            ended = self._exit is not None or self._lost
            ready = [fd for fd, _events in self._poll.poll(0 if ended else None)]
            for fd in ready:
                if fd in self._outputs:
                    data = self._read(fd)
                    if data:
                        return self._outputs[fd], data
                    self._drop(fd)
            if ended and not any(fd in self._outputs for fd in ready):
                return None
            if not ended and self._reader.sock.fileno() in ready:
                self._hear()
        return None

    def _read(self, fd: int) -> bytes:
        try:
            return os.read(fd, _CHUNK)
        except OSError:  # EIO: the terminal's other side is closed
            return b""

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._outputs[fd]
        if fd != self._master:
            os.close(fd)

    def _hear(self) -> None:
        message = self._reader.take()
        if message is None:
            try:
                alive = self._reader.fill()
            except OSError:
                alive = False
            message = self._reader.take()
            if message is None:
                self._lost = not alive
        if message is not None and "exit_code" in message:
            self._exit = int(message["exit_code"])
        if self._exit is not None or self._lost:
            self._poll.unregister(self._reader.sock.fileno())

    def write(self, data: bytes) -> None:
        fd = self._master if self.tty else self._stdin
        with self._write_lock, contextlib.suppress(BrokenPipeError):
            while data and fd >= 0:
                data = data[os.write(fd, data) :]

    def close_stdin(self) -> None:
        with self._write_lock:
            if self._stdin >= 0:
                os.close(self._stdin)
                self._stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            pty.resize(self._master, rows, columns)

    def detach(self) -> None:
        """Lets go as the detach keys do. The terminal goes back to the monitor, or the process would be hung up."""
        if self._master >= 0:
            with contextlib.suppress(OSError):
                protocol.send_line(self._reader.sock, {"op": "exec_detach", "id": self.id}, [self._master])
                self._reader.read()

    def wait(self) -> int:
        """The exit code. Read the output first: a process that fills a pipe nobody reads does not end."""
        while self._exit is None and not self._lost:
            self._hear()
        if self._exit is None:
            raise Unavailable("the connection to the container's monitor broke off before the process ended")
        return self._exit

    def close(self) -> None:
        self.close_stdin()
        for fd in list(self._outputs):
            self._drop(fd)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        self._poll.close()
        self._reader.close_fds()
        self._reader.sock.close()
