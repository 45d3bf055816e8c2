"""`manifest inspect` and `referrers`: what a registry has under a name, and what belongs to it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.nouns import dispatch
from engine.cli.tables import render, table

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.model import RegistryDocument

_INSECURE = Flag("insecure", "Allow communication with an insecure registry")


def cmd_manifest(root: Path, args: list[str]) -> int:
    return dispatch("manifest", {"inspect": _inspect}, root, args, "manifests in registries")


def _inspect(root: Path, args: list[str]) -> int:
    flags = [
        _INSECURE,
        Flag("verbose", "Output additional info including layers and platform", "v"),
        Flag("raw", "The bytes as the registry has them, and nothing else"),
    ]
    parsed = read(
        args,
        "manifest inspect [OPTIONS] NAME[:TAG|@DIGEST]",
        "Display an image manifest, an index, or an artifact's manifest, as a registry has it",
        flags,
        minimum=1,
        maximum=1,
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        verbose = parsed.on("verbose")
        found = await engine.manifests(parsed.args[0], children=verbose, insecure=parsed.on("insecure"))
        if parsed.on("raw"):
            import sys

            sys.stdout.buffer.write(found[0].raw)
            return 0
        if not verbose:
            print(json.dumps(json.loads(found[0].raw), indent=3, ensure_ascii=False))
            return 0
        entries = [_entry(one) for one in (found[1:] or found)]
        print(json.dumps(entries if len(found) > 1 else entries[0], indent="\t", ensure_ascii=False))
        return 0

    return run(root, work)


def _entry(found: RegistryDocument) -> dict[str, Any]:
    """As `docker manifest inspect -v` has it."""
    descriptor: dict[str, Any] = {"mediaType": found.media_type, "digest": found.digest, "size": len(found.raw)}
    if found.platform:
        parts = found.platform.split("/")
        names = ("os", "architecture", "variant")
        descriptor["platform"] = dict(zip(names, parts, strict=False))
    if found.artifact_type:
        descriptor["artifactType"] = found.artifact_type
    key = "OCIManifest" if found.media_type.startswith("application/vnd.oci") else "SchemaV2Manifest"
    return {
        "Ref": found.name,
        "Descriptor": descriptor,
        "Raw": base64.b64encode(found.raw).decode(),
        key: json.loads(found.raw),
    }


def cmd_referrers(root: Path, args: list[str]) -> int:
    flags = [
        Flag("artifact-type", "Only artifacts of this type", kind="str", metavar="TYPE"),
        Flag("format", "Format output: table, json, or a template of {{.Field}}", kind="str"),
        _INSECURE,
        Flag("platform", "What refers to this image of an index, instead of to the index", kind="str"),
    ]
    parsed = read(
        args,
        "referrers [OPTIONS] NAME[:TAG|@DIGEST]",
        "List what belongs to an image in its registry: signatures, SBOMs, attestations, …",
        flags,
        minimum=1,
        maximum=1,
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        found = await engine.referrers(
            parsed.args[0],
            artifact_type=parsed.text("artifact-type"),
            platform=parsed.text("platform"),
            insecure=parsed.on("insecure"),
        )
        rows = [
            {
                "ArtifactType": str(one.get("artifactType") or ""),
                "Digest": str(one.get("digest") or ""),
                "Size": str(one.get("size") or 0),
                "MediaType": str(one.get("mediaType") or ""),
                "Annotations": one.get("annotations") or {},
            }
            for one in found
        ]
        form = parsed.text("format")
        if form and form != "table":
            print(render(form, rows), end="\n" if rows else "")
        else:
            names = ("ArtifactType", "Digest", "Size")
            print(table(["ARTIFACT TYPE", "DIGEST", "SIZE"], [[str(row[name]) for name in names] for row in rows]))
        return 0

    return run(root, work)
