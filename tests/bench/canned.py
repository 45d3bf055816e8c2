"""A server that works for nothing: it answers at once, with what was recorded of a daemon. What the `docker` client takes beside it
is the client's own time, and no engine can be quicker than that."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from start import Api

HEAD = b"HTTP/1.1 %b\r\nApi-Version: 1.41\r\nOstype: linux\r\nContent-Type: application/json\r\n"
Answers = dict[tuple[str, str], bytes]


def whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return HEAD % status + b"Content-Length: %d\r\n\r\n" % len(body) + body


def recorded(api: Api, *paths: str) -> Answers:
    """GET answers of a daemon, byte for byte."""
    found = {}
    for path in paths:
        api.request("GET", f"/v1.41{path}")
        answer = api.getresponse()
        kind = answer.headers.get("Content-Type", "application/octet-stream").encode()
        body = answer.read()
        found["GET", path.partition("?")[0]] = whole(body).replace(b"application/json", kind, 1)
    return found


def of_run() -> Answers:
    """`docker run --rm` of what says nothing. Attach and wait end when the start was asked for."""
    one = b"0" * 64
    return {
        ("POST", "/containers/create"): whole(b'{"Id":"%b","Warnings":[]}' % one, b"201 Created"),
        ("POST", "*/attach"): b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        ("POST", "*/wait"): HEAD % b"200 OK" + b"Transfer-Encoding: chunked\r\n\r\n",
        ("POST", "*/start"): b"HTTP/1.1 204 No Content\r\nApi-Version: 1.41\r\n\r\n",
    }


def of_build() -> Answers:
    return {("POST", "/build"): whole(b'{"stream":"sha256:%b\\n"}\r\n' % (b"0" * 64))}


class _Client:
    def __init__(self, sock: socket.socket, answers: Answers, started: threading.Event) -> None:
        self._sock, self._answers, self._started, self._buffer = sock, answers, started, b""

    def _more(self) -> bool:
        data = self._sock.recv(1 << 16)
        self._buffer += data
        return bool(data)

    def serve(self) -> None:
        with self._sock:
            while self._one():
                pass

    def _one(self) -> bool:
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return False
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            while not self._buffer.endswith(b"0\r\n\r\n"):
                self._more()
            self._buffer = b""
        elif length := re.search(rb"content-length: (\d+)", head, re.IGNORECASE):
            while len(self._buffer) < int(length[1]):
                self._more()
            self._buffer = self._buffer[int(length[1]) :]
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        path = re.sub(r"^/v[\d.]+", "", target.partition("?")[0])
        return self._answer(method, path)

    def _answer(self, method: str, path: str) -> bool:
        if path == "/_ping":
            self._sock.sendall(HEAD % b"200 OK" + b"Content-Length: 0\r\n\r\n")
            return True
        verb = "*/" + path.rpartition("/")[2]
        self._sock.sendall(self._answers.get((method, path)) or self._answers[method, verb])
        if verb == "*/start":
            self._started.set()
        elif verb == "*/attach":
            self._started.wait()
            return False
        elif verb == "*/wait":
            self._started.wait()
            self._sock.sendall(b'12\r\n{"StatusCode": 0}\n\r\n0\r\n\r\n')
        return True


@contextlib.contextmanager
def canned(path: Path, answers: Answers) -> Iterator[str]:
    """The socket of one that has these answers."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(16)
        started = threading.Event()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    threading.Thread(target=_Client(sock, answers, started).serve, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield str(path)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            path.unlink()
