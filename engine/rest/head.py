"""A request's line and headers (RFC 9112 sections 3 and 5), in one piece where they are as plain as clients of an API send them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

import h11

from engine.errors import InvalidInput
from engine.rest.http import Body, Query, Request

MAX_BYTES = 64 << 10  # of request line and headers; dockerd takes 1 MiB, no client of it comes near this
MAX_WHOLE = 16 << 10  # bytes of a body that is read together with its head

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_LINE = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (/[!-~]*) HTTP/1\.1\r\n")
_FIELD = re.compile(rb"(%b+):[ \t]*((?:[!-~\x80-\xff]+(?:[ \t]+[!-~\x80-\xff]+)*)?)[ \t]*\r\n" % _TOKEN)
_CONNECTION = frozenset(("", "keep-alive", "close", "upgrade"))


@dataclass(slots=True)
class Simple:
    """`length` of the head, `size` with the body, in bytes; `last`: the client closes after it."""

    method: str
    target: str
    headers: dict[str, str]
    length: int
    size: int
    last: bool

    def request(self, body: Body) -> Request:
        return _request(self.method, self.target, self.headers, body)


def parse(data: bytearray) -> Simple | None:
    """The request that `data` begins with; None where h11 should look at it: it is not whole, unusual, or malformed."""
    end = data.find(b"\r\n\r\n", 0, MAX_BYTES) + 4
    line = _LINE.match(data, 0, end)
    if end < 4 or line is None:
        return None
    headers: dict[str, str] = {}
    at = line.end()
    while at < end - 2:
        field = _FIELD.match(data, at, end)
        if field is None:
            return None
        name = field[1].decode("ascii").lower()
        if name in headers:
            return None
        headers[name] = field[2].decode("latin-1")
        at = field.end()
    connection, length = headers.get("connection", "").lower(), headers.get("content-length", "0")
    if (
        "host" not in headers
        or "transfer-encoding" in headers
        or "expect" in headers
        or connection not in _CONNECTION
        or not (length.isascii() and length.isdigit() and len(length) < 9)
        or int(length) > MAX_WHOLE
    ):
        return None
    method, target = line[1].decode("ascii"), line[2].decode("ascii")
    return Simple(method, target, headers, end, end + int(length), connection == "close")


def has_body(event: h11.Request) -> bool:
    headers = dict(event.headers)
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def closes(event: h11.Request) -> bool:
    tokens = [
        token.strip().lower() for name, value in event.headers if name == b"connection" for token in value.split(b",")
    ]
    return b"close" in tokens


def request(event: h11.Request, body: Body) -> Request:
    """Raises `InvalidInput`."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
    if "transfer-encoding" in headers and "content-length" in headers:
        raise InvalidInput("both Content-Length and Transfer-Encoding")  # RFC 9112 section 6.3: smuggling
    return _request(event.method.decode("ascii"), event.target.decode("latin-1"), headers, body)


def _request(method: str, target: str, headers: Mapping[str, str], body: Body) -> Request:
    path, _, text = target.partition("#")[0].partition("?")
    path = unquote(path if path.startswith("/") else f"/{path}")
    if "\0" in path or "\n" in path or "\r" in path:
        raise InvalidInput("the path holds a control character")
    return Request(method, path, query(text), headers, body, (0, 0))


def query(text: str) -> Query:
    """Raises `InvalidInput`."""
    try:
        return Query(parse_qs(text, keep_blank_values=True, max_num_fields=1000) if text else {})
    except ValueError as error:
        raise InvalidInput(f"the query string is malformed: {error}") from None
