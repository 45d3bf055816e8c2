"""Clients that are no docker: one of our own that speaks as docker 20.10 does, and hostile ones."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from engine.rest.buildkit import messages, wire
from engine.rest.buildkit.channel import MAX_MESSAGE, Channel, metadata, serve
from engine.rest.buildkit.sending import send_folder
from engine.rest.duplex import Duplex
from tests.patience import PATIENCE
from tests.rest.conftest import BASE, Served

pytestmark = pytest.mark.root


async def upgraded(served: Served, path: str, *headers: str) -> Duplex:
    reader, writer = await asyncio.open_unix_connection(str(served.socket))
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return Duplex(reader, writer, b"")


@asynccontextmanager
async def session(served: Served, name: str, folder: Path, secrets: dict[str, bytes]) -> AsyncIterator[None]:
    """Offers `folder` as Dockerfile and context."""

    async def files(stream: Any) -> None:
        stream.end = lambda: asyncio.sleep(0)  # the end of a call is its handler's, on this side
        await send_folder(stream, folder)

    async def secret(stream: Any) -> None:
        request = await stream.recv_message()
        if request.id not in secrets:
            raise GRPCError(Status.NOT_FOUND, "no such secret")
        await stream.send_message(messages.SecretResponse(secrets[request.id]))

    duplex = await upgraded(served, "/session", f"X-Docker-Expose-Session-Uuid: {name}")
    methods = {
        "/moby.filesync.v1.FileSync/DiffCopy": Handler(
            files, Cardinality.STREAM_STREAM, messages.Packet, messages.Packet
        ),
        "/moby.buildkit.secrets.v1.Secrets/GetSecret": Handler(
            secret, Cardinality.UNARY_UNARY, messages.SecretRequest, messages.SecretResponse
        ),
    }
    serving = asyncio.create_task(serve(duplex, methods))
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        duplex.close()


def build(served: Served, query: str) -> list[dict[str, Any]]:
    answer = served.call("POST", f"/build?version=2&remote=client-session&{query}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def names(lines: list[dict[str, Any]]) -> list[str]:
    traces = [line["aux"] for line in lines if line.get("id") == "moby.buildkit.trace"]
    statuses = [wire.decode(base64.b64decode(trace), messages.StatusResponse) for trace in traces]
    return [vertex.name for status in statuses for vertex in status.vertexes if vertex.completed]


async def test_a_client_of_docker_20_10_builds(served: Served, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("sent over the session\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY f /\nRUN --mount=type=secret,id=s cat /run/secrets/s > /s\n"
    )
    async with session(served, "one", tmp_path, {"s": b"hidden"}):
        lines = await asyncio.to_thread(build, served, "session=one&t=old:1")
    assert [line["aux"]["ID"][:7] for line in lines if line["id"] == "moby.image.id"] == ["sha256:"]
    assert "[2/3] COPY f /" in names(lines)
    assert served.docker("run", "--rm", "old:1", "cat", "/f", "/s").stdout == "sent over the session\nhidden"
    served.docker("rmi", "old:1")


async def test_its_errors_stand_in_the_stream(served: Served, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN exit 9\n")
    async with session(served, "two", tmp_path, {}):
        lines = await asyncio.to_thread(build, served, "session=two")
    assert lines[-1]["error"].startswith(
        'failed to solve: process "/bin/sh -c exit 9" did not complete successfully: exit code: 9'
    )


async def call(channel: Channel, path: str, request: Any, reply: type) -> Any:
    return await channel.unary(path, type(request), reply)(request)


@asynccontextmanager
async def control(served: Served) -> AsyncIterator[Channel]:
    duplex = await upgraded(served, "/grpc")
    channel = Channel(duplex)
    running = asyncio.create_task(channel.run())
    try:
        yield channel
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        channel.close()
        duplex.close()


async def test_what_this_engine_is(served: Served) -> None:
    async with control(served) as channel:
        workers = await call(
            channel, "/moby.buildkit.v1.Control/ListWorkers", messages.Empty(), messages.ListWorkersResponse
        )
    (worker,) = workers.record
    assert worker.platforms[0].os == "linux"
    assert worker.labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"]


@pytest.mark.parametrize(
    ("path", "request_", "says"),
    [
        ("Control/Solve", messages.SolveRequest("r", messages.Definition([b"x"])), "raw LLB"),
        (
            "Control/Solve",
            messages.SolveRequest("r", frontend="gateway.v0", frontend_attrs={"source": "a/b:1"}),
            "a/b:1",
        ),
        ("Control/Solve", messages.SolveRequest("", frontend="dockerfile.v0"), "no name"),
        ("Control/Solve", messages.SolveRequest("r", frontend="dockerfile.v0"), "names no session"),
        ("Control/ListenBuildHistory", messages.Empty(), "is not supported by this engine"),
        ("frontend.LLBBridge/Solve", messages.GatewaySolveRequest(), "names no build"),
    ],
)
async def test_what_cannot_be_done_is_said(served: Served, path: str, request_: Any, says: str) -> None:
    async with control(served) as channel:
        with pytest.raises(GRPCError, match=says):
            await call(channel, f"/moby.buildkit.v1.{path}", request_, messages.SolveResponse)


async def test_messages_without_a_meaning_and_too_large_ones_are_refused(served: Served) -> None:
    async with control(served) as channel:
        with pytest.raises(GRPCError, match="malformed"):
            await call(channel, "/moby.buildkit.v1.Control/Solve", _Raw(b"\x0a\x7f"), messages.SolveResponse)
        large = _Raw(b"\x0a" + b"\xff\xff\xff\x0f" + bytes(MAX_MESSAGE))
        with pytest.raises(GRPCError):
            await asyncio.wait_for(
                call(channel, "/moby.buildkit.v1.Control/Solve", large, messages.SolveResponse), timeout=20
            )
    assert served.call("GET", "/_ping").status_code == 200


class _Raw:
    """Bytes that stand for a message."""

    def __init__(self, data: bytes) -> None:
        self.data = data


@pytest.fixture(autouse=True)
def raw_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = wire.encode
    monkeypatch.setattr(wire, "encode", lambda message: message.data if isinstance(message, _Raw) else encode(message))


def test_connections_that_speak_no_http2_end(served: Served) -> None:
    assert served.call("POST", "/grpc").status_code == 400
    assert served.call("POST", "/session", headers={"Upgrade": "h2c"}).status_code == 400
    for noise in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(served.socket))
            client.sendall(b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + noise)
            while client.recv(65536):
                pass
    assert served.call("GET", "/_ping").status_code == 200


async def test_a_client_that_leaves_in_the_middle_takes_its_build_with_it(served: Served, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN sleep 999\n")
    async with session(served, "gone", tmp_path, {}):
        transport = httpx.AsyncHTTPTransport(uds=str(served.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            query = "/build?version=2&remote=client-session&session=gone"
            async with client.stream("POST", query, timeout=PATIENCE) as answer:
                async for line in answer.aiter_lines():
                    trace = wire.decode(base64.b64decode(json.loads(line)["aux"]), messages.StatusResponse)
                    if any("sleep 999" in vertex.name for vertex in trace.vertexes):
                        break
    listed = served.call("GET", "/containers/json?all=1").json()
    assert listed == []


async def test_a_check_warns_without_a_build(served: Served, tmp_path: Path) -> None:
    """`docker build --check` of buildx from 0.15 on: the linter's document is the result."""
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN exit 9\nCMD shell form\n")
    options = {"requestid": "frontend.lint", "filename": "Dockerfile"}
    async with session(served, "check", tmp_path, {}), control(served) as channel:
        solving = asyncio.create_task(
            call(
                channel,
                "/moby.buildkit.v1.Control/Solve",
                messages.SolveRequest("c", session="check"),
                messages.SolveResponse,
            )
        )
        method = channel.unary(
            "/moby.buildkit.v1.frontend.LLBBridge/Solve", messages.GatewaySolveRequest, messages.GatewaySolveResponse
        )
        named = metadata({"buildkit-controlapi-buildid": ["c"]})
        answer = await method(
            messages.GatewaySolveRequest(frontend="dockerfile.v0", frontend_opt=options), metadata=named
        )
        method = channel.unary("/moby.buildkit.v1.frontend.LLBBridge/Return", messages.ReturnRequest, messages.Empty)
        await method(messages.ReturnRequest(), metadata=named)
        assert (await solving).exporter_response == {}
    document = json.loads(answer.result.metadata["result.json"])
    (warning,) = document["warnings"]
    assert warning["ruleName"] == "JSONArgsRecommended"
    assert warning["location"]["ranges"][0]["start"] == {"line": 3}
    assert answer.result.metadata["result.statuscode"] == b"1"
