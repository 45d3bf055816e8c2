"""`manifest create | annotate | push | rm`: a list of images for several platforms, made here and pushed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.manifest_store import Entry, ManifestStore, full_name, index_of, known_platform
from engine.errors import Conflict, InvalidInput, NotFound
from engine.oci.media import INDEXES
from engine.oci.reference import Reference

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.model import RegistryDocument

INSECURE = Flag("insecure", "Allow communication with an insecure registry")


def create(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "manifest create [OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
        "Create a local manifest list for annotating and pushing to a registry",
        [Flag("amend", "Amend an existing manifest list", "a"), INSECURE],
        minimum=2,
    )
    if parsed is None:
        return 0
    store, (target, *names) = ManifestStore(), parsed.args
    if store.has(target) and not parsed.on("amend"):
        raise Conflict(
            "refusing to amend an existing manifest list with no --amend flag", hint=f"workbench manifest rm {target}"
        )

    async def work(engine: Engine) -> int:
        # All are there before any is written: a list is made whole or not at all.
        found = [
            store.get(target, name) or await fetched(engine, name, insecure=parsed.on("insecure")) for name in names
        ]
        for entry in found:
            store.put(target, entry)
        print(f"Created manifest list {full_name(target)}")
        return 0

    return run(root, work)


async def fetched(engine: Engine, name: str, *, insecure: bool) -> Entry:
    """An image as its registry has it, for the platform that its config says. Raises `InvalidInput` for an index."""
    try:
        found = (await engine.manifests(name, children=True, insecure=insecure))[0]
    except NotFound:
        raise NotFound(f"no such manifest: {full_name(name)}") from None
    if found.media_type in INDEXES:
        raise InvalidInput(
            f"{full_name(name)} is a manifest list", hint="name its images by their digests: NAME@sha256:…"
        )
    return Entry(full_name(name), found.media_type, found.digest, found.raw, platform_of(found))


def platform_of(found: RegistryDocument) -> dict[str, object]:
    """The platform object of an image: what its config says, or what the index said that names it."""
    try:
        config = json.loads(found.config) if found.config else {}
    except ValueError:
        config = {}
    names = ("architecture", "os", "os.version", "os.features", "variant")
    platform = {name: config[name] for name in names if isinstance(config, dict) and config.get(name)}
    parts = (
        dict(zip(("os", "architecture", "variant"), found.platform.split("/"), strict=False)) if found.platform else {}
    )
    return {**platform, **parts}


def annotate(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "manifest annotate [OPTIONS] MANIFEST_LIST MANIFEST",
        "Add additional information to a local image manifest",
        [
            Flag("arch", "Set architecture", kind="str"),
            Flag("os", "Set operating system", kind="str"),
            Flag("os-features", "Set operating system feature", kind="list"),
            Flag("os-version", "Set operating system version", kind="str"),
            Flag("variant", "Set architecture variant", kind="str"),
        ],
        minimum=2,
        maximum=2,
    )
    if parsed is None:
        return 0
    store, (target, name) = ManifestStore(), parsed.args
    entry = store.get(target, name)
    if entry is None:
        raise NotFound(f"manifest for image {full_name(name)} does not exist in {full_name(target)}")
    platform = dict(entry.platform)
    for flag, key in (("arch", "architecture"), ("os", "os"), ("os-version", "os.version"), ("variant", "variant")):
        if parsed.text(flag):
            platform[key] = parsed.text(flag)
    features = [feature for value in parsed.items("os-features") for feature in value.split(",") if feature]
    if features:
        platform["os.features"] = list(dict.fromkeys([*(platform.get("os.features") or []), *features]))
    system, architecture = str(platform.get("os") or ""), str(platform.get("architecture") or "")
    if not known_platform(system, architecture):
        raise InvalidInput(f"manifest entry for image has unsupported os/arch combination: {system}/{architecture}")
    store.put(target, replace(entry, platform=platform))
    return 0


def push(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "manifest push [OPTIONS] MANIFEST_LIST",
        "Push a manifest list to a repository",
        [
            Flag("insecure", "Allow push to an insecure registry"),
            Flag("purge", "Remove the local manifest list after push", "p"),
        ],
        minimum=1,
        maximum=1,
    )
    if parsed is None:
        return 0
    store, target = ManifestStore(), parsed.args[0]
    try:
        entries = store.entries(target)
    except NotFound:
        raise NotFound(f"{full_name(target)} not found", hint="`workbench manifest create` makes a list") from None
    if not entries:
        raise InvalidInput(
            f"{full_name(target)} is empty", hint="`workbench manifest create --amend` adds images to it"
        )

    async def work(engine: Engine) -> int:
        repository = Reference.parse(target).name
        sources = {entry.digest: Reference.parse(entry.name).name for entry in entries}
        digest = await engine.push_index(target, index_of(entries), sources, insecure=parsed.on("insecure"))
        for entry in entries:
            if sources[entry.digest] != repository:
                print(f"Pushed ref {repository}@{entry.digest} with digest: {entry.digest}")
        print(digest)
        if parsed.on("purge"):
            store.remove(target)
        return 0

    return run(root, work)


def remove(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "manifest rm MANIFEST_LIST [MANIFEST_LIST...]",
        "Delete one or more manifest lists from local storage",
        [],
        minimum=1,
    )
    if parsed is None:
        return 0
    store, status = ManifestStore(), 0
    for name in parsed.args:
        try:
            store.remove(name)
        except NotFound as error:
            print(f"workbench: {error.message}", file=sys.stderr)
            status = 1
    return status
