"""A registry that asks for a name and a password, behind the API: login, push, pull, FROM, search, distribution."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rest.conftest import BASE, Served
from tests.searching import files_with
from tests.serving import PASSWORD, docker_registry

pytestmark = [pytest.mark.root, pytest.mark.peer("docker"), pytest.mark.peer("registry")]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry behind HTTP Basic: `host:port`."""
    with docker_registry(tmp_path_factory.mktemp("locked"), basic=True) as address:
        yield address


def test_login_push_pull_and_from_with_the_clients_credentials(served: Served, locked: str, tmp_path: Path) -> None:
    name = f"{locked}/private/thing:1"
    refused = served.docker("login", "-u", "tester", "--password-stdin", locked, stdin="wrong", ok=False)
    assert refused.returncode != 0
    assert "unauthorized" in refused.stderr.lower() or "does not accept" in refused.stderr
    served.docker("tag", BASE, name)
    assert served.docker("push", name, ok=False).returncode != 0
    assert (
        "Login Succeeded" in served.docker("login", "-u", "tester", "--password-stdin", locked, stdin=PASSWORD).stdout
    )
    assert "digest: sha256:" in served.docker("push", name).stdout
    served.docker("rmi", name)
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nRUN true\n")
    assert "Successfully built" in served.docker("build", "-q=false", "--pull", str(tmp_path)).stdout
    served.docker("rmi", name)
    served.docker("pull", name)
    other = name.replace(":1", ":2")
    served.docker("tag", name, other)
    served.docker("push", "-a", f"{locked}/private/thing")
    served.docker("rmi", other)
    every = served.docker("pull", "-a", f"{locked}/private/thing").stdout
    assert "1: Pulling from private/thing\n" in every
    assert every.endswith(f"Status: Downloaded newer image for {locked}/private/thing\n{locked}/private/thing\n")
    served.docker("rmi", other)
    served.docker("logout", locked)
    served.docker("rmi", name)
    told = served.docker("pull", name, ok=False)
    assert told.returncode != 0
    assert PASSWORD not in told.stderr


def test_distribution_and_its_errors(served: Served, locked: str) -> None:
    document = {"username": "tester", "password": PASSWORD, "serveraddress": locked}
    header = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")}
    served.docker("tag", BASE, f"{locked}/seen:1")
    pushed = served.call("POST", f"/images/{locked}/seen/push", params={"tag": "1"}, headers=header).text
    digest = next(json.loads(line)["aux"]["Digest"] for line in pushed.splitlines() if '"aux"' in line)
    found = served.call("GET", f"/distribution/{locked}/seen:1/json", headers=header).json()
    assert found["Descriptor"]["digest"] == digest
    assert found["Platforms"][0]["os"] == "linux"
    assert served.call("GET", f"/distribution/{locked}/seen:1/json").status_code == 401
    assert served.call("GET", f"/distribution/{locked}/none/json", headers=header).status_code == 404
    bad = served.call("GET", f"/distribution/{locked}/seen:1/json", headers={"X-Registry-Auth": "???"})
    assert bad.status_code == 401  # taken for none, as Docker does
    assert served.call("POST", "/auth", json={**document, "password": "x"}).status_code == 401
    assert served.call("POST", "/auth", json={}).status_code == 400
    served.docker("rmi", f"{locked}/seen:1")


def test_search_of_a_registry_that_has_one_and_of_one_that_has_a_catalog(served: Served, locked: str) -> None:
    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            rows = [
                {"name": "one", "description": "first", "star_count": 5, "is_official": True},
                {"name": "two", "star_count": 1},
            ]
            body = json.dumps({"results": rows}).encode()
            self.send_response(200 if self.path.startswith("/v1/search?q=thing") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}"
        found = served.docker("search", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}", f"{place}/thing").stdout
        assert found == "one 5 [OK]\ntwo 1 \n"
        some = served.docker("search", "--filter", "stars=3", "--format", "{{.Name}}", f"{place}/thing").stdout
        assert some == "one\n"
        assert "has no search" in served.docker("search", f"{place}/other", ok=False).stderr
        server.shutdown()
    auth = base64.urlsafe_b64encode(json.dumps({"username": "tester", "password": PASSWORD}).encode()).decode()
    served.docker("tag", BASE, f"{locked}/found:1")
    pushed = served.call("POST", f"/images/{locked}/found/push", params={"tag": "1"}, headers={"X-Registry-Auth": auth})
    assert '"aux"' in pushed.text
    served.docker("rmi", f"{locked}/found:1")
    rows = served.call(
        "GET", "/images/search", params={"term": f"{locked}/fo"}, headers={"X-Registry-Auth": auth}
    ).json()
    assert [row["name"] for row in rows] == [f"{locked}/found"]
    assert served.call("GET", "/images/search", params={"term": "x", "limit": 101}).status_code == 400
    assert served.call("GET", "/images/search", params={"term": "x", "filters": '{"a":["b"]}'}).status_code == 400


def test_no_credentials_are_kept(served: Served, data_root: Path) -> None:
    """AP-10: the password of the tests above is in no file of the data root (layers aside, which are the image's)."""
    assert files_with(data_root, PASSWORD) == []
