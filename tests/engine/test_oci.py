"""References, digests, manifests, configs."""

from __future__ import annotations

import json

import pytest

from engine.errors import Corrupt, InvalidInput, NotFound, Unsupported
from engine.oci.chain import chain_ids
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, build_manifest, parse_manifest
from engine.oci.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from engine.oci.platform import Platform, choose
from engine.oci.reference import Reference

A, B = Digest.of(b"a"), Digest.of(b"b")


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("python", "docker.io/library/python", "python"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim", "python:3.11-slim"),
        ("someone/tool", "docker.io/someone/tool", "someone/tool"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("127.0.0.1:5000/x/y:1", "127.0.0.1:5000/x/y:1", "127.0.0.1:5000/x/y:1"),
        (f"x@{A}", f"docker.io/library/x@{A}", f"x@{A}"),
    ],
)
def test_reference_is_normalised(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar) == (canonical, familiar)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["", "Python", "a//b", "-x", "x:", "x@sha256:12", "a" * 256, "x:" + "t" * 129, "0" * 64, "../etc", "x y"]
)
def test_bad_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", ":", "sha256:", "sha256:..", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 32, None, "x" * 10000],
)
def test_bad_digest_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput):
        Digest.parse(text)


def test_chain_id_covers_what_is_below() -> None:
    first, second = chain_ids([A, B])
    assert first == A
    assert second == Digest.of(f"{A} {B}".encode())
    assert chain_ids([]) == ()


def test_manifest_round_trip_is_deterministic() -> None:
    config, layer = Descriptor(OCI_CONFIG, A, 1), Descriptor(OCI_LAYER, B, 2)
    manifest = build_manifest(config, [layer], {"z": "1", "a": "2"})
    assert manifest.raw == build_manifest(config, [layer], {"a": "2", "z": "1"}).raw
    parsed = parse_manifest(manifest.raw, OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert (parsed.config, parsed.layers, parsed.digest) == (config, (layer,), Digest.of(manifest.raw))


@pytest.mark.parametrize(
    ("change", "content_type"),
    [
        ({"manifests": []}, OCI_MANIFEST),
        ({}, OCI_INDEX),
        ({"mediaType": OCI_INDEX}, None),
        ({"schemaVersion": 3}, None),
        ({"layers": "x"}, None),
    ],
)
def test_ambiguous_manifest_is_refused(change: dict[str, object], content_type: str | None) -> None:
    document = json.loads(build_manifest(Descriptor(OCI_CONFIG, A, 1), []).raw) | change
    with pytest.raises((Corrupt, InvalidInput)):
        parse_manifest(json.dumps(document).encode(), content_type)


def test_schema_one_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        parse_manifest(b'{"schemaVersion": 1}')


def test_unknown_fields_are_kept() -> None:
    descriptor = {"mediaType": OCI_LAYER, "digest": A, "size": 1, "x-new": [1]}
    assert Descriptor.from_json(descriptor).to_json() == descriptor
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "new": 1,
        "config": {"Env": ["A=1"], "Strange": {}},
        "rootfs": {"type": "layers", "diff_ids": [A]},
    }
    changed = ImageConfig.parse(json.dumps(raw).encode()).with_config(Env=["A=2"], Cmd=None)
    again = json.loads(changed.to_bytes())
    assert again["new"] == 1
    assert again["config"] == {"Env": ["A=2"], "Strange": {}}
    stepped = changed.with_step(History("t", "RUN x"), B, "t")
    assert stepped.diff_ids == (A, B)
    assert changed.diff_ids == (A,)


def test_index_order_does_not_matter_and_attestations_are_skipped() -> None:
    def entry(platform: Platform, digest: Digest) -> Descriptor:
        return Descriptor(OCI_MANIFEST, digest, 1, platform)

    entries = [
        entry(Platform("unknown", "unknown"), A),
        entry(Platform("linux", "arm64"), A),
        entry(Platform("linux", "amd64"), B),
    ]
    for order in (entries, entries[::-1]):
        assert choose(order, Platform("linux", "amd64")).digest == B
        assert choose(order, Platform("linux", "arm64", "v8")).digest == A
    with pytest.raises(NotFound, match="s390x"):
        choose(entries, Platform("linux", "s390x"))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [e.to_json() for e in entries]}
    assert isinstance(parse_manifest(json.dumps(index).encode()), Index)
