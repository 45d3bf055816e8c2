"""One call to a service on the system bus, with texts as arguments and a text as the answer (D-Bus Specification 0.43).

Standard library alone: monitors use it. A service that does not run is not started by it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

BUS = "/run/dbus/system_bus_socket"
_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 2
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_LONGEST = 1 << 20


class BusError(Exception):
    """The service answered with an error. `name` is D-Bus's, such as org.freedesktop.DBus.Error.NameHasNoOwner."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name


def call(service: str, path: str, interface: str, member: str, *words: str, timeout: float, bus: str = BUS) -> str:
    """The first text of the answer, "" for none. Raises BusError; OSError where there is no bus or it does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeout)
        sock.connect(bus)
        sock.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        if not _line(sock).startswith(b"OK "):
            raise OSError(errno.EACCES, "the system bus does not take this user")
        sock.sendall(b"BEGIN\r\n")
        name = "org.freedesktop.DBus"
        _ask(sock, 1, name, "/org/freedesktop/DBus", name, "Hello", ())
        return _ask(sock, 2, service, path, interface, member, words)


def _line(sock: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n"):
        byte = sock.recv(1)
        if not byte or len(found) > 1000:
            raise OSError(errno.EPROTO, "the system bus closed the connection")
        found += byte
    return found


def _ask(
    sock: socket.socket, serial: int, service: str, path: str, interface: str, member: str, words: Sequence[str]
) -> str:
    sock.sendall(message(serial, service, path, interface, member, words))
    while True:
        kind, fields, body = _receive(sock)
        if fields.get(_REPLY_SERIAL) != serial:  # a signal
            continue
        text = _text(body, 0)[0] if str(fields.get(_SIGNATURE, "")).startswith("s") else ""
        if kind == _ERROR:
            raise BusError(str(fields.get(_ERROR_NAME, "")), text)
        if kind == _RETURN:
            return text


# --- the wire --------------------------------------------------------------------------------------


def _pad(raw: bytes, size: int) -> bytes:
    return raw + b"\0" * (-len(raw) % size)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw + b"\0"


def message(serial: int, service: str, path: str, interface: str, member: str, words: Sequence[str]) -> bytes:
    """A method call with these texts."""
    fields = b""
    for code, kind, text in (
        (_PATH, b"o", path),
        (_INTERFACE, b"s", interface),
        (_MEMBER, b"s", member),
        (_DESTINATION, b"s", service),
    ):
        fields = _pad(fields, 8) + bytes((code, 1)) + kind + b"\0" + _string(text)
    if words:
        fields = _pad(fields, 8) + bytes((_SIGNATURE, 1)) + b"g\0" + bytes((len(words),)) + b"s" * len(words) + b"\0"
    body = b""
    for word in words:
        body = _pad(body, 4) + _string(word)
    head = struct.pack("<cBBBIII", b"l", _CALL, _NO_AUTO_START, 1, len(body), serial, len(fields))
    return _pad(head + fields, 8) + body


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = sock.recv(size - len(found))
        if not more:
            raise OSError(errno.EPROTO, "the system bus closed the connection")
        found += more
    return found


def _receive(sock: socket.socket) -> tuple[int, dict[int, str | int], bytes]:
    """Kind, header fields, body. The bus daemon passes messages on in their sender's byte order; local ones have ours."""
    head = _exactly(sock, 16)
    order, kind, _flags, _version, size, _serial, length = struct.unpack("<cBBBIII", head)
    if order != b"l" or size > _LONGEST or length > _LONGEST:
        raise OSError(errno.EPROTO, "the system bus sent what is not understood")
    raw = _exactly(sock, length + -length % 8)
    return kind, _fields(raw[:length]), _exactly(sock, size)


def _fields(raw: bytes) -> dict[int, str | int]:
    found: dict[int, str | int] = {}
    at = 0
    while at + 4 <= len(raw):
        code, kind = raw[at], raw[at + 2 : at + 3]
        at += 4
        if kind in (b"s", b"o"):
            found[code], at = _text(raw, at)
        elif kind == b"g":
            found[code] = raw[at + 1 : at + 1 + raw[at]].decode()
            at += raw[at] + 2
        elif kind == b"u":
            found[code] = int(struct.unpack_from("<I", raw, at)[0])
            at += 4
        else:
            raise OSError(errno.EPROTO, "the system bus sent what is not understood")
        at += -at % 8
    return found


def _text(raw: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", raw, at)
    return raw[at + 4 : at + 4 + size].decode("utf-8", "replace"), at + 4 + size + 1
