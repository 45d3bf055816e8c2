"""Our own registry: the specification's requests, and the clients that others use."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from engine.base.cancel import CancelToken
from engine.errors import Unauthorized
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_INDEX, OCI_MANIFEST
from engine.oci.reference import Reference
from engine.registry.config import Credentials, RegistryConfig, Retry
from engine.registry.push import push
from engine.registry.server import RegistryServer, Serving
from engine.service.images import ImageService
from engine.store.store import Store
from tests.engine.registry.scripted import sample
from tests.patience import PATIENCE

pytestmark = pytest.mark.root
FAST = RegistryConfig(retry=Retry(tries=3, base=0.001, cap=0.01))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RegistryServer]]:
    running: list[RegistryServer] = []

    def start(**options: object) -> RegistryServer:
        server = RegistryServer(Store(tmp_path / f"root{len(running)}"), Serving(port=0, **options))  # type: ignore[arg-type]
        threading.Thread(target=server.serve, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.close()
        server.store.close()


def client(server: RegistryServer, **options: object) -> httpx.Client:
    return httpx.Client(base_url=f"http://{server.address}", **options)  # type: ignore[arg-type]


def fill(server: RegistryServer, name: str = "team/app:1", seed: str = "") -> tuple[object, dict[str, bytes]]:
    manifest, blobs = sample(2, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        source = Store(Path(folder))
        for data in blobs.values():
            source.blobs.put(data)
        reference = Reference.parse(f"{server.address}/{name}")
        push(reference, manifest, source.blobs, FAST, progress=lambda one: None)
        source.close()
    return manifest, blobs


def test_pushed_here_is_an_image_here(serve: Callable[..., RegistryServer]) -> None:
    server = serve()
    manifest, blobs = fill(server)
    image = server.store.images.get("team/app:1")
    assert image.digest == manifest.digest  # type: ignore[attr-defined]
    assert server.store.check() == []
    server.store.sweep()
    with client(server) as http:
        for digest, data in blobs.items():
            assert http.get(f"/v2/team/app/blobs/{digest}").content == data
            part = http.get(f"/v2/team/app/blobs/{digest}", headers={"Range": "bytes=3-6"})
            assert (part.status_code, part.content) == (206, data[3:7])
            assert http.get(f"/v2/other/blobs/{digest}").status_code == 404
        assert http.get("/v2/_catalog").json() == {"repositories": ["team/app"]}


def test_what_is_here_is_served(serve: Callable[..., RegistryServer], tmp_path: Path) -> None:
    server = serve()
    fill(server)
    image = server.store.images.get("team/app:1")
    server.store.images.tag(image, Reference.parse("python:9"))
    other = Store(tmp_path / "other")
    for name in ("python:9", "library/python:9", f"team/app@{image.digest}"):
        pulled = ImageService(other).pull(f"{server.address}/{name}", lambda one: None, CancelToken())
        assert pulled.digest == image.digest
    other.close()


def test_uploads_in_parts_and_their_mistakes(serve: Callable[..., RegistryServer]) -> None:
    server = serve()
    data, half = b"0123456789" * 1000, 5000
    digest = Digest.of(data)
    with client(server) as http:
        place = http.post("/v2/a/blobs/uploads/").headers["Location"]
        first = http.patch(place, content=data[:half], headers={"Content-Range": f"0-{half - 1}"})
        assert (first.status_code, first.headers["Range"]) == (202, f"0-{half - 1}")
        wrong = http.patch(place, content=data[half:], headers={"Content-Range": f"{half + 1}-{len(data)}"})
        assert (wrong.status_code, wrong.headers["Range"]) == (416, f"0-{half - 1}")
        assert http.get(place).headers["Range"] == f"0-{half - 1}"
        assert http.patch(place, content=iter([data[half:7000], data[7000:]])).status_code == 202  # chunked coding
        assert http.put(place, params={"digest": digest}).status_code == 201
        assert http.get(f"/v2/a/blobs/{digest}").content == data
        one = http.post("/v2/a/blobs/uploads/", params={"digest": Digest.of(b"x")}, content=b"x")
        assert one.status_code == 201
        lie = http.post("/v2/a/blobs/uploads/", params={"digest": Digest.of(b"x")}, content=b"y")
        assert (lie.status_code, lie.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
        assert http.post("/v2/b/blobs/uploads/", params={"mount": digest, "from": "a"}).status_code == 201
        assert http.get(f"/v2/b/blobs/{digest}").content == data
        assert http.post("/v2/c/blobs/uploads/", params={"mount": digest, "from": "nobody"}).status_code == 202
        place = http.post("/v2/a/blobs/uploads/").headers["Location"]
        assert http.delete(place).status_code == 204
        assert http.get(place).status_code == 404
        for path in (
            "/v2/A/blobs/uploads/",
            "/v2/a/blobs/sha256:zz",
            "/v2/../etc/manifests/x",
            "/v2/a/blobs/uploads/../x",
        ):
            assert 400 <= http.post(path).status_code < 500
    assert list(server.store.tmp.glob("served-*")) != []  # the mount that was refused left an upload begun


def test_manifests_tags_deletes_and_referrers(serve: Callable[..., RegistryServer]) -> None:
    server = serve()
    manifest, blobs = sample(1)
    with client(server) as http:
        put = {"content": manifest.raw, "headers": {"Content-Type": OCI_MANIFEST}}
        missing = http.put("/v2/a/manifests/1", **put)  # type: ignore[arg-type]
        assert missing.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
        for digest, data in blobs.items():
            http.post("/v2/a/blobs/uploads/", params={"digest": digest}, content=data)
        for tag in ("1", "2", "3"):
            made = http.put(f"/v2/a/manifests/{tag}", **put)  # type: ignore[arg-type]
            assert made.headers["Docker-Content-Digest"] == manifest.digest
        page = http.get("/v2/a/tags/list", params={"n": 2})
        assert page.json()["tags"] == ["1", "2"]
        following = page.headers["Link"].split(">")[0].lstrip("<")
        assert http.get(following).json()["tags"] == ["3"]
        note = build_manifest(manifest.config, [])
        document = {
            **note.document,
            "artifactType": "application/example",
            "subject": manifest.descriptor.to_json(),
            "annotations": {"a": "b"},
        }
        raw = json.dumps(document).encode()
        answer = http.put(f"/v2/a/manifests/{Digest.of(raw)}", content=raw, headers={"Content-Type": OCI_MANIFEST})
        assert answer.headers["OCI-Subject"] == manifest.digest
        found = http.get(f"/v2/a/referrers/{manifest.digest}")
        assert found.headers["Content-Type"] == OCI_INDEX
        (entry,) = found.json()["manifests"]
        assert (entry["digest"], entry["artifactType"], entry["annotations"]) == (
            Digest.of(raw),
            "application/example",
            {"a": "b"},
        )
        none = http.get(f"/v2/a/referrers/{manifest.digest}", params={"artifactType": "other"})
        assert (none.json()["manifests"], none.headers["OCI-Filters-Applied"]) == ([], "artifactType")
        assert http.delete("/v2/a/manifests/1").status_code == 202
        assert http.get("/v2/a/manifests/1").status_code == 404
        assert http.get("/v2/a/manifests/2").status_code == 200
        assert http.delete(f"/v2/a/manifests/{manifest.digest}").status_code == 202
        assert http.get("/v2/a/tags/list").status_code == 404
        layer = manifest.layers[0].digest
        assert http.delete(f"/v2/a/blobs/{layer}").status_code == 202
        assert http.get(f"/v2/a/blobs/{layer}").status_code == 404
        huge = http.put("/v2/a/manifests/9", content=b" " * (5 << 20), headers={"Content-Type": OCI_MANIFEST})
        assert huge.status_code == 413
        confused = json.dumps({**manifest.document, "manifests": []}).encode()
        assert http.put("/v2/a/manifests/9", content=confused).status_code == 400


def test_read_only_and_passwords(serve: Callable[..., RegistryServer]) -> None:
    server = serve(read_only=True)
    with client(server) as http:
        assert http.get("/v2/").status_code == 200
        assert http.post("/v2/a/blobs/uploads/").status_code == 405
    guarded = serve(user="me", password="secret")
    with client(guarded) as http:
        assert http.get("/v2/").headers["WWW-Authenticate"].startswith("Basic")
        assert http.get("/v2/", auth=("me", "wrong")).status_code == 401
        assert http.get("/v2/", auth=("me", "secret")).status_code == 200
    with pytest.raises(Unauthorized):
        fill(guarded)


def test_a_client_that_says_nothing_or_nonsense(serve: Callable[..., RegistryServer]) -> None:
    server = serve()
    host, _, port = server.address.partition(":")
    silent = socket.create_connection((host, int(port)))
    for text in (
        b"GET /v2/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PATCH /v2/a/blobs/uploads/" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01junk\r\n\r\n",
    ):
        with socket.create_connection((host, int(port))) as raw:
            raw.settimeout(PATIENCE)
            raw.sendall(text)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                pass
    with client(server) as http:
        assert http.get("/v2/").status_code == 200
    silent.close()


@pytest.mark.peer("openssl")
def test_tls(serve: Callable[..., RegistryServer], tmp_path: Path) -> None:
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x".split()
    subprocess.run(
        ["openssl", *command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "k.pem", "-out", "c.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    server = serve(certificate=str(tmp_path / "c.pem"), key=str(tmp_path / "k.pem"))
    context = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
    with httpx.Client(base_url=f"https://{server.address}", verify=context) as http:
        assert http.get("/v2/").status_code == 200
        data = bytes(1 << 20)
        http.post("/v2/a/blobs/uploads/", params={"digest": Digest.of(data)}, content=data)
        assert http.get(f"/v2/a/blobs/{Digest.of(data)}").content == data


# --- the clients that others use ---------------------------------------------------------------------------


@pytest.mark.peer("skopeo")
def test_skopeo_pushes_and_pulls(serve: Callable[..., RegistryServer], tmp_path: Path) -> None:
    server = serve()
    manifest, _ = fill(server)
    name = f"docker://{server.address}/team/app"
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", f"{name}:1", f"oci:{tmp_path}/copy:1"], check=True
    )
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/copy:1", f"{name}:2"], check=True
    )
    assert server.store.images.get("team/app:2").digest == manifest.digest  # type: ignore[attr-defined]
    listed = subprocess.run(["skopeo", "list-tags", "--tls-verify=false", name], check=True, capture_output=True)
    assert json.loads(listed.stdout)["Tags"] == ["1", "2"]
    subprocess.run(["skopeo", "delete", "--tls-verify=false", f"{name}:1"], check=True)
    assert server.served.tags("docker.io/team/app") == []


@pytest.mark.peer("podman")
def test_podman_pulls_and_pushes(serve: Callable[..., RegistryServer]) -> None:
    server = serve(user="me", password="secret")
    manifest, blobs = sample(2)
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        source = Store(Path(folder) / "src")
        for data in blobs.values():
            source.blobs.put(data)
        config = RegistryConfig(credentials={server.address: Credentials("me", "secret")})
        name = f"{server.address}/team/app:1"
        push(Reference.parse(name), manifest, source.blobs, config, progress=lambda one: None)
        source.close()

        def podman(*args: str) -> str:
            command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
            return subprocess.run([*command, *args], check=True, capture_output=True, text=True).stdout

        access = ["--tls-verify=false", "--creds", "me:secret"]
        assert podman("pull", "-q", *access, name).strip() == manifest.config.digest.hex
        assert json.loads(podman("image", "inspect", name))[0]["Digest"] == manifest.digest
        podman("push", "-q", *access, name, f"{server.address}/team/copy:1")
    assert server.store.images.get("team/copy:1").config_digest == manifest.config.digest
