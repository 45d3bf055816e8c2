"""`manifest inspect` and `referrers`: what a registry has under a name, and what belongs to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import manifest_lists as lists
from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.manifest_store import Entry, ManifestStore, full_name, index_of
from engine.cli.nouns import dispatch
from engine.cli.tables import render, table
from engine.errors import NotFound
from engine.oci.media import INDEXES, MANIFESTS

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.model import RegistryDocument


def cmd_manifest(root: Path, args: list[str]) -> int:
    verbs = {
        "annotate": lists.annotate,
        "create": lists.create,
        "inspect": _inspect,
        "push": lists.push,
        "rm": lists.remove,
    }
    return dispatch("manifest", verbs, root, args, "manifests and manifest lists")


def _inspect(root: Path, args: list[str]) -> int:
    flags = [
        lists.INSECURE,
        Flag("verbose", "Output additional info including layers and platform", "v"),
        Flag("raw", "The bytes as the registry has them, and nothing else"),
    ]
    parsed = read(
        args,
        "manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST",
        "Display an image manifest, an index, or an artifact's manifest, as a registry has it, or a list that is being made here",
        flags,
        minimum=1,
        maximum=2,
    )
    if parsed is None:
        return 0
    store, name, verbose = ManifestStore(), parsed.args[-1], parsed.on("verbose")
    if len(parsed.args) == 2:
        entry = store.get(parsed.args[0], name)
        if entry is None:
            raise NotFound(f"No such manifest: {full_name(name)}")
        print(_text(entry.document() if verbose else json.loads(entry.raw)))
        return 0
    if store.has(name) and not parsed.on("raw"):
        entries = store.entries(name)
        print(_text([entry.document() for entry in entries]) if verbose else index_of(entries).decode())
        return 0

    async def work(engine: Engine) -> int:
        try:
            found = await engine.manifests(name, children=verbose, insecure=parsed.on("insecure"))
        except NotFound as error:
            raise NotFound(f"no such manifest: {full_name(name)}", hint=error.message) from None
        if parsed.on("raw"):
            sys.stdout.buffer.write(found[0].raw)
            return 0
        if not verbose:
            # An index as it would be pushed, an image as Docker shows it.
            document = json.loads(found[0].raw)
            lines = json.dumps(document, indent=3, ensure_ascii=False)
            print(lines if found[0].media_type in INDEXES else _text(document))
            return 0
        if len(found) == 1:
            print(_text(_entry(full_name(name), found[0], lists.platform_of(found[0]))))
            return 0
        named = [one for one in json.loads(found[0].raw)["manifests"] if one.get("mediaType") in MANIFESTS + INDEXES]
        bare = full_name(name).partition("@")[0]
        shown = [
            _entry(f"{bare}@{one.digest}", one, said.get("platform") or lists.platform_of(one))
            for one, said in zip(found[1:], named, strict=True)
        ]
        print(_text(shown))
        return 0

    return run(root, work)


def _text(document: object) -> str:
    return json.dumps(document, indent="\t", ensure_ascii=False)


def _entry(name: str, found: RegistryDocument, platform: Mapping[str, object]) -> dict[str, object]:
    """As `docker manifest inspect -v` has it."""
    entry = Entry(name, found.media_type, found.digest, found.raw, platform).document()
    if found.artifact_type:
        entry["Descriptor"]["artifactType"] = found.artifact_type
    return entry


def cmd_referrers(root: Path, args: list[str]) -> int:
    flags = [
        Flag("artifact-type", "Only artifacts of this type", kind="str", metavar="TYPE"),
        Flag("format", "Format output: table, json, or a template of {{.Field}}", kind="str"),
        lists.INSECURE,
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
