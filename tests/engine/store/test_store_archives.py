"""Archives of images: both ways with the tools that others use, and ones that lie."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.cancel import CancelToken
from engine.errors import Corrupt, EngineError, HostileArchive, InvalidInput, NotFound, StorageFull, Unsupported
from engine.model import ImageImport, LoadedImage
from engine.oci.digest import Digest
from engine.oci.media import OCI_LAYER
from engine.oci.reference import Reference
from engine.service.archives import ArchiveService
from engine.store.images import Image
from engine.store.store import Store
from tests.engine.registry.scripted import plain_layer, sample

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "root")
    yield store
    store.close()


def record(store: Store, name: str = "team/app:1", **kwargs: object) -> Image:
    manifest, blobs = sample(**kwargs)  # type: ignore[arg-type]
    for data in blobs.values():
        store.blobs.put(data)
    from engine.oci.config import ImageConfig

    config = ImageConfig.parse(blobs[manifest.config.digest])
    return store.images.put(manifest, config, 0, [Reference.parse(name)] if name else [])


def saved(store: Store, *names: str, format: str = "docker-archive") -> bytes:
    out = io.BytesIO()
    ArchiveService(store).save(names, out, lambda one: None, CancelToken(), format=format)  # type: ignore[arg-type]
    return out.getvalue()


def loaded(store: Store, data: bytes) -> list[LoadedImage]:
    told: list[object] = []
    ArchiveService(store).load(io.BytesIO(data), told.append, CancelToken())
    return [one for one in told if isinstance(one, LoadedImage)]


def pack(files: dict[str, bytes | str]) -> bytes:
    """A tar of files, and of symbolic links where the value is text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def docker_archive(**changes: object) -> dict[str, bytes | str]:
    """What `docker save` before 25 writes: plain layers in folders, the second image's through a link."""
    manifest, blobs = sample(2, media_type=OCI_LAYER)
    config = blobs[manifest.config.digest]
    layers = [blobs[layer.digest] for layer in manifest.layers]
    entry: dict[str, object] = {
        "Config": f"{Digest.of(config).hex}.json",
        "RepoTags": ["old/app:2"],
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }
    return {
        "one/layer.tar": layers[0],
        "shared.tar": layers[1],
        "two/layer.tar": "../shared.tar",
        f"{Digest.of(config).hex}.json": config,
        "manifest.json": json.dumps([{**entry, **changes}]).encode(),
    }


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("pressed", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_what_is_saved_loads_with_the_same_digests(store: Store, tmp_path: Path, format: str, pressed: object) -> None:
    image = record(store)
    store.images.tag(image, Reference.parse("other:9"))
    second = record(store, "", seed="b")
    data = saved(store, "team/app", "other:9", second.config_digest, format=format)
    other = Store(tmp_path / "other")
    got = loaded(other, pressed(data))  # type: ignore[operator]
    assert [(one.digest, one.tags) for one in got] == [
        (image.digest, ("team/app:1", "other:9")),
        (second.digest, ()),
    ]
    assert [problem.text for problem in other.check()] == []
    assert saved(other, "team/app", "other:9", second.config_digest, format=format) == data
    other.close()


def test_a_repository_means_all_its_tags_and_nothing_is_an_error(store: Store) -> None:
    image = record(store, "a/b:1")
    store.images.tag(image, Reference.parse("a/b:2"))
    with tarfile.open(fileobj=io.BytesIO(saved(store, "a/b"))) as tar:
        entries = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert [entry["RepoTags"] for entry in entries] == [["a/b:1", "a/b:2"]]
    with pytest.raises(NotFound):
        saved(store, "a/c")


def test_docker_archives_of_before_25(store: Store) -> None:
    data = pack(docker_archive())
    (got,) = loaded(store, data)
    assert got.tags == ("old/app:2",)
    assert [layer.media_type for layer in store.images.manifest(store.images.get("old/app:2")).layers] == [
        OCI_LAYER
    ] * 2
    again = loaded(store, pack(docker_archive(RepoTags=["new:1"])))
    assert again[0].digest == got.digest
    assert store.images.get(got.id).familiar_tags == ("new:1", "old/app:2")


def test_a_tag_never_moves_without_a_word(store: Store) -> None:
    """RG-14."""
    old = record(store, "team/app:1", seed="x")
    (got,) = loaded(store, pack(docker_archive(RepoTags=["team/app:1"])))
    assert got.moved == (
        f"The image team/app:1 already exists, renaming the old one with ID {old.config_digest} to empty string",
    )
    assert store.images.get("team/app:1").config_digest == got.id
    assert store.images.get(old.config_digest).tags == ()


class Endless(io.RawIOBase):
    """A tar whose one file never ends."""

    def __init__(self, head: bytes) -> None:
        self.head, self.given = head, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        piece = self.head[self.given : self.given + len(view)] or b"{" * len(view)
        view[: len(piece)] = piece
        self.given += len(piece)
        return len(piece)


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("name", ["index.json", "manifest.json", f"{'a' * 64}.json", "repositories.json"])
def test_a_document_without_end_is_refused_at_its_head(store: Store, name: str) -> None:
    """RG-09 (CVE-2023-25153)."""
    endless = Endless(header(name, 10 << 30))
    with pytest.raises(HostileArchive, match="a document has at most"):
        ArchiveService(store).load(io.BufferedReader(endless), lambda one: None, CancelToken())
    assert endless.given < 1 << 20


def test_a_layer_larger_than_the_disk_is_refused_at_its_head(store: Store) -> None:
    endless = Endless(header("layer.tar", 1 << 50))
    with pytest.raises(StorageFull, match="are free"):
        ArchiveService(store).load(io.BufferedReader(endless), lambda one: None, CancelToken())
    assert endless.given < 1 << 20


HOSTILE: list[tuple[dict[str, bytes | str], type[EngineError], str]] = [
    ({}, InvalidInput, "neither index.json nor manifest.json"),
    ({"../manifest.json": b"[]"}, HostileArchive, "leave the archive"),
    ({"manifest.json": b"{}"}, Corrupt, "not a list"),
    ({"manifest.json": b"[" * 100_000}, Corrupt, "not JSON"),
    ({"manifest.json": b'[{"Config": null}]'}, Corrupt, "without a Config"),
    ({"manifest.json": b'[{"Config": "a", "Layers": [1]}]'}, Corrupt, "not paths"),
    ({"manifest.json": b'[{"Config": "../../etc/passwd"}]'}, HostileArchive, "leave the archive"),
    ({"manifest.json": b'[{"Config": "nowhere.json"}]'}, Corrupt, "does not hold it"),
    ({"manifest.json": "manifest.json"}, InvalidInput, "neither"),
    ({"manifest.json": b'[{"Config": "a"}]', "a": "b", "b": "a"}, HostileArchive, "without end"),
    (docker_archive(Layers=["one/layer.tar"]), Corrupt, "names 2 layers"),
    (docker_archive(Layers=["one/layer.tar", "one/layer.tar"]), Corrupt, "diff ID"),
    (docker_archive(Layers=["one/layer.tar", "../x"]), HostileArchive, "leave the archive"),
    (docker_archive(RepoTags=["UPPER:1"]), InvalidInput, "lower case"),
    (docker_archive(RepoTags=[f"a@sha256:{'0' * 64}"]), InvalidInput, "not a name with a tag"),
    (docker_archive(RepoTags="a:1"), Corrupt, "not names"),
    ({"repositories": b"{}"}, Unsupported, r"before 1\.10"),
    ({"oci-layout": b'{"imageLayoutVersion": "9"}', "index.json": b"{}"}, Unsupported, r"1\.0\.0"),
    ({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b'{"schemaVersion":2,"manifests":[]}'}, InvalidInput, "no image"),
    ({f"blobs/sha256/{'0' * 64}": b"x"}, Corrupt, "does not hash to its name"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "error", "message"), HOSTILE, ids=[case[2] for case in HOSTILE])
def test_archives_that_lie(store: Store, files: dict[str, bytes | str], error: type[EngineError], message: str) -> None:
    with pytest.raises(error, match=message):
        loaded(store, pack(files))
    assert store.images.list() == []


@pytest.mark.parametrize(
    "digest", ["", ":", "sha256:", "sha256:..", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "x" * 1_000_000, None]
)
def test_digests_that_are_none(store: Store, digest: str | None) -> None:
    """RG-07: in index.json, and in the manifest behind it."""
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 2}
    layout = b'{"imageLayoutVersion":"1.0.0"}'
    with pytest.raises((InvalidInput, Corrupt)):
        loaded(
            store,
            pack({"oci-layout": layout, "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()}),
        )
    inner = json.dumps({"schemaVersion": 2, "config": entry, "layers": [entry]}).encode()
    outer = {"schemaVersion": 2, "manifests": [{**entry, "digest": Digest.of(inner), "size": len(inner)}]}
    files = {
        "oci-layout": layout,
        "index.json": json.dumps(outer).encode(),
        f"blobs/sha256/{Digest.of(inner).hex}": inner,
    }
    with pytest.raises((InvalidInput, Corrupt)):
        loaded(store, pack(dict(files)))
    assert store.images.list() == []


def test_archives_cut_at_every_block(store: Store) -> None:
    data = pack(docker_archive())
    for end in range(0, len(data) - 10240, 512):
        with pytest.raises((Corrupt, InvalidInput)):
            loaded(store, data[:end])
    assert store.images.list() == []
    gz = gzip.compress(data)
    for end in range(1, len(gz), len(gz) // 20):
        with pytest.raises((Corrupt, InvalidInput)):
            loaded(store, gz[:end])


def test_import_makes_an_image_of_a_tar(store: Store) -> None:
    plain = plain_layer({"etc/motd": b"hello"})
    request = ImageImport(
        "me/imported", "by hand", ('CMD ["cat", "/etc/motd"]', "ENV A=b", "WORKDIR /etc", "EXPOSE 80")
    )
    image = ArchiveService(store).import_(io.BytesIO(gzip.compress(plain)), request, lambda one: None, CancelToken())
    config = store.images.config(image)
    assert (config.cmd, config.env, config.working_dir) == (("cat", "/etc/motd"), ("A=b",), "/etc")
    assert config.diff_ids == (Digest.of(plain),)
    assert config.history[0].comment == "by hand"
    assert image.familiar_tags == ("me/imported:latest",)
    (tree,) = store.lowers(image)
    assert (tree / "etc/motd").read_bytes() == b"hello"
    for change, message in (("RUN true", "not a valid change"), ("FROM x", "FROM"), ("NONSENSE a", "NONSENSE")):
        with pytest.raises(EngineError, match=message):
            ArchiveService(store).import_(
                io.BytesIO(plain), ImageImport(changes=(change,)), lambda one: None, CancelToken()
            )
    with pytest.raises(Corrupt, match="nothing to import"):
        ArchiveService(store).import_(io.BytesIO(b""), ImageImport(), lambda one: None, CancelToken())


# --- with the tools that others use ----------------------------------------------------------------------


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Path]:
    """Podman's folders: it takes no path longer than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        yield Path(folder)


def podman(pod: Path, *args: str, data: bytes | None = None) -> bytes:
    command = ["podman", "--root", f"{pod}/root", "--runroot", f"{pod}/run", "--storage-driver", "vfs", *args]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


@pytest.mark.peer("podman")
@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_podman_both_ways(store: Store, tmp_path: Path, pod: Path, format: str) -> None:
    image = record(store)
    podman(pod, "load", data=saved(store, "team/app:1", format=format))
    shown = json.loads(podman(pod, "image", "inspect", "docker.io/team/app:1"))[0]
    assert (shown["Id"], shown["Digest"]) == (image.config_digest.hex, image.digest)
    other = Store(tmp_path / "other")
    (got,) = loaded(other, podman(pod, "save", "--format", format, "docker.io/team/app:1"))
    assert (got.id, got.tags) == (image.config_digest, ("team/app:1",))
    assert other.check() == []
    other.close()


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_skopeo_both_ways(store: Store, tmp_path: Path, transport: str) -> None:
    image = record(store)
    (tmp_path / "ours.tar").write_bytes(saved(store, "team/app:1"))
    subprocess.run(["skopeo", "copy", "-q", f"{transport}:{tmp_path}/ours.tar", f"dir:{tmp_path}/dir"], check=True)
    written = json.loads((tmp_path / "dir/manifest.json").read_bytes())
    assert written["config"]["digest"] == image.config_digest
    if transport == "oci-archive":
        assert Digest.of((tmp_path / "dir/manifest.json").read_bytes()) == image.digest
    target = f"{transport}:{tmp_path}/theirs.tar:docker.io/team/app:7"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{store.blobs.root}:team/app:1", target], check=True)
    other = Store(tmp_path / "other")
    (got,) = loaded(other, (tmp_path / "theirs.tar").read_bytes())
    assert (got.id, got.tags) == (image.config_digest, ("team/app:7",))
    other.close()


def test_the_command_line_pipes(tmp_path: Path) -> None:
    root, other = tmp_path / "a", tmp_path / "b"
    store = Store(root)
    image = record(store)
    store.close()
    run = [os.sys.executable, "-m", "engine.cli.main", "--root"]  # type: ignore[attr-defined]
    archive = subprocess.run(
        [*run, str(root), "save", "--compress", "zstd", "team/app:1"], check=True, capture_output=True
    )
    told = subprocess.run([*run, str(other), "load"], input=archive.stdout, check=True, capture_output=True)
    assert told.stdout == b"Loaded image: team/app:1\n"
    listed = subprocess.run([*run, str(other), "images", "--no-trunc", "-q"], check=True, capture_output=True)
    assert listed.stdout.decode().split() == [image.config_digest]
    missing = subprocess.run([*run, str(other), "save", "nothing", "-o", str(tmp_path / "x.tar")], capture_output=True)
    assert missing.returncode == 1
    assert not list(tmp_path.glob("x.tar*"))
