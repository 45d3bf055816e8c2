"""HTTP/1.1 to registries over one connection (RFC 9112), as far as they speak it; small, because every command that pulls loads it,
and strict, because who answers may be hostile: heads are bounded, framing that can be read in two ways is an error.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engine.registry.proxies import Proxy
from engine.registry.url import Url

if TYPE_CHECKING:
    import io

_READ = 1 << 18
_DRAINED = 64_000  # bytes of an unread answer that are read to keep its connection
_LINE, _HEAD_LINES, _INFORMAL = 32_768, 200, 10  # bytes of a line, lines of a head, answers before the answer
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_UNFIT = re.compile(r"[\x00-\x1f\x7f]")
Body = Iterable[bytes] | bytes | None


class Broken(Exception):
    """No HTTP answer, or not all of it. `connecting`: the connection was not made."""

    def __init__(self, *, connecting: bool) -> None:
        super().__init__()
        self.connecting = connecting


class NotHttp(Exception):
    """What arrives is no HTTP that can be understood."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who is spoken to, how, and trusting whom: connections of equal routes are as good as each other."""

    scheme: str
    host: str
    port: int
    verify: bool
    certificates: Path | None
    proxy: Proxy | None


class Headers(Mapping[str, str]):
    """Of an answer, by lower-case name; several of one name are joined by commas (RFC 9110 5.3)."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._lists: dict[str, list[str]] = {}
        for name, value in pairs:
            self._lists.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._lists[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def get_list(self, name: str) -> list[str]:
        return list(self._lists.get(name.lower(), ()))


class Connection:
    """One request after the other. Methods raise OSError, NotHttp."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = cast("io.BufferedReader", sock.makefile("rb", 1 << 16))

    @classmethod
    def open(cls, route: Route, timeout: float, trust: Callable[[], ssl.SSLContext]) -> Connection:
        """Raises `Broken`."""
        at = (route.proxy.host, route.proxy.port) if route.proxy else (route.host, route.port)
        sock: socket.socket | None = None
        try:
            sock = socket.create_connection(at, timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if route.proxy and route.scheme == "https":
                _tunnel(sock, route, route.proxy)
            if route.scheme == "https":
                sock = trust().wrap_socket(sock, server_hostname=route.host)
        except (OSError, NotHttp, ValueError) as error:
            if sock is not None:
                sock.close()
            raise Broken(connecting=True) from error
        return cls(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        self.sock.close()

    @property
    def stale(self) -> bool:
        """What a server says without being asked is that it has closed, or is not to be understood."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poller.poll(0))

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> Head:
        """Sends a request and reads the head of its answer."""
        return self.answer(method, self.ask(method, target, headers, body))

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> OSError | None:
        """Sends a request. What kept it from being sent whole, for `answer`: a server may answer before it has read all."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any(_UNFIT.search(line) for line in lines):
            raise ValueError("a control character in a request")
        try:
            head = "\r\n".join([*lines, "", ""]).encode("latin-1")
            self.sock.sendall(head + body if isinstance(body, bytes) else head)
            if body is not None and not isinstance(body, bytes):
                for part in body:
                    self.sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError) as error:
            return error
        return None

    def answer(self, method: str, sent: OSError | None = None) -> Head:
        """The head of the answer to what was asked; with what was wrong, where it says so."""
        try:
            return self._head(method, keep=sent is None)
        except (OSError, NotHttp) as error:
            raise sent or error from error

    def _head(self, method: str, *, keep: bool) -> Head:
        for _ in range(_INFORMAL):
            status, keeps = self._status()
            headers = Headers(self._fields())
            if status >= 200 or status == 101:
                break
        else:
            raise NotHttp("it answers that it will answer, without end")
        length, chunked = _framing(method, status, headers)
        closes = length is None and not chunked
        keeps = keeps and "close" not in headers.get("connection", "").lower()
        return Head(status, headers, length, chunked, keep and keeps and not closes)

    def _status(self) -> tuple[int, bool]:
        line = self.line()
        match = _STATUS.fullmatch(line)
        if match is None:
            raise NotHttp("it does not speak HTTP" if line else "it closed the connection without an answer")
        return int(match[2]), match[1] == b"1"

    def _fields(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for _ in range(_HEAD_LINES):
            line = self.line()
            if not line:
                return found
            name, colon, value = line.partition(b":")
            if line[:1] in b" \t" and found:  # a folded line (RFC 9112 5.2)
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip().decode('latin-1')}")
            elif colon and _NAME.fullmatch(name):
                found.append((name.decode(), value.strip(b" \t").decode("latin-1")))
            else:
                raise NotHttp("a line of its answer's head is no field")
        raise NotHttp("its answer's head has no end")

    def line(self) -> bytes:
        """Without its end; b"" also at the end of the stream."""
        line = self.file.readline(_LINE + 1)
        if line and not line.endswith(b"\n"):
            raise NotHttp("a line of its answer has no end")
        return line.rstrip(b"\r\n")


@dataclass(frozen=True, slots=True)
class Head:
    """`length` None: chunked, or until the connection ends. `keeps`: another request may follow on the connection."""

    status: int
    headers: Headers
    length: int | None
    chunked: bool
    keeps: bool


def _framing(method: str, status: int, headers: Headers) -> tuple[int | None, bool]:
    """The body's length, or whether it is chunked (RFC 9112 6.3)."""
    if method == "HEAD" or status in (204, 304):
        return 0, False
    codings, lengths = headers.get("transfer-encoding", "").lower(), set(headers.get_list("content-length"))
    if codings:
        if codings != "chunked" or lengths:
            raise NotHttp("its answer has a length that can be understood in two ways")
        return None, True
    if len(lengths) > 1 or any(not (one.isascii() and one.isdecimal() and len(one) < 19) for one in lengths):
        raise NotHttp("its answer has a length that is no number")
    return (int(lengths.pop()) if lengths else None), False


def _tunnel(sock: socket.socket, route: Route, proxy: Proxy) -> None:
    """A way through a proxy (CONNECT, RFC 9110 9.3.6). Raises OSError, NotHttp."""
    host = f"[{route.host}]" if ":" in route.host else route.host
    headers = {"Host": f"{host}:{route.port}"}
    if proxy.authorization:
        headers["Proxy-Authorization"] = proxy.authorization
    through = Connection(sock)
    try:
        answer = through.exchange("CONNECT", f"{host}:{route.port}", headers, None)
    finally:
        through.file.close()
    if answer.status != 200:
        raise NotHttp(f"the proxy {proxy.host}:{proxy.port} answered {answer.status}")


class Response:
    """An answer whose body is still to be read. Close it after use."""

    def __init__(self, url: Url, connection: Connection, head: Head, done: Callable[[bool], None]) -> None:
        self.url, self.status_code, self.headers = url, head.status, head.headers
        self._connection, self._head, self._done = connection, head, done
        self._left = head.length
        self._open = True

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, undecoded (a decoder could be fed a bomb). Raises `Broken`."""
        try:
            if self._head.chunked:
                yield from self._chunked()
            while self._left is None or self._left > 0:
                data = self._connection.file.read1(_READ if self._left is None else min(self._left, _READ))
                if not data and self._left:
                    raise EOFError("the answer ended early")
                self._left = 0 if not data else None if self._left is None else self._left - len(data)
                if data:
                    yield data
        except (OSError, EOFError, NotHttp, ValueError) as error:
            self._end(whole=False)
            raise Broken(connecting=False) from error

    def _chunked(self) -> Iterator[bytes]:
        while self._left is None:
            match = _SIZE.fullmatch(self._connection.line())
            if match is None:
                raise EOFError("the answer ended early")
            size = int(match[1], 16)
            if not size:
                for _ in range(_HEAD_LINES):  # trailers: nothing that is needed
                    if not self._connection.line():
                        self._left = 0
                        return
                raise NotHttp("its answer's trailers have no end")
            while size:
                data = self._connection.file.read1(min(size, _READ))
                if not data:
                    raise EOFError("the answer ended early")
                size -= len(data)
                yield data
            if self._connection.line():
                raise NotHttp("a part of its answer is longer than it said")

    def close(self) -> None:
        if self._open and self._left is not None and self._left <= _DRAINED:
            with contextlib.suppress(Broken):
                for _ in self.chunks():
                    pass
        self._end(whole=self._left == 0)

    def _end(self, *, whole: bool) -> None:
        if self._open:
            self._open = False
            self._done(whole and self._head.keeps)
