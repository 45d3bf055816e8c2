"""Connections: both ways, half-closed, over TLS with certificates of both sides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import InvalidInput, Unavailable
from engine.remote.hosts import Target, TlsFiles
from engine.remote.wires import dial
from tests.authority import make_authority


@contextlib.contextmanager
def answering(wrap: Callable[[socket.socket], socket.socket]) -> Iterator[int]:
    """A server that reads to the end of what it is sent, and only then says how much it was. Its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listening.accept()
                with contextlib.suppress(OSError):
                    sock = wrap(plain)
                    count = 0
                    while data := sock.recv(65536):
                        count += len(data)
                    sock.sendall(f"got {count}".encode())
                    sock.close()
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


async def said(target: Target, data: bytes) -> bytes:
    wire = await dial(target)
    try:
        await wire.write(data)
        await wire.write_eof()
        out = b""
        while part := await wire.read():
            out += part
        return out
    finally:
        await wire.close()


async def test_an_answer_after_our_end() -> None:
    with answering(lambda sock: sock) as port:
        assert await said(Target("tcp", "127.0.0.1", port), b"x" * 1_000_000) == b"got 1000000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.peer("openssl")
async def test_tls_of_both_sides_half_closes(authority: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    context.load_verify_locations(authority / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    files = TlsFiles(*(str(authority / name) for name in ("ca.pem", "client.pem", "client.key")))
    with answering(lambda sock: context.wrap_socket(sock, server_side=True)) as port:

        def target(tls: TlsFiles) -> Target:
            return Target("tcp", "127.0.0.1", port, tls=tls)

        assert await said(target(files), b"y" * 1_000_000) == b"got 1000000"
        assert await said(target(TlsFiles("", files.certificate, files.key, verify=False)), b"y") == b"got 1"
        with pytest.raises(Unavailable, match="not trusted"):
            await said(target(TlsFiles("", files.certificate, files.key)), b"y")
        with pytest.raises((Unavailable, OSError)):  # TLS 1.3 tells a client at its first read that it is refused
            await said(target(TlsFiles(files.ca)), b"y")
        with pytest.raises(InvalidInput, match="cannot be used"):
            await said(target(TlsFiles("/nonexistent")), b"y")
    with pytest.raises(Unavailable, match="cannot connect"):
        await dial(target(files))


async def test_who_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot connect to the engine at unix://.*No such file") as failure:
        await dial(Target("unix", path=str(tmp_path / "none")))
    assert failure.value.hint


async def test_a_read_can_be_given_up() -> None:
    with answering(lambda sock: sock) as port:
        wire = await dial(Target("tcp", "127.0.0.1", port))
        reading = asyncio.ensure_future(wire.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await wire.close()
