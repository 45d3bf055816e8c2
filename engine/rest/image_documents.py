"""Images as Docker's documents: a row of a list, and what `inspect` prints (pure; the command line prints the same)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.base.clock import rfc3339
from engine.model import ImageDetail, ImageManifest, ImageSummary


def list_row(image: ImageSummary) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.repo_digests),
        "Created": image.created // 1_000_000_000,
        "Size": image.size,
        "SharedSize": -1,
        "VirtualSize": image.size,
        "Labels": dict(image.labels) or None,
        "Containers": -1,  # as Docker: `system df` counts them
    }


def document(detail: ImageDetail) -> dict[str, Any]:
    """What `docker image inspect` prints."""
    config = dict(detail.config)
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids", []) if isinstance(rootfs, dict) else []
    run = config.get("config")
    return {
        "Id": detail.summary.id,
        "RepoTags": list(detail.summary.tags),
        "RepoDigests": list(detail.repo_digests),
        "Parent": detail.parent,
        "Comment": detail.layers[-1].comment if detail.layers else "",
        "Created": rfc3339(detail.summary.created),
        "DockerVersion": str(config.get("docker_version") or ""),
        "Author": str(config.get("author") or ""),
        "Config": FIELDS | (run if isinstance(run, dict) else {}),
        "Architecture": str(config.get("architecture") or ""),
        **({"Variant": str(config["variant"])} if config.get("variant") else {}),
        "Os": str(config.get("os") or ""),
        "Size": detail.summary.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


FIELDS: dict[str, Any] = {  # there in every version, whether or not the image says something
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def manifests(found: Sequence[ImageManifest]) -> dict[str, Any]:
    """`manifests=1`: what `docker image ls --tree` shows."""
    return {"Manifests": [_manifest(one) for one in found]}


def _manifest(one: ImageManifest) -> dict[str, Any]:
    parts = one.platform.split("/") if one.platform else []
    platform = dict(zip(("os", "architecture", "variant"), parts, strict=False))
    about: dict[str, Any] = {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
    row = {
        "ID": one.digest,
        "Descriptor": about | ({"platform": platform} if platform else {}),
        "Available": one.available,
        "Size": {"Content": one.content, "Total": one.content + one.unpacked},
        "Kind": one.kind,
    }
    if one.kind == "image":
        row["ImageData"] = {"Platform": platform, "Containers": list(one.used_by), "Size": {"Unpacked": one.unpacked}}
    elif one.kind == "attestation":
        row["AttestationData"] = {"For": one.subject}
    return row
