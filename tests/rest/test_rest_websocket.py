"""Attach over WebSocket, spoken frame by frame."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator

import pytest

from tests.patience import PATIENCE
from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root, pytest.mark.peer("docker")]
KEY = base64.b64encode(b"0123456789abcdef").decode()


class Client:
    """The client's side of RFC 6455."""

    def __init__(self, served: Served, path: str, *headers: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(served.socket))
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: engine",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {KEY}",
            "Sec-WebSocket-Version: 13",
            *headers,
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self._more()
        self.head, _, self.data = self.data.partition(b"\r\n\r\n")

    def _more(self) -> None:
        chunk = self.socket.recv(65536)
        assert chunk, "the server closed"
        self.data += chunk

    def _bytes(self, count: int) -> bytes:
        while len(self.data) < count:
            self._more()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def receive(self) -> tuple[int, bytes]:
        first, size = self._bytes(2)
        if size >= 126:
            size = int.from_bytes(self._bytes(2 if size == 126 else 8), "big")
        return first & 15, self._bytes(size)

    def until(self, wanted: bytes) -> bytes:
        seen = b""
        while wanted not in seen:
            kind, payload = self.receive()
            assert kind == 2, (kind, payload)
            seen += payload
        return seen

    def send(self, opcode: int, payload: bytes, *, final: bool = True, masked: bool = True) -> None:
        mask = b"\x11\x22\x33\x44" if masked else b""
        size = len(payload)
        length = bytes((size,)) if size < 126 else bytes((126,)) + size.to_bytes(2, "big")
        length = bytes((length[0] | (0x80 if masked else 0),)) + length[1:]
        body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if masked else payload
        self.socket.sendall(bytes(((0x80 if final else 0) | opcode,)) + length + mask + body)


@pytest.fixture
def terminal(served: Served) -> Iterator[str]:
    identity = served.docker("run", "-dit", BASE, "cat").stdout.strip()
    yield f"/v1.51/containers/{identity}/attach/ws?stream=1&stdin=1&stdout=1"
    served.docker("rm", "-f", identity)


def test_what_is_typed_comes_back_and_the_close_is_answered(served: Served, terminal: str) -> None:
    client = Client(served, terminal)
    assert client.head.startswith(b"HTTP/1.1 101")
    digest = hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    assert b"Sec-WebSocket-Accept: " + base64.b64encode(digest) in client.head
    client.send(2, b"hello\n")
    client.until(b"hello\r\nhello\r\n")
    client.send(1, b"two ", final=False)
    client.send(9, b"are you there")
    assert client.receive()[0] in (2, 10)
    client.send(0, b"parts" + b"x" * 300 + b"\n")
    seen = b""
    while b"parts" + b"x" * 300 + b"\r\n" not in seen:
        seen += client.receive()[1]
    client.send(8, (1000).to_bytes(2, "big"))
    while (message := client.receive())[0] != 8:
        pass
    assert message[1] == (1000).to_bytes(2, "big")


@pytest.mark.parametrize(("opcode", "masked", "status"), [(2, False, 1002), (5, True, 1002), (0, True, 1002)])
def test_a_client_that_breaks_the_protocol_is_told_and_closed(
    served: Served, terminal: str, opcode: int, masked: bool, status: int
) -> None:
    client = Client(served, terminal)
    client.send(opcode, b"x", masked=masked)
    assert client.receive() == (8, status.to_bytes(2, "big"))


def test_a_frame_that_claims_too_much_is_refused_before_it_comes(served: Served, terminal: str) -> None:
    client = Client(served, terminal)
    client.socket.sendall(bytes((0x82, 0xFF)) + (1 << 62).to_bytes(8, "big") + b"\0\0\0\0")
    assert client.receive() == (8, (1009).to_bytes(2, "big"))


def test_handshakes(served: Served, terminal: str) -> None:
    """AP-03: a page of another origin gets nothing; the server's own name in Origin is what non-browsers send."""
    assert Client(served, terminal, "Origin: http://engine").head.startswith(b"HTTP/1.1 101")
    assert Client(served, terminal, "Origin: http://evil.example").head.startswith(b"HTTP/1.1 403")
    assert served.call("GET", terminal.removeprefix("/v1.51")).status_code == 400


def test_logs_and_the_end_of_a_container(served: Served) -> None:
    identity = served.docker("run", "-d", BASE, "sh", "-c", "echo out; echo err >&2").stdout.strip()
    served.docker("wait", identity)
    client = Client(served, f"/v1.51/containers/{identity}/attach/ws?logs=1&stdout=1&stderr=1")
    assert sorted(client.receive() for _ in range(2)) == [(2, b"err\n"), (2, b"out\n")]
    assert client.receive()[0] == 8
    served.docker("rm", identity)


def test_one_that_left_before_the_start_is_forgotten(served: Served) -> None:
    identity = served.docker("create", "-it", BASE, "cat").stdout.strip()
    path = f"/v1.51/containers/{identity}/attach/ws?stream=1&stdin=1&stdout=1"
    Client(served, path).socket.close()
    client = Client(served, path)
    served.docker("start", identity)
    client.send(2, b"here\n")
    client.until(b"here\r\nhere\r\n")
    served.docker("rm", "-f", identity)
