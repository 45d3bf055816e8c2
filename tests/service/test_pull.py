"""Pulls: from a real registry, and from ones that lie, break off or ask for credentials."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from engine.api import Engine
from engine.archive.writer import LayerWriter, TarEntry
from engine.errors import Corrupt, EngineError, NotFound, Unauthorized, Unavailable
from engine.local import open_engine
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from engine.oci.platform import Platform
from tests.serving import docker_registry

pytestmark = pytest.mark.root


def sample(layers: int = 3) -> tuple[Manifest, dict[str, bytes]]:
    """An image of small gzip layers: its manifest, and its blobs by digest."""
    config, blobs, descriptors = ImageConfig.scratch(Platform.host()), {}, []
    for number in range(layers):
        out = io.BytesIO()
        writer = LayerWriter(out)
        body = f"layer {number}".encode() * 1000
        writer.add(TarEntry(f"file{number}", "file", 0o644, size=len(body)), io.BytesIO(body))
        diff_id = writer.finish().diff_id
        data = gzip.compress(out.getvalue(), mtime=0)
        blobs[Digest.of(data)] = data
        descriptors.append(Descriptor(OCI_LAYER_GZIP, Digest.of(data), len(data)))
        config = config.with_step(History("2020-01-01T00:00:00Z", f"step {number}"), diff_id, "2020-01-01T00:00:00Z")
    raw = config.to_bytes()
    blobs[Digest.of(raw)] = raw
    return build_manifest(Descriptor(OCI_CONFIG, Digest.of(raw), len(raw)), descriptors), dict(blobs)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "docker-registry") as address:
        yield address


async def fetch(engine: Engine, name: str) -> None:
    async for _ in engine.pull(name):
        pass


@pytest.mark.peer("registry")
async def test_real_registry_by_tag_and_digest(registry: str, tmp_path: Path) -> None:
    manifest, blobs = sample()
    with httpx.Client(base_url=f"http://{registry}/v2/some/image") as client:
        for digest, data in blobs.items():
            place = client.post(f"http://{registry}/v2/some/image/blobs/uploads/").headers["Location"]
            assert (
                client.put(place, params={"digest": digest, **dict(httpx.URL(place).params)}, content=data).status_code
                == 201
            )
        put = client.put(
            f"http://{registry}/v2/some/image/manifests/1", content=manifest.raw, headers={"Content-Type": OCI_MANIFEST}
        )
        assert put.status_code == 201
    engine = await open_engine(tmp_path / "root")
    await fetch(engine, f"{registry}/some/image:1")
    await fetch(engine, f"{registry}/some/image@{manifest.digest}")
    detail = await engine.image(f"{registry}/some/image:1")
    assert detail.summary.digest == manifest.digest
    assert [layer.size for layer in detail.layers] == [7000, 7000, 7000]
    assert await engine.check() == []
    with pytest.raises(NotFound, match="nothing"):
        await fetch(engine, f"{registry}/some/nothing")
    await engine.close()
    await by_another_process(registry, tmp_path / "second", manifest)


async def by_another_process(registry: str, root: Path, manifest: Manifest) -> None:
    """What the app does: the same, with the same progress and errors."""
    engine = await open_engine(root)
    engine.draws()
    name = f"{registry}/some/image:1"
    phases = {event.phase async for event in engine.pull(name) if event.layer}
    assert phases >= {"extracting", "done"}
    detail = await engine.image(name)
    assert detail.summary.digest == manifest.digest
    pushed = f"{registry}/other/image:1"
    await engine.tag(name, pushed)
    assert "done" in {event.phase async for event in engine.push(pushed)}
    with pytest.raises(NotFound, match="nothing") as caught:
        await fetch(engine, f"{registry}/some/nothing")
    assert caught.value.hint
    await engine.close()


class Fake(BaseHTTPRequestHandler):
    """A registry scripted by `behaviour`."""

    behaviour = ""
    manifest, blobs = sample(1)
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        host = self.headers["Host"]
        if self.path.startswith("/token"):
            self._answer(200, b'{"token": "let-me-in"}')
        elif self.behaviour == "refuses":
            self._answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        elif self.behaviour == "token" and self.headers.get("Authorization") != "Bearer let-me-in":
            self._answer(
                401,
                b"{}",
                {"WWW-Authenticate": f'Bearer realm="http://{host}/token",service="s",scope="repository:a:pull"'},
            )
        elif "/manifests/" in self.path:
            self._answer(
                200, self.manifest.raw, {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": self.manifest.digest}
            )
        elif "/blobs/" in self.path:
            body = self.blobs[self.path.rpartition("/")[2]]
            if self.behaviour == "lies" and not body.startswith(b"{"):
                body = body[:-1] + bytes([body[-1] ^ 1])
            if self.behaviour == "stops" and not body.startswith(b"{"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self._answer(200, body)
        else:
            self._answer(200, b"{}")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [("lies", Corrupt), ("stops", EngineError), ("refuses", Unauthorized), ("token", None), ("", None)],
)
async def test_a_registry_that_misbehaves(tmp_path: Path, behaviour: str, error: type[Exception] | None) -> None:
    handler = type("Scripted", (Fake,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"127.0.0.1:{server.server_port}/a:1"
    engine = await open_engine(tmp_path / "root")
    try:
        if error is None:
            await fetch(engine, name)
            assert json.loads(json.dumps((await engine.image(name)).manifest))["schemaVersion"] == 2
        else:
            with pytest.raises(error) as caught:
                await fetch(engine, name)
            assert getattr(caught.value, "hint", "")
            assert await engine.images(all=True) == []
        assert await engine.check() == []
    finally:
        server.shutdown()
        server.server_close()
        await engine.close()


async def test_a_pull_by_another_process_is_cancelled(tmp_path: Path) -> None:
    """It waits for a registry that does not answer; closing the iterator ends the process, and waits for that."""

    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    before = children()  # of other tests
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = await open_engine(tmp_path / "root")
        engine.draws()
        events = engine.pull(f"127.0.0.1:{silent.getsockname()[1]}/some/image:1")
        assert (await anext(events)).phase == "resolving"
        assert children() - before
        await events.aclose()  # type: ignore[attr-defined]
        assert not children() - before
        await engine.close()


async def test_a_registry_that_is_down(tmp_path: Path) -> None:
    engine = await open_engine(tmp_path / "root")
    with pytest.raises(Unavailable, match="refused"):
        await fetch(engine, "127.0.0.1:1/a")
    await engine.close()
