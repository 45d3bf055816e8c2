"""Attach and exec over raw sockets: what docker-py and others do and the docker command line does not."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root, pytest.mark.peer("docker")]


@pytest.fixture(scope="module")
def running(served: Served) -> Iterator[str]:
    identity = served.docker("run", "-d", BASE, "sleep", "300").stdout.strip()
    yield identity
    served.docker("rm", "-f", identity)


def hijack(served: Served, path: str, body: object = None) -> tuple[bytes, socket.socket]:
    """POSTs and gives the answer's head alone, read as a client with a buffer reads it: whatever came along is dropped."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(served.socket))
    raw = json.dumps(body).encode() if body is not None else b""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
    )
    connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    answer = connection.recv(65536)
    assert b"\r\n\r\n" in answer
    return answer.partition(b"\r\n\r\n")[0], connection


def rest(connection: socket.socket) -> bytes:
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    connection.close()
    return data


def frame(number: int, data: bytes) -> bytes:
    return bytes((number, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def make_exec(served: Served, container: str, command: list[str], **fields: Any) -> str:
    body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True, **fields}
    return str(served.call("POST", f"/containers/{container}/exec", json=body).json()["Id"])


def state(served: Served, identity: str) -> dict[str, Any]:
    document: dict[str, Any] = served.call("GET", f"/exec/{identity}/json").json()
    return document


def test_a_fast_execs_output_never_comes_with_the_head(served: Served, running: str) -> None:
    """docker-py loses what does: it reads the head through a buffer, and the stream from the socket itself."""
    for number in range(30):
        identity = make_exec(served, running, ["echo", str(number)])
        head, connection = hijack(served, f"/v1.51/exec/{identity}/start", {})
        assert head.startswith(b"HTTP/1.1 101")
        assert rest(connection) == frame(1, f"{number}\n".encode())
        assert state(served, identity)["ExitCode"] == 0


def test_the_client_that_starts_an_exec_says_how_it_reads(served: Served, running: str) -> None:
    identity = make_exec(served, running, ["echo", "out"], Tty=True)
    _, connection = hijack(served, f"/v1.51/exec/{identity}/start", {"Tty": False})
    assert rest(connection) == frame(1, b"out\r\n")


def test_an_exec_that_cannot_start_says_so_in_its_stream(served: Served, running: str) -> None:
    identity = make_exec(served, running, ["nosuch"])
    _, connection = hijack(served, f"/v1.51/exec/{identity}/start", {})
    assert b"executable file not found in $PATH" in rest(connection)
    assert state(served, identity)["ExitCode"] == 127
    assert served.docker("exec", "-u", "nobodyhere", running, "id", ok=False).returncode == 126


@pytest.mark.parametrize(("keys", "typed"), [("", b"\x10\x11"), ("ctrl-x", b"\x18"), ("a,b", b"ab")])
def test_detach_keys_leave_the_exec_running(served: Served, running: str, keys: str, typed: bytes) -> None:
    identity = make_exec(served, running, ["cat"], Tty=True, AttachStdin=True, **({"detachKeys": keys} if keys else {}))
    _, connection = hijack(served, f"/v1.51/exec/{identity}/start", {"Tty": True})
    connection.sendall(typed)
    assert rest(connection) == b""
    assert state(served, identity)["Running"] is True


def test_detach_keys_leave_an_attached_container_running(served: Served) -> None:
    identity = served.docker("run", "-dit", BASE, "cat").stdout.strip()
    path = f"/v1.51/containers/{identity}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,x"
    _, connection = hijack(served, path)
    connection.sendall(b"hello\n")
    seen = b""
    while b"hello\r\nhello\r\n" not in seen:
        seen += connection.recv(100)
    connection.sendall(b"\x01x")
    assert rest(connection) == b""
    assert served.docker("inspect", "-f", "{{.State.Running}}", identity).stdout == "true\n"
    assert "detach" in served.docker("events", "--since", "1m", "--until", f"{time.time():.3f}", "-f", f"container={identity}").stdout  # fmt: skip
    assert served.call("POST", f"/containers/{identity}/attach?stream=1&detachKeys=nokey").status_code == 400
    served.docker("rm", "-f", identity)


def test_an_exec_whose_client_leaves_goes_on_and_is_told(served: Served, running: str) -> None:
    """AP-08: its output is read all the same, so that it does not stand still, and nothing is kept of it."""
    identity = make_exec(served, running, ["sh", "-c", "head -c 3000000 /dev/zero; exit 5"])
    _, connection = hijack(served, f"/v1.51/exec/{identity}/start", {})
    connection.close()
    end = time.monotonic() + PATIENCE
    while state(served, identity)["Running"]:
        assert time.monotonic() < end
    assert state(served, identity)["ExitCode"] == 5


def test_kill_answers_when_the_container_has_ended(served: Served) -> None:
    identity = served.docker("run", "-d", BASE, "sleep", "60").stdout.strip()
    assert served.call("POST", f"/containers/{identity}/kill").status_code == 204
    found = served.call("GET", f"/containers/{identity}/json").json()["State"]
    assert (found["Running"], found["ExitCode"]) == (False, 137)
    served.docker("rm", identity)


def test_many_attached_clients_that_leave_are_forgotten(served: Served, running: str) -> None:
    """AP-08: attach and go, many times: descriptors and threads stay what they were."""

    def size() -> tuple[int, int]:
        folder = f"/proc/{served.pid}"
        threads = re.search(r"Threads:\s+(\d+)", Path(f"{folder}/status").read_text())
        assert threads is not None
        return len(list(os.scandir(f"{folder}/fd"))), int(threads[1])

    before = size()
    for _ in range(100):
        _, connection = hijack(served, f"/v1.51/containers/{running}/attach?stream=1&stdout=1&stderr=1")
        connection.close()
    end = time.monotonic() + PATIENCE
    while any(now > then + 8 for now, then in zip(size(), before, strict=True)):
        assert time.monotonic() < end, (size(), before)


def test_names_of_fields_are_read_in_any_case(served: Served) -> None:
    """Go's decoder takes them so, and clients in other languages count on it; what is checked is checked for all of them."""
    made = served.call(
        "POST", "/containers/create", json={"image": BASE, "CMD": ["true"], "hostconfig": {"memory": 9 << 20}}
    )
    assert made.status_code == 201
    found = served.call("GET", f"/containers/{made.json()['Id']}/json").json()
    assert (found["HostConfig"]["Memory"], found["Config"]["Cmd"]) == (9 << 20, ["true"])
    served.docker("rm", made.json()["Id"])
    refused = served.call("POST", "/containers/create", json={"image": BASE, "hostConfig": {"deviceRequests": [{}]}})
    assert refused.status_code == 501


def test_an_image_of_another_platform_is_not_taken_for_it(served: Served) -> None:
    made = served.call("POST", "/containers/create", params={"platform": "linux/s390x"}, json={"Image": BASE})
    assert (made.status_code, "linux/s390x" in made.json()["message"]) == (404, True)


def test_a_container_that_is_just_ending_is_committed(served: Served) -> None:
    for _ in range(15):
        made = served.call("POST", "/containers/create", json={"Image": BASE, "Cmd": ["true"]}).json()["Id"]
        served.call("POST", f"/containers/{made}/start")
        answer = served.call("POST", "/commit", params={"container": made, "repo": "ending"})
        assert answer.status_code == 201, answer.text
        served.call("DELETE", f"/containers/{made}", params={"force": "1"})
    served.docker("rmi", "ending")
