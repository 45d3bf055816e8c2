"""An image for several platforms: one name, moved whole; one of them chosen with `--platform`."""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, parse_manifest
from engine.registry.server import RegistryServer, Serving
from engine.rest.image_documents import manifests
from engine.service.image_manifests import every
from engine.store.store import Store

pytestmark = pytest.mark.root
NAME = "team/multi:1"


@pytest.fixture
def built(data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Path]:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nARG TARGETARCH\nCOPY file /of-$TARGETARCH\nCMD ["/none"]\n')
    (tmp_path / "file").write_text("x")
    flags = ["build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", NAME, str(tmp_path)]
    assert main(["--root", str(data_root), *flags]) == 0
    capfd.readouterr()
    yield data_root
    main(["--root", str(data_root), "rmi", "-f", NAME])


def index_of(root: Path, name: str = NAME) -> bytes:
    store = Store(root)
    try:
        assert store.check() == []
        index = store.indexes.find(name)
        assert index is not None
        assert store.indexes.complete(index)
        return index.raw
    finally:
        store.close()


def architecture(root: Path, name: str, capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    assert main(["--root", str(root), "image", "inspect", "-f", "{{.Architecture}}", name]) == 0
    return capfd.readouterr().out.strip()


def test_an_archive_holds_all_of_it(built: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive, second = tmp_path / "multi.tar", tmp_path / "second"
    assert main(["--root", str(built), "save", "-o", str(archive), NAME]) == 0
    assert main(["--root", str(second), "load", "-q", "-i", str(archive)]) == 0
    assert index_of(second) == index_of(built)
    assert main(["--root", str(second), "create", "--name", "arm", "--platform", "linux/arm64", NAME]) == 0
    capfd.readouterr()
    assert main(["--root", str(second), "inspect", "-f", "{{.Image}}", "arm"]) == 0
    assert architecture(second, capfd.readouterr().out.strip(), capfd) == "arm64"
    assert main(["--root", str(second), "create", "--platform", "linux/s390x", "--pull", "never", NAME]) == 1
    assert "linux/s390x" in capfd.readouterr().err
    # With parts left out, as `docker save` may do, it is the image for this machine alone.
    partial = tmp_path / "partial.tar"
    gone = [entry["digest"][7:] for entry in json.loads(index_of(built))["manifests"]][1]
    with tarfile.open(archive) as source, tarfile.open(partial, "w") as out:
        for member in source:
            if gone not in member.name:
                out.addfile(member, source.extractfile(member) if member.isfile() else None)
    assert main(["--root", str(tmp_path / "third"), "load", "-q", "-i", str(partial)]) == 0
    store = Store(tmp_path / "third")
    assert store.indexes.find(NAME) is None
    assert store.images.find(NAME) is not None
    store.close()


def test_its_manifests_are_listed_with_what_is_here(built: Path) -> None:
    store = Store(built)
    image = store.images.get(NAME)
    rows = {row.platform: row for row in every(store, {image.digest: ["web"]})[image.digest]}
    assert set(rows) >= {"linux/amd64", "linux/arm64"}
    assert all(row.available and row.content > row.size for row in rows.values() if row.kind == "image")
    document = manifests([rows["linux/arm64"]])["Manifests"][0]
    assert document["ImageData"]["Platform"] == {"os": "linux", "architecture": "arm64"}
    assert document["Descriptor"]["digest"] == rows["linux/arm64"].digest
    mine = next(row for row in rows.values() if row.digest == image.digest)
    assert mine.used_by == ("web",)
    # A blob that is gone is not there, and nothing fails for it.
    arm = parse_manifest(store.blobs.read(Digest.parse(rows["linux/arm64"].digest)))
    assert isinstance(arm, Manifest)
    kept = store.blobs.read(arm.layers[0].digest)
    store.blobs.path(arm.layers[0].digest).unlink()
    assert not next(row for row in every(store, {})[image.digest] if row.platform == "linux/arm64").available
    store.blobs.put(kept)
    store.close()


@pytest.mark.peer("skopeo")
def test_the_registry_serves_and_takes_all_of_it(
    built: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store(built)
    server = RegistryServer(store, Serving(port=0))
    thread = threading.Thread(target=server.serve)
    thread.start()
    there = f"docker://{server.address}/team"
    try:
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"{there}/multi:1"], check=True, capture_output=True
        )
        assert raw.stdout == index_of(built)
        copy = [
            "skopeo",
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ]
        subprocess.run([*copy, f"{there}/multi:1", f"{there}/again:2"], check=True)
        assert index_of(built, "team/again:2") == index_of(built)
        second = ["--root", str(tmp_path / "second")]
        name = f"{server.address}/team/multi:1"
        assert main([*second, "pull", "--platform", "linux/arm64", name]) == 0
        assert architecture(tmp_path / "second", name, capfd) == "arm64"
        assert main([*second, "pull", name]) == 0
        assert architecture(tmp_path / "second", name, capfd) == "amd64"
        # What is built under the name afterwards is what it means from then on.
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /other\n")
        assert main(["--root", str(built), "build", "-q", "-t", "team/again:2", str(tmp_path)]) == 0
        now = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"{there}/again:2"], check=True, capture_output=True
        )
        assert b"layers" in now.stdout
    finally:
        server.close()
        thread.join()
        store.close()
        main(["--root", str(built), "rmi", "team/again:2"])
