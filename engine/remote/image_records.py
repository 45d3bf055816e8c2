"""Docker's documents of images as the engine's records. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.model import ImageDetail, ImageSummary, LayerInfo
from engine.remote import read

# What `docker history` says of instructions that make no layer: the classic builder's #(nop), BuildKit's plain words.
_EMPTY = re.compile(
    r"^(/bin/sh -c #\(nop\)\s+)?(ARG|CMD|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME)\b"
)
_NO_TAG = "<none>:<none>"


def summary(row: Mapping[str, Any], used_by: Sequence[str] = ()) -> ImageSummary:
    """Of a row of `GET /images/json`, or of `GET /images/X/json`. `digest` is the image's id:
    images are asked for by it, and Docker finds none by its manifest's digest alone. That is in `repo_digests`."""
    identity = str(row.get("Id") or "")
    identity = identity if ":" in identity or not identity else f"sha256:{identity}"
    tags = tuple(tag for tag in read.texts(row.get("RepoTags")) if tag != _NO_TAG)
    digests = tuple(text for text in read.texts(row.get("RepoDigests")) if not text.startswith("<none>"))
    created = row.get("Created")
    labels = row.get("Labels") if "Labels" in row else read.mapping(row.get("Config")).get("Labels")
    return ImageSummary(
        identity,
        identity,
        tags,
        created * 1_000_000_000 if isinstance(created, int) else read.moment(created),
        int(row.get("Size") or 0),
        tuple(used_by),
        not tags,
        dict(read.mapping(labels)),
        digests,
    )


def detail(document: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> ImageDetail:
    diff_ids = list(read.texts(read.mapping(document.get("RootFS")).get("Layers")))
    layers = _layers(list(reversed(history)), diff_ids)
    config = {
        "architecture": document.get("Architecture", ""),
        "os": document.get("Os", ""),
        "created": document.get("Created", ""),
        "author": document.get("Author", ""),
        "docker_version": document.get("DockerVersion", ""),
        "config": dict(read.mapping(document.get("Config"))),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    if document.get("Variant"):
        config["variant"] = document["Variant"]
    found = summary(document)
    # The manifest stays with the engine: its API has no word for it.
    return ImageDetail(found, layers, config, {}, found.repo_digests, str(document.get("Parent") or ""))


def _layers(history: Sequence[Mapping[str, Any]], diff_ids: Sequence[str]) -> tuple[LayerInfo, ...]:
    """Which lines of a history have a layer is not told: those with bytes have, and the rest go by their instruction."""
    texts = [str(row.get("CreatedBy") or "") for row in history]
    filled = [bool(row.get("Size")) or not _EMPTY.match(text) for row, text in zip(history, texts, strict=True)]
    if sum(filled) != len(diff_ids):
        sized = [bool(row.get("Size")) for row in history]
        filled = sized if sum(sized) == len(diff_ids) else filled
    left = iter(diff_ids)
    return tuple(
        LayerInfo(
            index,
            text.removeprefix("/bin/sh -c #(nop) ").removesuffix(" # buildkit").strip(),
            text,
            next(left, "") if has else "",
            int(row.get("Size") or 0),
            int(row.get("Created") or 0) * 1_000_000_000,
            not has,
            comment=str(row.get("Comment") or ""),
        )
        for index, (row, text, has) in enumerate(zip(history, texts, filled, strict=True))
    )
