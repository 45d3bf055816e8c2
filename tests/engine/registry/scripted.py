"""A registry in memory that does what a test tells it to, and remembers every request that it got."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from engine.archive.writer import LayerWriter, TarEntry
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER_GZIP
from engine.oci.platform import Platform


def plain_layer(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = LayerWriter(out)
    for name, body in files.items():
        writer.add(TarEntry(name, "file", 0o644, size=len(body)), io.BytesIO(body))
    writer.finish()
    return out.getvalue()


def sample(
    layers: int = 3, size: int = 7000, *, media_type: str = OCI_LAYER_GZIP, seed: str = ""
) -> tuple[Manifest, dict[str, bytes]]:
    """An image of small gzip layers: its manifest, and its blobs by digest."""
    config, blobs, descriptors = ImageConfig.scratch(Platform.host()), dict[str, bytes](), []
    for number in range(layers):
        body = hashlib.shake_128(f"{seed}{number}".encode()).digest(size)
        plain = plain_layer({f"file{number}": body})
        data = gzip.compress(plain, mtime=0) if media_type.endswith("gzip") else plain
        blobs[Digest.of(data)] = data
        descriptors.append(Descriptor(media_type, Digest.of(data), len(data)))
        step = History("2020-01-01T00:00:00Z", f"step {number}")
        config = config.with_step(step, Digest.of(plain), "2020-01-01T00:00:00Z")
    raw = config.to_bytes()
    blobs[Digest.of(raw)] = raw
    return build_manifest(Descriptor(OCI_CONFIG, Digest.of(raw), len(raw)), descriptors), blobs


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    """What a script answers. `cut` breaks the connection after that many bytes of the body."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Script = Callable[["Request"], "Reply | None"]


class Scripted:
    """`script` sees each request first; None lets the registry answer as registries do."""

    def __init__(self, script: Script | None = None, *, host: str = "127.0.0.1") -> None:
        self.script: Script = script or (lambda request: None)
        self.seen: list[Seen] = []
        self.blobs: dict[str, bytes] = {}
        self.owned: set[tuple[str, str]] = set()
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.server = ThreadingHTTPServer((host, 0), type("Bound", (Request,), {"registry": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"{self.server.server_address[0]!s}:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, repository: str, tag: str, manifest: Manifest, blobs: dict[str, bytes]) -> None:
        for digest, data in blobs.items():
            self.blobs[digest] = data
            self.owned.add((repository, digest))
        for name in (tag, str(manifest.digest)):
            self.manifests[repository, name] = (manifest.raw, manifest.media_type)

    def requests(self, method: str = "", pattern: str = "") -> Sequence[Seen]:
        return [one for one in self.seen if method in ("", one.method) and re.search(pattern, one.path)]

    def credentials_seen(self) -> list[str]:
        return [one.headers["authorization"] for one in self.seen if "authorization" in one.headers]


class Request(BaseHTTPRequestHandler):
    registry: Scripted
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError, ValueError):
            self.close_connection = True

    def _body(self) -> bytes:
        self.read_body = True
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        wanted = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(wanted)

    def do_GET(self) -> None:
        self.url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(self.url.query).items()}
        lowered = {key.lower(): value for key, value in self.headers.items()}
        self.registry.seen.append(Seen(self.command, self.path, lowered))
        self.read_body = not (self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers)
        reply = self.registry.script(self)
        if reply is None:
            reply = self._usual()
        self.send(reply)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for key, value in reply.headers.items():
            self.send_header(key, value)
        body = reply.body
        if isinstance(body, bytes):
            if not any(key.lower() == "content-length" for key in reply.headers):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if reply.cut is None else body[: reply.cut])
        else:
            self.send_header("Connection", "close")
            self.end_headers()
            for chunk in body:
                self.wfile.write(chunk)
            self.close_connection = True
        if not self.read_body:
            self.close_connection = True
        if reply.cut is not None:
            self.wfile.flush()
            self.close_connection = True

    # --- as registries do -----------------------------------------------------------------------------

    def _usual(self) -> Reply:
        match = re.fullmatch(r"/v2/(?:(.+)/(manifests|blobs/uploads|blobs)/?([^/]*))?", self.url.path)
        if match is None:
            return Reply(404)
        repository, kind, name = match.groups()
        if repository is None:
            return Reply(200, b"{}")
        return {"manifests": self._manifest, "blobs": self._blob, "blobs/uploads": self._upload}[kind](repository, name)

    def _manifest(self, repository: str, name: str) -> Reply:
        if self.command == "PUT":
            raw, media_type = self._body(), self.headers["Content-Type"]
            for key in (name, str(Digest.of(raw))):
                self.registry.manifests[repository, key] = (raw, media_type)
            return Reply(201, headers={"Docker-Content-Digest": Digest.of(raw)})
        if (repository, name) not in self.registry.manifests:
            return Reply(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
        raw, media_type = self.registry.manifests[repository, name]
        return Reply(200, raw, {"Content-Type": media_type, "Docker-Content-Digest": Digest.of(raw)})

    def _blob(self, repository: str, name: str) -> Reply:
        if (repository, name) not in self.registry.owned:
            return Reply(404)
        data = self.registry.blobs[name]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return Reply(200, data)
        start = int(asked[1])
        return Reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

    def _upload(self, repository: str, name: str) -> Reply:
        registry = self.registry
        if self.command == "POST":
            mount, source = self.query.get("mount", ""), self.query.get("from", "")
            if (source, mount) in registry.owned:
                registry.owned.add((repository, mount))
                return Reply(201)
            name = uuid.uuid4().hex
            registry.uploads[name] = bytearray()
        if name not in registry.uploads:
            return Reply(404)
        data = registry.uploads[name]
        if self.command == "GET":
            return Reply(204, headers=self._where(repository, name))
        data += self._body()
        if self.command != "PUT":
            return Reply(202, headers=self._where(repository, name))
        digest = str(Digest.of(bytes(data)))
        if digest != self.query["digest"]:
            return Reply(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "digest differs"}]}')
        registry.blobs[digest] = bytes(registry.uploads.pop(name))
        registry.owned.add((repository, digest))
        return Reply(201)

    def _where(self, repository: str, name: str) -> dict[str, str]:
        end = max(0, len(self.registry.uploads[name]) - 1)
        return {"Location": f"/v2/{repository}/blobs/uploads/{name}?state={end}", "Range": f"0-{end}"}
