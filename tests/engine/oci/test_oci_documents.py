"""Digests, platforms, descriptors, manifests, configs and chain ids."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from engine.errors import Corrupt, InvalidInput, NotFound, Unsupported
from engine.oci.chain import chain_ids
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import MAX_SIZE, Index, Manifest, build_manifest, parse_manifest
from engine.oci.media import (
    DOCKER_FOREIGN,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    compression,
    is_foreign,
    is_layer,
)
from engine.oci.platform import Platform, choose

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))
CONFIG = Descriptor(OCI_CONFIG, A, 1)
LAYER = Descriptor(OCI_LAYER_GZIP, B, 1)


def described(*platforms: str | None) -> list[Descriptor]:
    return [
        Descriptor(OCI_MANIFEST, Digest.of(str(number).encode()), 1, Platform(*text.split("/")) if text else None)
        for number, text in enumerate(platforms)
    ]


def test_a_digest_is_of_its_bytes() -> None:
    digest = Digest.of(b"abc")
    assert digest == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert (digest.algorithm, digest.short) == ("sha256", digest.hex[:12])
    assert Digest.parse("sha512:" + "0" * 128).algorithm == "sha512"


@pytest.mark.parametrize(
    "text",
    [
        None,
        3,
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "md5:" + "0" * 32,
        "sha256:" + "0" * 64 + "\n",
        "sha256:../" + "0" * 61,
    ],
)
def test_what_is_no_digest_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput):
        Digest.parse(text)


def test_a_document_may_name_an_unknown_algorithm_whose_content_is_refused() -> None:
    known = {"mediaType": OCI_MANIFEST, "size": 3}
    descriptor = Descriptor.from_json({**known, "digest": "blake3+b64u:LCa0a2j_xo-5m0U8"})
    assert descriptor.to_json()["digest"] == "blake3+b64u:LCa0a2j_xo-5m0U8"
    with pytest.raises(Unsupported, match="blake3"):
        descriptor.digest.matches(b"abc")
    with pytest.raises(InvalidInput):
        Descriptor.from_json({**known, "digest": "../x:00"})
    assert Digest.of(b"abc").matches(b"abc")
    assert not Digest.of(b"abc").matches(b"abd")


def test_chain_ids_follow_the_specification() -> None:
    second = Digest.of(f"{A} {B}".encode())
    assert chain_ids([A, B, C]) == (A, second, Digest.of(f"{second} {C}".encode()))
    assert chain_ids([]) == ()


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64/v8"),
        ("linux/armhf", "linux/arm/v7"),
        ("arm64", "linux/arm64"),
        ("linux", f"linux/{Platform.host().architecture}"),
    ],
)
def test_platforms_are_read_as_docker_reads_them(text: str, platform: str) -> None:
    assert str(Platform.parse(text)) == platform


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux/amd64 "])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("want", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["unknown/unknown", "linux/amd64/v1"], 1),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/amd64", [None], 0),
    ],
)
def test_the_best_platform_is_chosen(want: str, offered: list[str | None], chosen: int) -> None:
    descriptors = described(*offered)
    assert choose(descriptors, Platform.parse(want)) is descriptors[chosen]


@pytest.mark.parametrize("offered", [["linux/arm64"], ["unknown/unknown"], [None, None], ["linux/amd64/v2"], []])
def test_a_missing_platform_is_not_found(offered: list[str | None]) -> None:
    with pytest.raises(NotFound) as caught:
        choose(described(*offered), Platform("linux", "amd64"))
    if offered == ["linux/arm64"]:
        assert "linux/arm64" in str(caught.value.hint)


def test_media_types() -> None:
    assert [compression(t) for t in (OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER_GZIP)] == [
        "none",
        "gzip",
        "zstd",
        "gzip",
    ]
    assert is_layer(OCI_LAYER)
    assert not is_layer(OCI_CONFIG)
    assert is_foreign(DOCKER_FOREIGN)


def test_a_descriptor_keeps_what_it_does_not_know() -> None:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    obj = {
        "mediaType": OCI_LAYER,
        "digest": str(A),
        "size": 7,
        "platform": platform,
        "annotations": {"k": "v"},
        "urls": ["https://x/y"],
        "future": [1],
    }
    assert Descriptor.from_json(obj).to_json() == obj


CONTENT = base64.b64encode(b"a").decode()


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": None},
        {"mediaType": "text"},
        {"mediaType": "a/" + "b" * 128},
        {"digest": "x"},
        {"size": -1},
        {"size": True},
        {"size": 2**63},
        {"size": "1"},
        {"annotations": {"a": 1}},
        {"platform": []},
        {"urls": ["here"]},
        {"artifactType": "x/.y"},
        {"data": "%%"},
        {"data": CONTENT, "size": 2},
        {"data": base64.b64encode(b"b").decode()},
    ],
)
def test_a_bad_descriptor_is_refused(change: dict[str, object]) -> None:
    good: dict[str, object] = {"mediaType": OCI_LAYER, "digest": str(A), "size": 1, "data": CONTENT}
    assert Descriptor.from_json(good).size == 1
    with pytest.raises(InvalidInput):
        Descriptor.from_json({**good, **change})


def test_a_built_manifest_reads_back_equal() -> None:
    manifest = build_manifest(CONFIG, [LAYER], {"b": "2", "a": "1"})
    again = parse_manifest(manifest.raw, OCI_MANIFEST)
    assert isinstance(again, Manifest)
    assert (again.config, again.layers, again.digest) == (CONFIG, (LAYER,), Digest.of(manifest.raw))
    assert build_manifest(CONFIG, [LAYER], {"a": "1", "b": "2"}).raw == manifest.raw
    assert again.descriptor == Descriptor(OCI_MANIFEST, manifest.digest, len(manifest.raw))


def document(**changes: Any) -> bytes:
    base = json.loads(build_manifest(CONFIG, [LAYER]).raw)
    return json.dumps({key: value for key, value in {**base, **changes}.items() if value is not None}).encode()


def test_an_index_is_told_from_a_manifest() -> None:
    raw = json.dumps({"schemaVersion": 2, "manifests": [CONFIG.to_json()]}).encode()
    index = parse_manifest(raw)
    assert isinstance(index, Index)
    assert index.media_type == OCI_INDEX
    assert parse_manifest(document(mediaType=None), "application/json").media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    ("raw", "content_type", "error"),
    [
        (b"{", None, Corrupt),
        (b"[]", None, Corrupt),
        (b"[" * 100_000, None, Corrupt),
        (b" " * (MAX_SIZE + 1), None, Corrupt),
        (document(schemaVersion=1), None, Unsupported),
        (document(schemaVersion=3), None, Corrupt),
        (document(manifests=[]), None, Corrupt),
        (document(mediaType=OCI_INDEX), None, Corrupt),
        (document(), DOCKER_MANIFEST, Corrupt),
        (document(mediaType="text/plain"), None, InvalidInput),
        (document(mediaType=3), None, Corrupt),
        (document(layers={}), None, Corrupt),
        (document(config=None), None, InvalidInput),
        (document(subject="x"), None, InvalidInput),
    ],
)
def test_a_doubtful_manifest_is_refused(raw: bytes, content_type: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_manifest(raw, content_type)


def config(**settings: object) -> dict[str, Any]:
    return {"os": "linux", "architecture": "amd64", "config": settings, "rootfs": {"type": "layers", "diff_ids": []}}


def test_a_config_keeps_what_it_does_not_know() -> None:
    raw = json.dumps({**config(Env=["A=b"], Future=1), "later": {"x": "\ud800"}}).encode()
    image = ImageConfig.parse(raw).with_config(Cmd=["sh"]).with_config(Cmd=None, User="me")
    again = ImageConfig.parse(image.to_bytes())
    assert again.document == {**json.loads(raw), "config": {"Env": ["A=b"], "Future": 1, "User": "me"}}
    assert (again.env, again.cmd, again.user) == (("A=b",), None, "me")


def test_steps_add_history_and_layers() -> None:
    image = ImageConfig.scratch(Platform("linux", "arm", "v7"))
    grown = image.with_step(History("2024-01-01T00:00:00Z", "RUN x"), A, "2024-01-01T00:00:00Z")
    grown = grown.with_step(History(created_by="ENV a=b", empty_layer=True), None, "2024-01-02T00:00:00Z")
    assert image.diff_ids == ()
    assert grown.diff_ids == (A,)
    assert [step.empty_layer for step in grown.history] == [False, True]
    assert "created" not in grown.document["history"][1]
    assert (grown.variant, grown.created) == ("v7", "2024-01-02T00:00:00Z")
    assert ImageConfig.parse(grown.to_bytes()).history == grown.history


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"rootfs": {}},
        config(Env=["novalue"]),
        config(Env="A=b"),
        config(Labels={"a": 1}),
        config(Volumes=["/x"]),
        config(User=3),
        {**config(), "variant": 3},
        {**config(), "history": {}},
        {**config(), "config": []},
        {**config(), "rootfs": {"diff_ids": [str(A)] * 501}},
    ],
)
def test_a_bad_config_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        ImageConfig.parse(json.dumps(document).encode())
