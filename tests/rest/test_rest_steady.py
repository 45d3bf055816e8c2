"""Clients that are slow, many, greedy or hostile: the server stays small, answers clearly, and serves the others meanwhile.

The rows of the security anchor's table of the API (AP-…) that speak of the server as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.rest.connection import HEAD_SECONDS
from engine.rest.server import ApiServer
from tests.patience import PATIENCE
from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root, pytest.mark.peer("docker")]
MIB = 1 << 20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def resident(served: Served) -> int:
    """Bytes of memory that the server has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{served.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def connections(served: Served) -> int:
    """Sockets that the server has open."""
    found = 0
    for entry in os.scandir(f"/proc/{served.pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(entry.path).startswith("socket:")
    return found


@pytest.fixture
def bounded(served: Served) -> Iterator[None]:
    """The server is no larger afterwards by more than 64 MiB, and its connections are what they were."""
    served.call("GET", "/containers/json")
    memory, open_files = resident(served), connections(served)
    yield
    assert resident(served) - memory < 64 * MIB
    end = time.monotonic() + PATIENCE
    while connections(served) > open_files + 4:
        assert time.monotonic() < end, "connections are left open"


async def connect(served: Served) -> Streams:
    return await asyncio.open_unix_connection(str(served.socket), limit=16 * MIB)


async def ask(served: Served, request: bytes) -> bytes:
    reader, writer = await connect(served)
    writer.write(request)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode()


async def quick(served: Served) -> None:
    """Another client's list does not wait for what the others do."""
    assert (await ask(served, get("/v1.51/containers/json?all=1"))).startswith(b"HTTP/1.1 200")


@contextlib.asynccontextmanager
async def many(served: Served, count: int, request: bytes) -> AsyncIterator[list[Streams]]:
    """That many clients that have sent `request` and read nothing yet."""
    clients = [await connect(served) for _ in range(count)]
    for _, writer in clients:
        writer.write(request)
    try:
        yield clients
    finally:
        for _, writer in clients:
            writer.close()


async def test_ap06_a_thousand_half_open_requests(served: Served, bounded: None) -> None:
    assert HEAD_SECONDS <= 10  # how long a begun head may take
    async with many(served, 1000, b"GET /v1.51/containers/js"):
        await quick(served)


async def test_200_clients_at_once(served: Served, bounded: None) -> None:
    name = served.docker("create", "--name", "crowded", BASE, "true").stdout.strip()
    paths = ["/containers/json?all=1", "/images/json", f"/containers/{name}/json", "/info", "/volumes", "/networks"]

    async def client(number: int) -> None:
        for round_ in range(3):
            answer = await ask(served, get(f"/v1.51{paths[(number + round_) % len(paths)]}"))
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(client(number) for number in range(200)))
    served.docker("rm", "crowded")


async def test_50_event_streams_and_20_stalled_readers(served: Served, bounded: None) -> None:
    """AP-08: what a client does not read stays where it comes from."""
    stalled = many(served, 20, get(f"/v1.51/images/get?names={BASE}"))
    async with stalled, many(served, 50, get("/v1.51/events")) as streams:
        for reader, _ in streams:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await quick(served)
        made = served.docker("volume", "create", "heard").stdout.strip()
        for reader, _ in streams:
            async with asyncio.timeout(PATIENCE):
                assert made.encode() in await reader.readuntil(b"}\n")
        await quick(served)
    served.docker("volume", "rm", "heard")


async def test_ap08_output_that_nobody_reads_is_not_kept(served: Served, bounded: None) -> None:
    running = served.docker("run", "-d", BASE, "sleep", "60").stdout.strip()
    body = {"Cmd": ["sh", "-c", "exec cat /dev/zero"], "AttachStdout": True}
    made = served.call("POST", f"/containers/{running}/exec", json=body).json()["Id"]
    reader, writer = await connect(served)
    start = get(f"/v1.51/exec/{made}/start", "Content-Type: application/json", "Content-Length: 2", method="POST")
    writer.write(start.replace(b"Connection: close", b"Connection: Upgrade\r\nUpgrade: tcp") + b"{}")
    await reader.readuntil(b"\r\n\r\n")
    before = resident(served)
    for _ in range(20):
        await quick(served)
    assert resident(served) - before < 16 * MIB
    served.docker("rm", "-f", running)
    async with asyncio.timeout(PATIENCE):
        while await reader.read(MIB):
            pass
    writer.close()


def test_ap05_a_body_without_end_is_refused_early(served: Served, bounded: None) -> None:
    """The answer can be read though the server reads no more of the body."""
    head = get(
        "/v1.51/containers/create", "Content-Type: application/json", "Content-Length: 1073741824", method="POST"
    )
    before, sent = resident(served), 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(served.socket))
        sock.sendall(head)
        with contextlib.suppress(ConnectionError):
            while sent < 128 * MIB and not select.select([sock], [], [], 0)[0]:
                sent += sock.send(b"[" * MIB)
        answer = sock.recv(20)
    assert answer.startswith(b"HTTP/1.1 413")
    assert resident(served) - before < 64 * MIB


async def test_a_large_archive_streams_both_ways(served: Served, tmp_path: Path, bounded: None) -> None:
    """Half a GiB of holes; the same with 10 GB by hand."""
    size = 512 * MIB
    name = served.docker("create", BASE, "true").stdout.strip()
    header = b"big" + b"\0" * 97 + b"0000644\0" + b"0000000\0" * 2 + f"{size:011o}\0".encode() + b"0" * 11 + b"\0"
    head = header + b" " * 8 + b"0" + b"\0" * 100 + b"ustar\00000" + b"\0" * 247
    head = head[:148] + f"{sum(head):06o}\0 ".encode() + head[156:]
    reader, writer = await connect(served)
    put = get(f"/v1.51/containers/{name}/archive?path=/tmp", f"Content-Length: {size + 512 + 1024}", method="PUT")
    writer.write(put + head)
    before = resident(served)
    for _ in range(size // (4 * MIB)):
        writer.write(bytes(4 * MIB))
        await writer.drain()
    writer.write(bytes(1024))
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    reader, writer = await connect(served)
    writer.write(get(f"/v1.51/containers/{name}/archive?path=/tmp/big"))
    total = 0
    async with asyncio.timeout(PATIENCE):
        while chunk := await reader.read(MIB):
            total += len(chunk)
    writer.close()
    assert total > size
    assert resident(served) - before < 64 * MIB
    served.docker("rm", name)


@pytest.mark.parametrize(
    "request_",
    [
        get("/v1.51/containers/%2e%2e%2f%2e%2e/json"),
        get("/v1.51/../../etc/passwd"),
        get("//v1.51//containers//json"),
        get("/v1.51/containers/%00/json"),
        get("/v1.51/containers/" + "a" * 60_000 + "/json"),
        get("/v1.51/containers/x/logs?stdout=1&tail=-5&since=99999999999999999999999999"),
        get("/v1.51/containers/json?limit=-999999999999999999999"),
        get("/v1.51/containers/json?filters=" + "%7B%22a%22:" * 3000),
        get("/v1.51/containers/json?filters=%5B1%5D"),
        get("/v1.51/images/json?filters=%7B%22until%22:%5B%22%F0%9F%92%A9%22%5D%7D"),
        get("/v1.51/events?until=1&since=-9e99"),
        get("/v1.51/images/..%2f..%2fetc/json"),
        get("/v1.51/volumes/..", method="DELETE"),
        get("/v1.51/networks/%2e%2e", method="DELETE"),
        get("/v1.51/exec/..%2f..%2fx/json"),
        get("/v1.51/containers/x/resize?h=65536&w=-1", method="POST"),
        get("/v1.51/info", *(f"X-{number}: y" for number in range(2_000))),
        get("/v1.51/info", "X: " + "y" * MIB),
        get("/v1.51/build?t=%2f%2f%2f&version=1", "Content-Length: 3", method="POST") + b"abc",
        get("/v1.51/images/load", "Content-Length: 3", method="POST") + b"abc",
        get("/v1.51/auth", "Content-Type: application/json", "Content-Length: 9", method="POST") + b'{"a":NaN}',
        get("/v1.51/containers/create", "Content-Type: application/json", "Transfer-Encoding: chunked", method="POST")
        + b"zz\r\nx",
    ],
    ids=lambda request_: request_[:60].decode("latin-1").split("\r")[0],
)
async def test_ap07_odd_paths_queries_and_headers(served: Served, request_: bytes) -> None:
    """A 2xx or 4xx, no traceback, and soon; the head of a stream that ends in an error counts as its answer."""
    async with asyncio.timeout(PATIENCE):
        answer = await ask(served, request_)
    assert re.match(rb"HTTP/1\.1 [24]\d\d ", answer), answer[:300]
    assert b"Traceback" not in answer


async def test_ap04_nothing_is_read_twice_or_differently(served: Served) -> None:
    """One reader of a body, which is the one that acts on it: compressed bodies, two lengths and other types are refused,
    and of two fields of one name the last is the one that is checked."""
    json_type = "Content-Type: application/json"
    packed = gzip.compress(b'{"Image":"x"}')
    target = "/v1.51/containers/create"
    length = f"Content-Length: {len(packed)}"
    answer = await ask(served, get(target, json_type, "Content-Encoding: gzip", length, method="POST") + packed)
    assert answer.startswith(b"HTTP/1.1 4")
    two = get(target, json_type, "Content-Length: 2", "Content-Length: 3", method="POST") + b"{} "
    assert (await ask(served, two)).startswith(b"HTTP/1.1 400")
    both = (
        json.dumps({"Image": BASE})[:-1].encode() + b', "HostConfig": {}, "HostConfig": {"StorageOpt": {"size": "1G"}}}'
    )
    answer = await ask(served, get(target, json_type, f"Content-Length: {len(both)}", method="POST") + both)
    assert answer.startswith(b"HTTP/1.1 501")


async def test_ap03_pages_get_nothing(served: Served) -> None:
    answer = await ask(served, get("/v1.51/containers/json", "Origin: http://evil.example"))
    assert answer.startswith(b"HTTP/1.1 403")
    form = get("/v1.51/containers/create", "Content-Type: text/plain", "Content-Length: 2", method="POST") + b"{}"
    assert (await ask(served, form)).startswith(b"HTTP/1.1 400")
    assert b"access-control" not in (await ask(served, get("/v1.51/_ping", method="OPTIONS"))).lower()


async def test_ap11_one_name_from_all_sides(served: Served) -> None:
    """Whatever wins, nobody gets a 5xx, and in the end the name is free."""
    body = json.dumps({"Image": BASE, "Cmd": ["true"]}).encode()
    posts = ["start", "stop?t=0", "kill", "restart?t=0", "pause", "unpause", "rename?name=contested2"]

    async def one(number: int) -> None:
        head = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        requests = [get("/v1.51/containers/create?name=contested", *head, method="POST") + body]
        requests += [get(f"/v1.51/containers/contested/{verb}", method="POST") for verb in posts]
        requests += [get("/v1.51/containers/contested/json"), get("/v1.51/containers/contested/logs?stdout=1")]
        requests += [get("/v1.51/containers/contested?force=1", method="DELETE")]
        for at in range(len(requests)):
            answer = await ask(served, requests[(at + number) % len(requests)])
            assert re.match(rb"HTTP/1\.1 [234]", answer), (requests[(at + number) % len(requests)][:80], answer[:500])

    await asyncio.gather(*(one(number) for number in range(12)))
    for name in ("contested", "contested2"):
        served.call("DELETE", f"/containers/{name}", params={"force": "1"})
        assert served.call("GET", f"/containers/{name}/json").status_code == 404


async def test_ap01_a_socket_is_never_open_to_others(tmp_path: Path) -> None:
    """Under the widest umask: another user who tries all the while is never let in (CVE-2014-3499)."""
    os.chmod(tmp_path, 0o755)
    for folder in list(tmp_path.parents)[:2]:
        os.chmod(folder, 0o755)
    path = tmp_path / "api" / "s"
    code = (
        "import os, socket, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\nprint('go', flush=True)\n"
        "while os.stat(sys.argv[2]).st_size == 0:\n"
        "    try:\n        socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('IN'); break\n    except OSError: pass\n"
    )
    stop = tmp_path / "stop"
    stop.touch()
    os.chmod(stop, 0o644)
    command = [sys.executable, "-c", code, str(path), str(stop)]
    intruder = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
    assert intruder.stdout is not None
    assert intruder.stdout.readline() == "go\n"
    before = os.umask(0)
    try:
        for _ in range(30):
            server = ApiServer(None)  # type: ignore[arg-type]  # no request is made
            await server.listen_unix(path)
            assert path.stat().st_mode & 0o777 == 0o660
            assert path.stat().st_uid == 0
            await asyncio.to_thread(os.stat, path)
            await server.close()
            assert not path.exists()
    finally:
        os.umask(before)
        stop.write_text("x")
    assert intruder.communicate(timeout=PATIENCE)[0] == ""


def test_ap02_no_tcp_without_certificates(data_root: Path) -> None:
    command = [sys.executable, "-m", "engine.cli.main", "serve", "--tcp", "127.0.0.1:0"]
    done = subprocess.run(
        command, env={**os.environ, "WORKBENCH_ROOT": str(data_root)}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode != 0
    assert "tlscacert" in done.stderr.lower()


def test_versions_from_1_24_to_1_51(served: Served) -> None:
    for version, status in (("1.23", 400), ("1.24", 200), ("1.30", 200), ("1.41", 200), ("1.51", 200), ("1.52", 400)):
        answer = served.call("GET", f"http://engine/v{version}/version")
        assert answer.status_code == status, version
    ping = served.call("HEAD", "http://engine/_ping")
    assert (ping.headers["api-version"], ping.headers["builder-version"]) == ("1.51", "2")
