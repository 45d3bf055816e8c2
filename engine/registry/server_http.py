"""The HTTP side of the registry server: answers, bodies, ranges.

RFC 9112 for bodies, RFC 9110 for ranges. One connection, one thread.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

IDLE_SECONDS = 60
CHUNK = 1 << 18
_SENT_AT_ONCE = 4 << 20  # bytes between two reports


class Refused(Exception):
    """An answer of the specification's errors: status, code, words."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class Answering(BaseHTTPRequestHandler):
    """A request's body in, an answer out."""

    protocol_version = "HTTP/1.1"
    server_version = "container-workbench"
    sys_version = ""
    timeout = IDLE_SECONDS
    _unread = 0  # bytes of the body that were not read
    _chunked = False

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _plain_length(self) -> bool:
        return (self.headers.get("Content-Length") or "0").isdecimal()

    # --- answers ----------------------------------------------------------------------------------------

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        if self._unread or self._chunked:
            self.close_connection = True  # what is left of the body would be read as the next request
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, document: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, error: Refused) -> None:
        body = json.dumps({"errors": [{"code": error.code, "message": error.message}]}).encode()
        with contextlib.suppress(OSError):
            self._send(error.status, body, {"Content-Type": "application/json", **error.headers})

    def _range(self, size: int) -> tuple[int, int, int]:
        match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", self.headers.get("Range", ""))
        if match is None or match.groups() == ("", ""):
            return 0, size, 200
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= end:
            raise Refused(416, "RANGE_INVALID", "there are no such bytes", {"Content-Range": f"bytes */{size}"})
        return start, end, 206

    def _pour(self, blob: Any, start: int, end: int, sent: Callable[[int], None]) -> None:
        """The bytes from `start` to `end`; `sent` hears now and then how far it is."""
        if isinstance(self.connection, ssl.SSLSocket):
            blob.seek(start)
            while start < end and (data := blob.read(min(end - start, CHUNK))):
                self.wfile.write(data)
                start += len(data)
                sent(start)
            return
        self.wfile.flush()
        while start < end:
            # sendfile(2) on a socket with a timeout: Python waits for it to be writable.
            done = self.connection.sendfile(blob, start, min(end - start, _SENT_AT_ONCE))
            if not done:
                raise ConnectionError("the client went away")
            start += done
            sent(start)

    def _body(self, limit: int | None) -> Iterator[bytes]:
        """The request's body; `Refused` when it is longer than `limit`, ConnectionError when it is cut off."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # BaseHTTPRequestHandler has answered it before the handler runs
        total = 0
        for data in self._chunks() if self._chunked else self._plain():
            total += len(data)
            if limit is not None and total > limit:
                raise Refused(413, "MANIFEST_INVALID", f"it is longer than {limit} bytes")
            yield data

    def _plain(self) -> Iterator[bytes]:
        while self._unread:
            data = self.rfile.read1(min(self._unread, CHUNK))
            if not data:
                raise ConnectionError("the body is cut off")
            self._unread -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        """RFC 9112, 7.1."""
        while True:
            line = self.rfile.readline(1024)
            head = line.split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", head):
                raise ConnectionError("the body's chunks are damaged")
            left = int(head, 16)
            if left == 0:
                while self.rfile.readline(8192) not in (b"\r\n", b"\n", b""):
                    pass
                self._chunked = False
                return
            while left:
                data = self.rfile.read1(min(left, CHUNK))
                if not data:
                    raise ConnectionError("the body is cut off")
                left -= len(data)
                yield data
            self.rfile.readline(16)
