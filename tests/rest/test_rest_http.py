"""The HTTP layer, spoken to byte by byte: what a well-behaved client never sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from engine.errors import Conflict
from engine.rest.connection import Connection, Reader, protocol
from engine.rest.duplex import Duplex
from engine.rest.http import Answer, Hijack, Request, Response, json_response
from engine.rest.router import Router
from tests.patience import PATIENCE

Talk = Callable[[bytes], Awaitable[bytes]]


class Probe:
    """Endpoints that show what arrives, and when a handler is cancelled."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.finished = asyncio.Event()
        self.release = asyncio.Event()

    def router(self) -> Router:
        router = Router()
        router.add("GET", "/echo/{name*}/json", self.echo)
        router.add("POST", "/size", self.size)
        router.add("POST", "/json", self.json)
        router.add("GET", "/hang", self.hang)
        router.add("POST", "/keep", self.hang)
        router.add("GET", "/endless", self.endless)
        router.add("POST", "/raw", self.raw)
        router.add("GET", "/conflict", self.conflict)
        router.add("GET", "/bug", self.bug)
        return router

    async def echo(self, request: Request) -> Answer:
        return json_response({"name": request.params["name"], "version": list(request.version)})

    async def size(self, request: Request) -> Answer:
        size = 0
        async for chunk in request.body:
            size += len(chunk)
        return json_response({"size": size})

    async def json(self, request: Request) -> Answer:
        return json_response(await request.json())

    async def hang(self, request: Request) -> Answer:
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.finished.set()
        return Response(204)

    async def endless(self, request: Request) -> Answer:
        async def lines() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                self.cancelled.set()

        return Response(200, lines())

    async def raw(self, request: Request) -> Answer:
        await request.read()

        async def run(duplex: Duplex) -> None:
            total = b""
            while data := await duplex.read():
                total += data
            await duplex.write(b"after the end: " + total)

        return Hijack(run)

    async def conflict(self, request: Request) -> Answer:
        raise Conflict("taken", hint="choose another")

    async def bug(self, request: Request) -> Answer:
        raise ZeroDivisionError("oops")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Probe, Path]]:
    probe, path = Probe(), tmp_path / "s"
    router = probe.router()

    async def connected(reader: Reader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer, router).serve()

    listener = await asyncio.get_running_loop().create_unix_server(lambda: protocol(connected), path)
    yield probe, path
    listener.close()


@pytest.fixture
def talk(server: tuple[Probe, Path]) -> Talk:
    async def talk(data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(server[1]))
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        writer.close()
        return answer

    return talk


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode()


def body(answer: bytes) -> dict[str, object]:
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert isinstance(document, dict)
    return document


async def test_a_name_with_slashes_and_a_version(talk: Talk) -> None:
    assert body(await talk(get("/v1.41/echo/host:5000/a/b:tag/json"))) == {
        "name": "host:5000/a/b:tag",
        "version": [1, 41],
    }


async def test_versions_out_of_range_are_refused_as_docker_does(talk: Talk) -> None:
    assert b"too new. Maximum supported API version" in await talk(get("/v1.99/echo/a/json"))
    assert b"too old. Minimum supported API version" in await talk(get("/v1.12/echo/a/json"))


async def test_an_error_is_a_document_with_its_status_and_a_plain_type(talk: Talk) -> None:
    answer = await talk(get("/conflict"))
    assert answer.startswith(b"HTTP/1.1 409")
    assert b"content-type: application/json\r\n" in answer.lower()
    assert body(answer)["message"] == "taken\nchoose another"


async def test_a_bug_is_a_500_without_a_traceback(talk: Talk) -> None:
    answer = await talk(get("/bug"))
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"ZeroDivisionError" in answer
    assert b"Traceback" not in answer


async def test_unknown_path_and_method(talk: Talk) -> None:
    assert (await talk(get("/nope"))).startswith(b"HTTP/1.1 404")
    assert (await talk(get("/hang", method="DELETE"))).startswith(b"HTTP/1.1 404")
    options = await talk(get("/hang", method="OPTIONS"))
    assert options.startswith(b"HTTP/1.1 200")
    assert b"access-control" not in options.lower()


async def test_two_requests_on_one_connection(talk: Talk) -> None:
    one = b"GET /echo/a/json HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await talk(one + get("/echo/b/json"))).count(b"HTTP/1.1 200") == 2


async def test_chunked_and_counted_bodies(talk: Talk) -> None:
    chunked = get("/size", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n"
    assert body(await talk(chunked)) == {"size": 8}
    assert body(await talk(get("/size", "Content-Length: 4", method="POST") + b"abcd")) == {"size": 4}


async def test_length_and_chunks_together_are_refused(talk: Talk) -> None:
    both = get("/size", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST") + b"0\r\n\r\n"
    assert (await talk(both)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /a b c HTTP/1.1\r\n\r\n",
        get("/size", "Transfer-Encoding: chunked", method="POST") + b"zz\r\nhello",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n",
        get("/" + "a" * (1 << 20)),
    ],
)
async def test_malformed_requests_get_a_4xx(talk: Talk, junk: bytes) -> None:
    assert (await talk(junk)).startswith(b"HTTP/1.1 4")


async def test_a_json_body_is_bounded_and_an_object(talk: Talk) -> None:
    big = b'{"a":"' + b"x" * (5 << 20) + b'"}'
    answer = await talk(get("/json", f"Content-Length: {len(big)}", method="POST") + big)
    assert answer.startswith(b"HTTP/1.1 413")
    for bad in (b"[1]", b"{", b'"x"', b"[" * 100_000):
        answer = await talk(get("/json", f"Content-Length: {len(bad)}", method="POST") + bad)
        assert answer.startswith(b"HTTP/1.1 400"), bad[:20]


async def test_a_form_from_a_browser_is_refused(talk: Talk) -> None:
    form = get("/json", "Content-Type: text/plain", "Content-Length: 2", method="POST") + b"{}"
    assert (await talk(form)).startswith(b"HTTP/1.1 400")


async def test_a_handler_is_cancelled_when_its_client_leaves(server: tuple[Probe, Path]) -> None:
    probe, path = server
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.write(get("/hang"))
    async with asyncio.timeout(PATIENCE):
        await probe.started.wait()
        writer.close()
        await probe.cancelled.wait()


async def test_work_that_must_be_finished_goes_on_without_its_client(server: tuple[Probe, Path]) -> None:
    probe, path = server
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.write(get("/keep", method="POST"))
    async with asyncio.timeout(PATIENCE):
        await probe.started.wait()
        writer.close()
        await writer.wait_closed()
        probe.release.set()
        await probe.finished.wait()
    assert not probe.cancelled.is_set()


async def test_a_stream_ends_with_its_client(server: tuple[Probe, Path]) -> None:
    probe, path = server
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(get("/endless"))
    async with asyncio.timeout(PATIENCE):
        await reader.readexactly(100_000)
        writer.close()
        await probe.cancelled.wait()


async def test_a_hijacked_stream_answers_after_half_close(server: tuple[Probe, Path]) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server[1]))
    writer.write(
        b"POST /raw HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}early"
    )
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b" late")
        writer.write_eof()
        rest = await reader.read()
    assert head.startswith(b"HTTP/1.1 101")
    assert rest == b"after the end: early late"


async def test_expect_continue(server: tuple[Probe, Path]) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server[1]))
    writer.write(get("/size", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    async with asyncio.timeout(PATIENCE):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"abc")
        assert b'{"size": 3}' in await reader.read()


async def test_many_half_open_clients_do_not_slow_the_others(server: tuple[Probe, Path], talk: Talk) -> None:
    idle = [await asyncio.open_unix_connection(str(server[1])) for _ in range(200)]
    for _, writer in idle:
        writer.write(b"GET /echo/a/js")
    async with asyncio.timeout(PATIENCE):
        assert body(await talk(get("/echo/a/json")))["name"] == "a"
    for _, writer in idle:
        writer.close()
