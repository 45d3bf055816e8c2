"""A registry that lies, row by row of what has gone wrong elsewhere: nothing unverified is kept, no credential leaves."""

from __future__ import annotations

import itertools
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import Corrupt, EngineError, InvalidInput, NotFound, Unavailable, Unsupported
from engine.oci.digest import Digest
from engine.oci.manifest import build_manifest
from engine.oci.media import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.config import Credentials, RegistryConfig, Retry
from engine.registry.pull import pull
from engine.store.blobs import BlobStore
from tests.engine.registry.scripted import Reply, Request, Scripted, sample
from tests.patience import PATIENCE

FAST = Retry(tries=2, base=0.001, cap=0.01, connect_timeout=2.0, read_timeout=2.0)
PLATFORM = {"os": Platform.host().os, "architecture": Platform.host().architecture}
SECRET = Credentials("me", "secret")


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    (tmp_path / "tmp").mkdir()
    return BlobStore(tmp_path / "oci", tmp_path / "tmp")


def fetch(registry: Scripted, store: BlobStore, config: RegistryConfig | None = None, name: str = "a:1") -> None:
    config = config or RegistryConfig(credentials={registry.address: SECRET}, retry=FAST)
    reference = Reference.parse(f"{registry.address}/{name}")
    pull(reference, store, config, platform=Platform.host(), progress=lambda one: None)


def serve(registry: Scripted, raw: bytes, media_type: str) -> None:
    registry.manifests["a", "1"] = registry.manifests["a", str(Digest.of(raw))] = (raw, media_type)


def wants_login(request: Request) -> Reply | None:
    if request.headers.get("Authorization") is None:
        return Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    return None


def test_rg01_foreign_layers_and_their_addresses(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    other = scripted(wants_login)
    registry = scripted(wants_login)
    manifest, content = sample(1)
    layer = {
        **manifest.layers[0].to_json(),
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": [f"http://{other.address}/v2/a/blobs/{manifest.layers[0].digest}"],
    }
    raw = json.dumps({**manifest.document, "layers": [layer]}).encode()
    registry.add("a", "1", manifest, content)
    serve(registry, raw, OCI_MANIFEST)
    with pytest.raises(Unsupported):
        fetch(registry, blobs)
    assert other.seen == []
    assert blobs.digests() == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("form", ["http://{0}{1}", "http://user:pw@{0}{1}", "http://LOCALHOST:{2}{1}"])
def test_rg02_a_redirect_takes_no_credentials_along(
    blobs: BlobStore, scripted: Callable[..., Scripted], status: int, form: str
) -> None:
    manifest, content = sample(1)
    other = scripted()
    other.add("a", "1", manifest, content)

    def script(request: Request) -> Reply | None:
        if "/blobs/" in request.path and request.headers.get("Authorization"):
            target = form.format(other.address, request.path, other.server.server_port)
            return Reply(status, headers={"Location": target})
        return wants_login(request)

    registry = scripted(script)
    registry.add("a", "1", manifest, content)
    fetch(registry, blobs)
    assert other.seen
    assert other.credentials_seen() == []
    assert registry.credentials_seen()


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://0xa9fea9fe/", "http://0xa9.0xfea9fe/", "file:///etc/passwd", "ftp://127.0.0.1/",
     "http://0.0.0.0/", "//", "http://[::ffff:169.254.169.254]/"],
)  # fmt: skip
def test_rg02_and_rg03_where_a_registry_may_not_send_us(
    blobs: BlobStore, scripted: Callable[..., Scripted], target: str
) -> None:
    why = "redirects|refused" if target == "//" else "which is refused"
    redirecting = scripted(lambda request: Reply(307, headers={"Location": target}))
    with pytest.raises(EngineError, match=why):
        fetch(redirecting, blobs)
    challenge = {"WWW-Authenticate": f'Bearer realm="{target}",service="s"'}
    asking = scripted(lambda request: Reply(401, headers=challenge))
    with pytest.raises(EngineError, match=why):
        fetch(asking, blobs)
    assert asking.credentials_seen() + redirecting.credentials_seen() == []


def test_rg02_redirects_without_end(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    registry = scripted(lambda request: Reply(302, headers={"Location": request.path}))
    with pytest.raises(Unavailable, match="redirects"):
        fetch(registry, blobs)
    assert len(registry.seen) < 60


def test_rg04_no_plain_http_where_tls_is_expected(blobs: BlobStore) -> None:
    """A host that is neither loopback nor named insecure is spoken to over TLS or not at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        heard: list[bytes] = []

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                heard.append(connection.recv(16))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        mirror = f"https://127.0.0.1:{listener.getsockname()[1]}"
        config = RegistryConfig(mirrors={"registry.invalid": (mirror,)}, retry=FAST)
        with pytest.raises(Unavailable):
            pull(
                Reference.parse("registry.invalid/a:1"),
                blobs,
                config,
                platform=Platform.host(),
                progress=lambda one: None,
            )
    assert heard
    assert all(data.startswith(b"\x16\x03") for data in heard)  # TLS handshakes alone (RFC 8446, 5.1)


MANIFEST, _ = sample(1)
INDEX = {"schemaVersion": 2, "manifests": [MANIFEST.descriptor.to_json()]}
CONFUSED = [
    (OCI_MANIFEST, {**MANIFEST.document, "manifests": []}),
    (OCI_INDEX, {**INDEX, "layers": []}),
    (OCI_INDEX, {**INDEX, "config": MANIFEST.config.to_json()}),
    (OCI_MANIFEST, {**INDEX, "mediaType": OCI_INDEX}),
    (OCI_INDEX, {**MANIFEST.document}),
    (DOCKER_MANIFEST, {**MANIFEST.document}),
    (DOCKER_LIST, {**INDEX, "mediaType": OCI_INDEX}),
    (OCI_MANIFEST, {**MANIFEST.document, "schemaVersion": 1}),
    (OCI_MANIFEST, {**MANIFEST.document, "mediaType": 7}),
    ("application/vnd.docker.distribution.manifest.v1+json", {"schemaVersion": 1, "fsLayers": []}),
]


@pytest.mark.parametrize(("media_type", "document"), CONFUSED)
def test_rg05_one_document_of_two_types(
    blobs: BlobStore, scripted: Callable[..., Scripted], media_type: str, document: dict[str, object]
) -> None:
    registry = scripted()
    registry.add("a", "1", *sample(1))
    serve(registry, json.dumps(document).encode(), media_type)
    with pytest.raises((Corrupt, Unsupported, InvalidInput)):
        fetch(registry, blobs)
    assert blobs.digests() == []


@pytest.mark.parametrize("lie", ["flip", "cut", "append", "swap", "header"])
def test_rg06_bytes_that_are_not_their_digest(blobs: BlobStore, scripted: Callable[..., Scripted], lie: str) -> None:
    manifest, content = sample(2)
    first, second = (layer.digest for layer in manifest.layers)
    registry = scripted()
    registry.add("a", "1", manifest, content)
    data = content[first]
    if lie == "flip":
        registry.blobs[first] = bytes([data[0] ^ 1]) + data[1:]
    elif lie == "cut":
        registry.blobs[first] = data[:-1]
    elif lie == "append":
        registry.blobs[first] = data + b"x"
    elif lie == "swap":
        registry.blobs[first], registry.blobs[second] = registry.blobs[second], registry.blobs[first]
    else:
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": f"sha256:{'0' * 64}"}
        registry.script = lambda request: Reply(200, manifest.raw, headers) if "/manifests/" in request.path else None
    with pytest.raises((Corrupt, Unavailable)):
        fetch(registry, blobs)
    assert not blobs.has(first)
    assert not blobs.has(manifest.digest)


def test_rg06_manifests_that_are_not_what_was_named(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    """By digest, and by an index's descriptor: other bytes, and another size, without a header that gives them away."""
    named, other = sample(1)[0], sample(1, seed="other")[0]
    registry = scripted(
        lambda request: Reply(200, other.raw, {"Content-Type": OCI_MANIFEST}) if "sha256:" in request.path else None
    )
    with pytest.raises(Corrupt, match=f"its bytes are not {named.digest}"):
        fetch(registry, blobs, name=f"a@{named.digest}")
    for size, why in ((named.size, "its bytes are not|bytes where"), (named.size + 1, "bytes where")):
        child = {**replace(other.descriptor, digest=named.digest, size=size).to_json(), "platform": PLATFORM}
        raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
        registry.manifests["a", "1"] = (raw, OCI_INDEX)
        with pytest.raises(Corrupt, match=why):
            fetch(registry, blobs)
    assert blobs.digests() == []


BAD_DIGESTS = ["", ":", "sha256:", "sha256:..", "sha256:../../x", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "md5:" + "0" * 32, "x" * 1_000_000, None, 7]  # fmt: skip


@pytest.mark.parametrize("digest", BAD_DIGESTS, ids=lambda one: str(one)[:20])
@pytest.mark.parametrize("place", ["config", "layers", "manifests", "diff_ids"])
def test_rg07_digests_that_are_none(
    blobs: BlobStore, scripted: Callable[..., Scripted], digest: object, place: str
) -> None:
    manifest, content = sample(1)
    registry = scripted()
    registry.add("a", "1", manifest, content)
    if place == "manifests":
        raw = json.dumps(
            {"schemaVersion": 2, "manifests": [{**MANIFEST.descriptor.to_json(), "digest": digest}]}
        ).encode()
        serve(registry, raw, OCI_INDEX)
    elif place == "diff_ids":
        config = json.loads(content[manifest.config.digest])
        config["rootfs"]["diff_ids"] = [digest]
        raw = json.dumps(config).encode()
        entry = {**manifest.config.to_json(), "digest": Digest.of(raw), "size": len(raw)}
        registry.blobs[Digest.of(raw)] = raw
        registry.owned.add(("a", Digest.of(raw)))
        serve(registry, json.dumps({**manifest.document, "config": entry}).encode(), OCI_MANIFEST)
    else:
        bad = {**manifest.layers[0].to_json(), "digest": digest}
        value = bad if place == "config" else [bad]
        serve(registry, json.dumps({**manifest.document, place: value}).encode(), OCI_MANIFEST)
    with pytest.raises((Corrupt, InvalidInput, NotFound, Unsupported)):
        fetch(registry, blobs)
    assert blobs.digests() == []


def endless(piece: bytes = b"[" * 65536) -> Iterator[bytes]:
    return itertools.repeat(piece, 1 << 12)  # 256 MiB if anybody takes it


@pytest.mark.parametrize("where", ["manifests", "config", "token", "error"])
def test_rg08_bodies_without_end(blobs: BlobStore, scripted: Callable[..., Scripted], where: str) -> None:
    manifest, content = sample(1)

    def script(request: Request) -> Reply | None:
        if where == "token":
            if request.url.path == "/token":
                return Reply(200, endless())
            realm = f'Bearer realm="http://{request.headers["Host"]}/token"'
            return Reply(401, headers={"WWW-Authenticate": realm})
        if where == "error":
            return Reply(400, endless())
        if where == "config" and manifest.config.digest in request.path:
            return Reply(200, endless())
        return Reply(200, endless()) if f"/{where}/" in request.path else None

    registry = scripted(script)
    registry.add("a", "1", manifest, content)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(EngineError):
        fetch(registry, blobs)
    assert time.monotonic() - start < PATIENCE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert blobs.digests() == []


def test_rg08_an_encoded_manifest_is_not_unpacked(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    import gzip

    bomb = gzip.compress(bytes(64 << 20))
    headers = {"Content-Encoding": "gzip", "Content-Type": OCI_MANIFEST}
    registry = scripted(lambda request: Reply(200, bomb, headers))
    with pytest.raises(Corrupt):
        fetch(registry, blobs)


def test_rg12_indexes_that_go_in_circles_or_on_and_on(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    registry = scripted()
    inner, content = sample(1)
    registry.add("a", "1", inner, content)
    entry = inner.descriptor.to_json()
    platform = {"os": "linux", "architecture": Platform.host().architecture}
    for _ in range(10):
        raw = json.dumps({"schemaVersion": 2, "manifests": [{**entry, "platform": platform}]}).encode()
        serve(registry, raw, OCI_INDEX)
        entry = {"mediaType": OCI_INDEX, "digest": Digest.of(raw), "size": len(raw)}
    with pytest.raises(Corrupt, match="without end"):
        fetch(registry, blobs)
    many = json.dumps({"schemaVersion": 2, "manifests": [inner.descriptor.to_json()] * 10_001}).encode()
    serve(registry, many, OCI_INDEX)
    with pytest.raises(Corrupt):
        fetch(registry, blobs)
    layers = [inner.layers[0]] * 600
    serve(registry, build_manifest(inner.config, layers).raw, OCI_MANIFEST)
    with pytest.raises(Corrupt, match="names 1 layers"):
        fetch(registry, blobs)
    assert not blobs.has(inner.layers[0].digest)


def test_stalled_bodies_end(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    manifest, content = sample(1)
    release = threading.Event()

    def script(request: Request) -> Reply | None:
        if "/blobs/" in request.path:
            release.wait(PATIENCE)
        return None

    registry = scripted(script)
    registry.add("a", "1", manifest, content)
    config = RegistryConfig(retry=Retry(tries=1, read_timeout=0.3))
    start = time.monotonic()
    with pytest.raises(Unavailable, match="timed out"):
        fetch(registry, blobs, config)
    release.set()
    assert time.monotonic() - start < PATIENCE
