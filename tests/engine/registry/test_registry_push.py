"""Pushes: what goes over the wire, what does not, and how a cut is mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from engine.base.cancel import CancelToken
from engine.errors import Corrupt, InvalidInput, Unauthorized, Unavailable, Unsupported
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import Manifest, build_manifest
from engine.oci.media import DOCKER_FOREIGN
from engine.oci.reference import Reference
from engine.registry.blob import BlobProgress
from engine.registry.config import Credentials, RegistryConfig, Retry
from engine.registry.connections import Connections
from engine.registry.push import plan_push, push
from engine.store.blobs import BlobStore
from engine.store.uploads import Uploads
from tests.engine.registry.scripted import Reply, Request, Scripted, sample

FAST = RegistryConfig(retry=Retry(tries=3, base=0.001, cap=0.01))
MIB = 1 << 20


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    (tmp_path / "tmp").mkdir()
    return BlobStore(tmp_path / "oci", tmp_path / "tmp")


def fill(store: BlobStore, content: dict[str, bytes]) -> None:
    for data in content.values():
        store.put(data)


def send(
    registry: Scripted,
    manifest: Manifest,
    store: BlobStore,
    name: str = "team/app:1",
    *,
    config: RegistryConfig = FAST,
    mounts: dict[object, list[str]] | None = None,
    held: list[Manifest] | None = None,
    journal: Uploads | None = None,
) -> list[BlobProgress]:
    told: list[BlobProgress] = []
    reference = Reference.parse(f"{registry.address}/{name}")
    push(
        reference,
        manifest,
        store,
        config,
        progress=told.append,
        mounts=lambda: mounts or {},  # type: ignore[arg-type,return-value]
        held=lambda: held or (),
        journal=journal,
    )
    return told


def test_everything_arrives_once_and_as_it_was(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    registry = scripted()
    manifest, content = sample(3, 2 * MIB)
    fill(blobs, content)
    told = send(registry, manifest, blobs)
    assert registry.manifests["team/app", "1"] == (manifest.raw, manifest.media_type)
    assert registry.blobs == content
    assert {one.digest: one.phase for one in told} == dict.fromkeys(content, "done")
    uploads = len(registry.requests("PATCH"))
    assert uploads == 3  # the config went with the closing PUT
    told = send(registry, manifest, blobs)
    assert {one.phase for one in told} == {"waiting", "exists"}
    assert len(registry.requests("PATCH")) == uploads


def test_a_manifest_that_is_there_speaks_for_its_blobs(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    registry = scripted()
    first, content = sample(3)
    second, more = sample(1, seed="other")
    fill(blobs, {**content, **more})
    send(registry, first, blobs, "team/app:1")
    registry.manifests["team/app", first.digest] = (first.raw, first.media_type)
    changed = build_manifest(second.config, [*first.layers, *second.layers])
    registry.seen.clear()
    told = send(registry, changed, blobs, "team/app:2", held=[second, first])
    assert {one.digest for one in told if one.phase == "exists"} == {layer.digest for layer in first.layers}
    asked = [seen.path.rpartition("/")[2] for seen in registry.requests("HEAD")]
    assert sorted(asked) == sorted([first.digest, second.digest])  # what is small is as quickly sent as asked for
    assert registry.manifests["team/app", "2"] == (changed.raw, changed.media_type)
    # A registry that has lost the manifest is asked for each blob.
    del registry.manifests["team/app", first.digest]
    registry.seen.clear()
    send(registry, first, blobs, "team/app:3", held=[first])
    assert len(registry.requests("HEAD", "/blobs/")) == 4


def test_what_a_repository_had_a_moment_ago_is_not_asked_for(
    blobs: BlobStore, scripted: Callable[..., Scripted]
) -> None:
    def strict(request: Request) -> Reply | None:
        if request.command == "PUT" and "/manifests/" in request.path:
            raw = request._body()
            document = json.loads(raw)
            wanted = {one["digest"] for one in (*document["layers"], document["config"])}
            if wanted - {digest for repository, digest in registry.owned if repository == "team/app"}:
                return Reply(400, b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown"}]}')
            registry.manifests["team/app", request.path.rpartition("/")[2]] = (raw, "")
            return Reply(201)
        return None

    registry = scripted(strict)
    first, content = sample(3)
    layer, more = sample(1, seed="other")
    fill(blobs, {**content, **more})
    memory = Connections()
    config = replace(FAST, connections=memory)
    send(registry, first, blobs, config=config)
    changed = build_manifest(layer.config, [*first.layers, *layer.layers])
    asked = len(registry.seen)
    told = send(registry, changed, blobs, "team/app:2", config=config)
    assert {one.digest for one in told if one.phase == "exists"} == {one.digest for one in first.layers}
    assert {one.digest for one in told if one.phase == "done"} == set(more)
    assert sorted(one.method for one in registry.seen[asked:]) == ["POST", "POST", "PUT", "PUT", "PUT"]
    # A blob that the registry lost meanwhile: it says so, and gets it.
    registry.owned.discard(("team/app", str(first.layers[1].digest)))
    send(registry, changed, blobs, "team/app:3", config=config)
    assert registry.manifests["team/app", "3"][0] == changed.raw
    assert ("team/app", str(first.layers[1].digest)) in registry.owned
    # One that takes nothing at all: an error, and no circle.
    registry.owned.clear()
    registry.script = lambda request: (
        Reply(400, b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}') if "/manifests/" in request.path else None
    )
    with pytest.raises(Unavailable, match="MANIFEST_BLOB_UNKNOWN"):
        send(registry, changed, blobs, "team/app:4", config=config)
    memory.close()


def test_small_blobs_go_side_by_side_and_what_goes_wrong_is_done_again(
    blobs: BlobStore, scripted: Callable[..., Scripted]
) -> None:
    """One changed layer: all uploads are begun before the first is ended, from one thread, whatever the registry does to them."""
    first, content = sample(2)
    fill(blobs, content)

    def changed(number: int) -> Manifest:
        other, more = sample(1, seed=f"other{number}")
        fill(blobs, more)
        return build_manifest(other.config, [*first.layers, *other.layers])

    wrong: list[Callable[[Request], Reply | None]] = [
        lambda request: None,
        lambda request: Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'}),
        lambda request: Reply(503),
        lambda request: Reply(202, headers={"Location": "/v2/team/app/blobs/uploads/no-such"}),
        lambda request: Reply(202, b"x" * 10, cut=2),
        lambda request: Reply(202),
        lambda request: Reply(500) if request.command == "PUT" else None,
        lambda request: Reply(400, b'{"errors": []}') if request.command == "PUT" else None,
    ]
    for number, reply in enumerate(wrong):
        left = [2]

        def script(
            request: Request, reply: Callable[[Request], Reply | None] = reply, left: list[int] = left
        ) -> Reply | None:
            if not left[0] or "/blobs/uploads/" not in request.path or (answer := reply(request)) is None:
                return None
            left[0] -= 1
            request._body()
            return answer

        registry = scripted()
        known = replace(FAST, connections=Connections(), credentials={registry.address: Credentials("me", "word")})
        send(registry, first, blobs, config=known)
        registry.script = script
        registry.seen.clear()
        image = changed(number)
        told = send(registry, image, blobs, "team/app:2", config=known)
        assert registry.manifests["team/app", "2"] == (image.raw, image.media_type), number
        digests = {image.config.digest, *(layer.digest for layer in image.layers)}
        assert {one.digest: one.phase for one in told} == {
            one: "exists" if one in content else "done" for one in digests
        }
        assert {("team/app", str(one)) for one in digests} <= registry.owned
        assert not number or not left[0]
        if not number:
            assert sorted(seen.method for seen in registry.seen) == ["POST", "POST", "PUT", "PUT", "PUT"]
        assert known.connections is not None
        known.connections.close()


def test_a_neighbours_blob_is_mounted_and_not_sent(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    registry = scripted()
    manifest, content = sample(2, 2 * MIB)
    fill(blobs, content)
    registry.add("base/image", "1", manifest, content)
    layer = manifest.layers[0].digest
    told = send(registry, manifest, blobs, mounts={layer: ["base/image"], manifest.layers[1].digest: ["no/such"]})
    last = {one.digest: one for one in told}
    assert (last[layer].phase, last[layer].detail) == ("mounted", "base/image")
    assert last[manifest.layers[1].digest].phase == "done"
    assert len(registry.requests("PATCH")) == 1


def test_a_cut_upload_goes_on_where_the_registry_stopped(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    manifest, content = sample(1, 8 * MIB)
    fill(blobs, content)
    cuts = [3 * MIB, 2 * MIB]

    def cut(request: Request) -> Reply | None:
        if request.command == "PATCH" and cuts:
            name = request.url.path.rpartition("/")[2]
            request.registry.uploads[name] += request.rfile.read(cuts.pop())
            request.close_connection = True
            raise ConnectionError
        return None

    registry = scripted(cut)
    send(registry, manifest, blobs)
    assert registry.blobs == content
    ranges = [one.headers.get("content-range", "").split("-")[0] for one in registry.requests("PATCH")]
    assert ranges == ["", str(2 * MIB), str(5 * MIB)]
    assert len(registry.requests("POST")) == 2  # the layer's and the config's


def test_an_upload_goes_on_in_another_process(
    blobs: BlobStore, scripted: Callable[..., Scripted], tmp_path: Path
) -> None:
    manifest, content = sample(1, 8 * MIB)
    fill(blobs, content)
    journal = Uploads(blobs.tmp)
    broken = [True]

    def cut(request: Request) -> Reply | None:
        if request.command == "PATCH" and broken[0]:
            name = request.url.path.rpartition("/")[2]
            request.registry.uploads[name] += request.rfile.read(3 * MIB)
            request.close_connection = True
            raise ConnectionError
        return Reply(503) if broken[0] and request.command == "GET" else None

    registry = scripted(cut)
    with pytest.raises(Unavailable):
        send(registry, manifest, blobs, journal=journal, config=RegistryConfig(retry=Retry(tries=1)))
    broken[0] = False
    send(registry, manifest, blobs, journal=Uploads(blobs.tmp))
    assert registry.blobs == content
    assert (
        registry.requests("PATCH")[-1].headers["content-range"]
        == f"{3 * MIB}-{len(max(content.values(), key=len)) - 1}"
    )
    assert list(blobs.tmp.glob("upload-*")) == []


def test_a_registry_that_forgets_uploads_gets_the_blob_anew(
    blobs: BlobStore, scripted: Callable[..., Scripted]
) -> None:
    manifest, content = sample(1, 4 * MIB)
    fill(blobs, content)
    forget = [True]

    def script(request: Request) -> Reply | None:
        if request.command == "PATCH" and forget and forget.pop():
            request.registry.uploads.clear()
        return None

    registry = scripted(script)
    send(registry, manifest, blobs)
    assert registry.blobs == content


def test_storms_are_waited_out_and_refusals_are_not(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    manifest, content = sample(2)
    fill(blobs, content)
    storm = [Reply(429, headers={"Retry-After": "0"}), Reply(503), Reply(500)]
    registry = scripted(lambda request: storm.pop() if storm else None)
    send(registry, manifest, blobs)
    assert registry.manifests
    refused = scripted(lambda request: Reply(403, b'{"errors": [{"message": "read only"}]}'))
    with pytest.raises(Unauthorized, match="does not let us write"):
        send(refused, manifest, blobs)
    assert 1 <= len(refused.seen) <= 5


def test_damaged_blobs_and_foreign_layers_are_not_pushed(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    registry = scripted()
    manifest, content = sample(1)
    fill(blobs, content)
    path = blobs.path(manifest.layers[0].digest)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(Corrupt, match="refuses blob") as caught:
        send(registry, manifest, blobs)
    assert "check --repair" in str(caught.value.hint)
    assert not registry.manifests
    foreign = build_manifest(manifest.config, [Descriptor(DOCKER_FOREIGN, manifest.layers[0].digest, 1)])
    with pytest.raises(Unsupported, match="not distributable"):
        plan_push(foreign, blobs.read)
    with pytest.raises(InvalidInput, match="digest is"):
        send(registry, manifest, blobs, f"a@{manifest.config.digest}")


def test_an_upload_address_elsewhere_gets_no_credentials(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    """RG-01's class on the way up: the address of an upload may be another host's."""
    manifest, content = sample(1)
    fill(blobs, content)
    other = scripted()

    def script(request: Request) -> Reply | None:
        if request.headers.get("Authorization") is None:
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        if request.command == "POST":
            return Reply(202, headers={"Location": f"http://{other.address}/take/it"})
        return None

    registry = scripted(script)
    from engine.registry.config import Credentials

    config = RegistryConfig(credentials={registry.address: Credentials("me", "secret")}, retry=FAST.retry)
    with pytest.raises(Unavailable):
        send(registry, manifest, blobs, config=config)
    assert other.seen
    assert other.credentials_seen() == []


def test_cancelling_stops_a_push_at_once(blobs: BlobStore, scripted: Callable[..., Scripted]) -> None:
    from engine.errors import Cancelled

    manifest, content = sample(1, 8 * MIB)
    fill(blobs, content)
    token = CancelToken()

    def script(request: Request) -> Reply | None:
        if request.command == "PATCH":
            token.cancel()
            request.rfile.read(8 * MIB)
        return None

    registry = scripted(script)
    with pytest.raises(Cancelled):
        push(Reference.parse(f"{registry.address}/a"), manifest, blobs, FAST, progress=lambda one: None, cancel=token)
    assert not registry.manifests


@pytest.mark.peer("registry")
def test_a_real_registry_takes_it(blobs: BlobStore, docker_registry: str) -> None:
    manifest, content = sample(3, 2 * MIB)
    fill(blobs, content)
    told: list[BlobProgress] = []
    for name in ("one/app:1", "two/app:1"):
        push(
            Reference.parse(f"{docker_registry}/{name}"),
            manifest,
            blobs,
            FAST,
            progress=told.append,
            mounts=lambda: {digest: ["one/app"] for digest in (layer.digest for layer in manifest.layers)},
        )
    answer = httpx.get(f"http://{docker_registry}/v2/two/app/manifests/1", headers={"accept": manifest.media_type})
    assert answer.content == manifest.raw
    assert answer.headers["docker-content-digest"] == manifest.digest
    assert sum(one.phase == "mounted" for one in told) == 3


@pytest.mark.root
def test_the_push_verb(tmp_path: Path, scripted: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    from engine.cli.main import main
    from engine.oci.config import ImageConfig
    from engine.store.store import Store

    registry = scripted()
    manifest, content = sample(1)
    store = Store(tmp_path / "root")
    fill(store.blobs, content)
    tags = [Reference.parse(f"{registry.address}/team/app:{tag}") for tag in ("latest", "2")]
    store.images.put(manifest, ImageConfig.parse(content[manifest.config.digest]), 0, tags)
    store.close()
    push_ = ["--root", str(tmp_path / "root"), "push"]
    assert main([*push_, tags[0].name]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Using default tag: latest"
    assert said[1] == f"The push refers to repository [{tags[0].name}]"
    assert f"{manifest.layers[0].digest.short}: Pushed" in said
    assert said[-1] == f"latest: digest: {manifest.digest} size: {manifest.size}"
    assert main(["--root", str(tmp_path / "root"), "image", "push", "-a", "-q", tags[0].name]) == 0
    assert capsys.readouterr().out.splitlines() == sorted(map(str, tags))
    assert set(registry.manifests) == {("team/app", name) for name in ("latest", "2", str(manifest.digest))}
    assert main([*push_, f"{registry.address}/nothing"]) == 1
