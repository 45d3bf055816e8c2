"""Requests made from the published description of the API (schemathesis): whatever they hold, an answer comes soon, says what was wrong,
and leaves the engine alive and nothing behind.

`engine_api.json` is moby's description, shortened (its licence and what was changed stand in its `info`).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.patience import PATIENCE
from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root]
SECONDS = 25.0  # for all of it
SOON = 5.0  # until the head of an answer
EXAMPLES = 4
NAMES = {
    "containers": ["described", "described-tty", "nosuch"],
    "images": [BASE, "described/image", "nosuch"],
    "volumes": ["described", "nosuch"],
    "networks": ["described", "bridge", "nosuch"],
    "exec": ["EXEC", "nosuch"],
    "distribution": ["127.0.0.1:1/x"],
}
ENDLESS = ("GET /events", "GET /containers/{id}/stats", "POST /containers/{id}/attach", "POST /containers/{id}/wait")
# Answers of 500 and more that are meant: what this engine has not, and registries, swarm managers and disks that are not there.
MEANT = (501, 503)


class Client:
    def __init__(self, served: Served) -> None:
        transport = httpx.HTTPTransport(uds=str(served.socket))
        self.http = httpx.Client(transport=transport, base_url="http://engine/v1.51", timeout=SOON)
        self.problems: list[str] = []
        self.answered: dict[str, set[int]] = {}
        self._exec = ""

    def ensure(self) -> None:
        """What requests speak of is there, however many of them removed it."""
        call = self.http.request
        for name, terminal in (("described", False), ("described-tty", True)):
            found = call("GET", f"/containers/{name}/json")
            if found.status_code == 404:
                body = {"Image": BASE, "Cmd": ["cat"], "OpenStdin": True, "Tty": terminal, "StopTimeout": 1}
                call("POST", f"/containers/create?name={name}", json=body)
            elif found.json()["State"]["Paused"]:
                call("POST", f"/containers/{name}/unpause")
            call("POST", f"/containers/{name}/start")
        call("POST", f"/images/{BASE}/tag?repo=described/image")
        call("POST", "/volumes/create", json={"Name": "described"})
        call("POST", "/networks/create", json={"Name": "described"})
        self._exec = call("POST", "/containers/described/exec", json={"Cmd": ["true"]}).json().get("Id", "x")

    def send(self, case: Any) -> None:
        given_ = case.as_transport_kwargs(base_url="http://engine/v1.51")
        data = given_.get("data")
        try:
            request = self.http.build_request(
                given_["method"],
                given_["url"].replace("EXEC", self._exec),
                params=given_.get("params"),
                headers=dict(given_.get("headers") or {}),
                json=given_.get("json"),
                content=data if isinstance(data, (bytes, str)) else None,
            )
        except (ValueError, TypeError, httpx.InvalidURL):
            return  # no client can write it
        shown = f"{request.method} {request.url} {request.content[:300]!r}"
        try:
            answer = self.http.send(request, stream=True)
        except httpx.TimeoutException:
            self.problems.append(f"no answer within {SOON} s: {shown}")
            return
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            return
        self.answered.setdefault(case.operation.label, set()).add(answer.status_code)
        body = self._some(answer) if case.operation.label not in ENDLESS else b""
        answer.close()
        if answer.status_code >= 500 and answer.status_code not in MEANT:
            self.problems.append(f"{answer.status_code} {body[:200]!r}: {shown}")
        if b"Traceback" in body or b"internal error" in body:
            self.problems.append(f"{body[:200]!r}: {shown}")

    @staticmethod
    def _some(answer: httpx.Response) -> bytes:
        """The first bytes of the body."""
        body = b""
        for chunk in answer.iter_raw():
            body += chunk
            if len(body) > 65536:
                break
        return body


def operations() -> list[Any]:
    document = json.loads((Path(__file__).parent / "engine_api.json").read_text())
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation.get("consumes") == ["application/x-tar"]:
                operation["consumes"] = ["application/octet-stream"]  # archives have no serializer
            for parameter in operation.get("parameters", ()):
                if parameter.get("in") == "path":
                    names = NAMES[path.split("/")[1]]
                    parameter["enum"] = [name for name in names if (method, name) != ("delete", BASE)]
                if parameter["name"] in ("t", "follow", "stream"):  # what makes an answer late by its meaning
                    parameter |= {"enum": [0], "type": "integer", "default": 0}
                    parameter["required"] = True
    return [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    client = Client(served)
    yield client
    for path in ("/containers/described", "/containers/described-tty", "/images/described/image", "/volumes/described"):
        client.http.delete(f"{path}?force=1", timeout=PATIENCE)
    client.http.delete("/networks/described")
    for row in client.http.get("/containers/json?all=1").json():  # of those whose creation succeeded
        client.http.delete(f"/containers/{row['Id']}?force=1&v=1", timeout=PATIENCE)
    client.http.close()


def memory(served: Served) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{served.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_every_request_of_the_description_is_answered(served: Served, client: Client) -> None:
    client.ensure()
    before, files = memory(served), len(os.listdir(f"/proc/{served.pid}/fd"))
    end = time.monotonic() + SECONDS
    done = []
    for operation in operations():
        if time.monotonic() > end:
            break
        client.ensure()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            if time.monotonic() < end:
                client.send(case)

        ask()
        done.append(operation.label)
    assert not client.problems, "\n".join(client.problems)
    assert len(done) > 50
    assert sum(any(status < 300 for status in found) for found in client.answered.values()) > 25
    assert client.http.get("/_ping").text == "OK"
    assert memory(served) - before < 64 << 20
    while len(os.listdir(f"/proc/{served.pid}/fd")) > files + 16:
        assert time.monotonic() < end + 20, "descriptors are left open"
