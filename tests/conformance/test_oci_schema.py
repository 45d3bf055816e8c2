"""The store, archives and pushed images against the OCI image specification's published JSON schemas (`oci_schema/`)."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from engine.oci.media import INDEXES, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from tests.engine.registry.conftest import docker_registry as docker_registry

SCHEMAS = Path(__file__).parent / "oci_schema"
BASE = "https://schema.invalid/"


def without_ids(schema: Any) -> Any:
    """`id` would lead a reference to another file to an address on the network."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if not (key == "id" and isinstance(value, str))}
        return {key: without_ids(value) for key, value in kept.items()}
    return [without_ids(one) for one in schema] if isinstance(schema, list) else schema


RESOURCES: Registry[Any] = Registry().with_resources(
    (f"{BASE}{path.name}", Resource(without_ids(json.loads(path.read_text())), DRAFT4))
    for path in SCHEMAS.glob("*.json")
)
OF = {OCI_MANIFEST: "image-manifest-schema", OCI_INDEX: "image-index-schema", OCI_CONFIG: "config-schema"}


def check(document: object, name: str) -> None:
    schema = {"$ref": f"{BASE}{name}.json"}
    jsonschema.Draft4Validator(schema, registry=RESOURCES).validate(document)


def check_layout(read: Any) -> int:
    """Every document that can be reached from the layout's index. Returns how many there were."""
    check(json.loads(read("oci-layout")), "image-layout-schema")
    index = json.loads(read("index.json"))
    check(index, "image-index-schema")
    open_ = [(entry["digest"], entry["mediaType"]) for entry in index["manifests"]]
    done: set[str] = set()
    while open_:
        digest, media_type = open_.pop()
        if digest in done or media_type not in OF:
            continue
        done.add(digest)
        document = json.loads(read(f"blobs/sha256/{digest.removeprefix('sha256:')}"))
        check(document, OF[media_type])
        below = (
            document["manifests"]
            if media_type in INDEXES
            else [document["config"]]
            if "config" in document and "layers" in document
            else []
        )
        open_ += [(entry["digest"], entry["mediaType"]) for entry in below]
        for entry in document.get("layers", []) if media_type == OCI_MANIFEST else []:
            check(entry, "content-descriptor")
    return len(done)


def ours(root: Path, *args: str) -> None:
    command = [sys.executable, "-m", "engine.cli.main", "--root", str(root), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def filled(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Built with every setting, built for two platforms, committed, imported."""
    folder = tmp_path_factory.mktemp("schema")
    (folder / "Dockerfile").write_text(
        "FROM workbench/base\nENV A=b\nLABEL x=y\nEXPOSE 80 53/udp\nVOLUME /data\nUSER 1:1\nWORKDIR /w\nSTOPSIGNAL SIGINT\n"
        'HEALTHCHECK --interval=5s CMD true\nSHELL ["/bin/sh", "-c"]\nONBUILD RUN true\nENTRYPOINT ["/bin/sh"]\nCMD ["-c", "true"]\n'
    )
    ours(data_root, "build", "-q", "-t", "schema/all:1", "--annotation", "org.x=y", str(folder))
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    ours(data_root, "build", "-q", "-t", "schema/multi:1", "--platform", "linux/amd64,linux/arm/v7", str(folder))
    ours(data_root, "create", "--name", "schema", "schema/all:1")
    ours(data_root, "commit", "-m", "words", "-a", "me", "schema", "schema/commit:1")
    with tarfile.open(folder / "root.tar", "w") as tar:
        tar.add(folder / "Dockerfile", "file")
    ours(data_root, "import", "-m", "words", str(folder / "root.tar"), "schema/import:1")
    yield data_root
    ours(data_root, "rm", "schema")
    ours(data_root, "rmi", "-f", *(f"schema/{name}:1" for name in ("all", "multi", "commit", "import")))


@pytest.mark.root
def test_the_store_as_it_lies(filled: Path) -> None:
    assert check_layout(lambda name: (filled / "oci" / name).read_bytes()) >= 8


@pytest.mark.root
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives(filled: Path, tmp_path: Path, form: str) -> None:
    names = [f"schema/{name}:1" for name in ("all", "multi", "commit", "import")]
    ours(filled, "save", "--format", form, "-o", str(tmp_path / "all.tar"), *names)
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert check_layout(lambda name: tar.extractfile(name).read()) >= 10  # type: ignore[union-attr]


@pytest.mark.root
@pytest.mark.peer("registry")
@pytest.mark.peer("skopeo")
def test_what_is_pushed(filled: Path, docker_registry: str, tmp_path: Path) -> None:
    for name in ("all", "multi"):
        there = f"{docker_registry}/schema/{name}:1"
        ours(filled, "tag", f"schema/{name}:1", there)
        ours(filled, "push", "-q", there)
        ours(filled, "rmi", there)
        copy = ["skopeo", "copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false"]
        subprocess.run([*copy, f"docker://{there}", f"oci:{tmp_path}/{name}:1"], check=True)
        assert check_layout(lambda path, name=name: (tmp_path / name / path).read_bytes()) >= 2


def test_the_schemas_refuse_what_is_wrong() -> None:
    for document, name in (
        ({"imageLayoutVersion": 5}, "image-layout-schema"),
        ({"schemaVersion": 2, "config": {}, "layers": []}, "image-manifest-schema"),
        ({"schemaVersion": 2, "manifests": [{"mediaType": "no", "digest": "x", "size": 1}]}, "image-index-schema"),
        ({"architecture": "amd64", "os": "linux"}, "config-schema"),
    ):
        with pytest.raises(jsonschema.ValidationError):
            check(document, name)
