"""`imagetools create | inspect`: images and indexes in registries, looked at and put together without being pulled
(`docker buildx imagetools`).
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.manifest_lists import platform_of
from engine.cli.manifest_store import full_name
from engine.cli.nouns import dispatch
from engine.cli.tables import Alias, render
from engine.errors import InvalidInput, NotFound, from_os_error, harmless
from engine.oci.digest import Digest
from engine.oci.media import DOCKER_LIST, DOCKER_MANIFEST, INDEXES, MANIFESTS, OCI_INDEX
from engine.oci.platform import Platform
from engine.oci.reference import Reference

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.model import RegistryDocument

_ANNOTATION = re.compile(
    r"(?:(index|manifest|index-descriptor|manifest-descriptor)(?:\[([^\]]*)\])?:)?([^=:]+)=(.*)", re.DOTALL
)
_WHOLE = re.compile(r"json|\{\{\s*json\s+\.(\w*)\s*\}\}")
_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")


def cmd_imagetools(root: Path, args: list[str]) -> int:
    return dispatch("buildx imagetools", {"create": _create, "inspect": _inspect}, root, args, "images in registries")


# --- create ---------------------------------------------------------------------------------------------


def _create(root: Path, args: list[str]) -> int:
    flags = [
        Flag("annotation", "Add annotation to the index or its descriptors", kind="list"),
        Flag("append", "Append to existing manifest"),
        Flag("dry-run", "Show final image instead of pushing"),
        Flag("file", "Read source descriptor from file", "f", kind="list"),
        Flag("prefer-index", "When only a single source is specified, make an index of it", kind="bool"),
        Flag("progress", "Set type of progress output", kind="str"),
        Flag("tag", "Set reference for new image", "t", kind="list"),
    ]
    parsed = read(
        args, "buildx imagetools create [OPTIONS] [SOURCE...]", "Create a new image based on source images", flags
    )
    if parsed is None:
        return 0
    targets, files = parsed.items("tag"), parsed.items("file")
    if parsed.on("append") and not targets:
        raise InvalidInput("append requires a tag", hint="-t NAME:TAG")
    if not (parsed.on("dry-run") or targets):
        raise InvalidInput("can't push with no tags specified, please set --tag or --dry-run")
    if not (parsed.args or files):
        raise InvalidInput("no sources specified", hint="name the images that the new one is made of")
    place = full_name(targets[0]) if targets else ""
    names = [*([place] if parsed.on("append") else []), *parsed.args, *(_in_file(Path(file), place) for file in files)]
    prefer = not parsed.given("prefer-index") or parsed.on("prefer-index")

    async def work(engine: Engine) -> int:
        found = []
        for name in names:
            try:
                found.append((Reference.parse(name), await engine.manifests(name, children=True)))
            except NotFound as error:
                raise NotFound(f"{full_name(name)}: not found", hint=error.message) from None
        document, sources = combined(found, parsed.items("annotation"), prefer_index=prefer)
        if parsed.on("dry-run"):
            print(document.decode())
            return 0
        for number, target in enumerate(targets, 1):
            began = time.monotonic()
            if parsed.text("progress") != "quiet":
                print(f"#{number} [internal] pushing {full_name(target)}", file=sys.stderr, flush=True)
            digest = await engine.push_index(target, document, sources)
            if parsed.text("progress") != "quiet":
                took = time.monotonic() - began
                print(f"#{number} pushed {digest}\n#{number} DONE {took:.1f}s", file=sys.stderr, flush=True)
        return 0

    return run(root, work)


def _in_file(path: Path, place: str) -> str:
    """The image that a file names: a descriptor as JSON, which may say its name (as `--metadata-file` writes them)."""
    try:
        found = json.loads(path.read_bytes())
        digest = Digest.parse(found["digest"])
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error
    except (ValueError, LookupError, TypeError):
        raise InvalidInput(
            f"{path} holds no descriptor", hint='it is JSON with "mediaType", "digest" and "size"'
        ) from None
    said = (found.get("annotations") or {}).get("org.opencontainers.image.ref.name") or place
    if not said:
        raise InvalidInput(f"{path}: no repository is named that has {digest.short}", hint="-t NAME:TAG names one")
    return f"{Reference.parse(said).name}@{digest}"


Source = tuple[Reference, "Sequence[RegistryDocument]"]


def combined(
    found: Sequence[Source], annotations: Sequence[str], *, prefer_index: bool
) -> tuple[bytes, dict[str, str]]:
    """The document to push, and for each digest that it names the repository that has it. Each of `found` is an image, or an index
    with what it names."""
    index_notes, notes = _annotations(annotations)
    if len(found) == 1 and not annotations:
        reference, (top, *_) = found[0]
        if top.media_type in INDEXES or not prefer_index:
            named = json.loads(top.raw).get("manifests", []) if top.media_type in INDEXES else []
            digests = [str(one["digest"]) for one in named] or [top.digest]
            return top.raw, dict.fromkeys(digests, reference.name)
    entries: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    for reference, documents in found:
        for entry in _entries(documents):
            digest = str(entry["digest"])
            entries[digest] = {**entries.get(digest, {}), **entry}
            sources.setdefault(digest, reference.name)
    for wanted, key, value in notes:
        for entry in entries.values():
            if wanted in ("", _shown(entry.get("platform") or {})):
                entry["annotations"] = {**(entry.get("annotations") or {}), key: value}
    docker = not annotations and all(entry["mediaType"] == DOCKER_MANIFEST for entry in entries.values())
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST if docker else OCI_INDEX,
        "manifests": [{key: entry[key] for key in _DESCRIPTOR if key in entry} for entry in entries.values()],
    }
    if index_notes:
        document["annotations"] = dict(sorted(index_notes.items()))
    return json.dumps(document, indent=2, ensure_ascii=False).encode(), sources


def _entries(documents: Sequence[RegistryDocument]) -> list[dict[str, Any]]:
    """The descriptors of an index, or that of the one image."""
    top, *below = documents
    if top.media_type not in INDEXES:
        entry: dict[str, Any] = {"mediaType": top.media_type, "digest": top.digest, "size": len(top.raw)}
        platform = platform_of(top)
        return [{**entry, "platform": platform} if platform else entry]
    entries: list[dict[str, Any]] = [dict(one) for one in json.loads(top.raw)["manifests"]]
    known = {one.digest: platform_of(one) for one in below}
    for entry in entries:
        if not entry.get("platform") and known.get(str(entry.get("digest"))):
            entry["platform"] = known[str(entry["digest"])]
    return entries


def _annotations(words: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Those of the index, and those of descriptors: platform ("" is all), key, value."""
    index: dict[str, str] = {}
    others: list[tuple[str, str, str]] = []
    for word in words:
        match = _ANNOTATION.fullmatch(word)
        if match is None:
            raise InvalidInput(f"invalid annotation {word!r}", hint="[TYPE[PLATFORM]:]KEY=VALUE")
        kind, platform, key, value = match[1] or "index", match[2] or "", match[3], match[4]
        if kind == "index":
            index[key] = value
        elif kind == "manifest-descriptor":
            others.append((str(Platform.parse(platform)) if platform else "", key, value))
        else:
            raise InvalidInput(
                f"{kind} annotations are not possible here: {word!r}",
                hint="what is there keeps its digest: index and manifest-descriptor annotations can be added",
            )
    return index, others


def _shown(platform: Mapping[str, Any]) -> str:
    return "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if platform.get(key))


# --- inspect --------------------------------------------------------------------------------------------


def _inspect(root: Path, args: list[str]) -> int:
    flags = [
        Flag("format", "Format the output using the given Go template", kind="str"),
        Flag("raw", "Show original, unformatted JSON manifest"),
    ]
    parsed = read(
        args,
        "buildx imagetools inspect [OPTIONS] NAME",
        "Show details of an image in the registry",
        flags,
        minimum=1,
        maximum=1,
    )
    if parsed is None:
        return 0
    name, form = parsed.args[0], parsed.text("format")
    if parsed.on("raw") and form:
        raise InvalidInput("--raw and --format cannot be used together", hint="--raw is the bytes as they are")

    async def work(engine: Engine) -> int:
        try:
            found = await engine.manifests(name, children=bool(form))
        except NotFound as error:
            raise NotFound(f"{full_name(name)}: not found", hint=error.message) from None
        if parsed.on("raw"):
            sys.stdout.buffer.write(found[0].raw)
        elif form:
            print(_formatted(form, _document(name, found)))
        else:
            print(_text(full_name(name), found[0]))
        return 0

    return run(root, work)


def _formatted(form: str, document: Mapping[str, object]) -> str:
    whole = _WHOLE.fullmatch(form)
    if whole and (not whole[1] or whole[1] in document):  # buildx's own `json` sets it out
        return json.dumps(document[whole[1]] if whole[1] else document, indent=2, ensure_ascii=False)
    return render(form, [document], escapes=False)


def _text(name: str, top: RegistryDocument) -> str:
    index = json.loads(top.raw) if top.media_type in INDEXES else {}
    entries = [_rows(name, entry) for entry in index.get("manifests", [])]
    lines = _aligned([("Name:", name), ("MediaType:", top.media_type), ("Digest:", top.digest)])
    if not index:
        return "\n".join(lines)
    width = max((len(title) for rows in entries for title, _ in rows), default=0)
    lines += [" " * (len("MediaType:") + 1), "Manifests: "]
    for rows in entries:
        lines += [f"  {line}" for line in _aligned(rows, width)]
        lines.append("  " + " " * (width + 1))
    return "\n".join(lines[:-1] if entries else lines)


def _rows(name: str, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    platform = entry.get("platform") or {}
    rows = [("Name:", f"{name}@{entry['digest']}"), ("MediaType:", str(entry["mediaType"]))]
    if platform:
        rows.append(("Platform:", _shown(platform)))
    if platform.get("os.version"):
        rows.append(("OSVersion:", str(platform["os.version"])))
    if platform.get("os.features"):
        rows.append(("OSFeatures:", ", ".join(map(str, platform["os.features"]))))
    notes = entry.get("annotations") or {}
    if notes:
        rows.append(("Annotations:", ""))
        rows += [(f"  {key}:", str(value)) for key, value in sorted(notes.items())]
    return rows


def _aligned(rows: Sequence[tuple[str, str]], width: int = 0) -> list[str]:
    width = width or max(len(title) for title, _ in rows)
    return [f"{title:<{width}} {harmless(value)}" for title, value in rows]


def _document(name: str, found: Sequence[RegistryDocument]) -> dict[str, object]:
    """What a template sees: `.Name`, `.Manifest`, `.Image` (of an index, by platform)."""
    top = found[0]
    about: dict[str, object] = {"mediaType": top.media_type, "digest": top.digest, "size": len(top.raw)}
    if top.media_type in INDEXES:
        document = json.loads(top.raw)
        about = {
            "schemaVersion": document.get("schemaVersion"),
            **about,
            **{key: document[key] for key in document if key not in about},
        }
    names = {
        "MediaType": "mediaType",
        "Digest": "digest",
        "Size": "size",
        "Manifests": "manifests",
        "Annotations": "annotations",
    }
    manifest = Alias(about, {name: about.get(key) for name, key in names.items()})
    images = {
        _shown(platform_of(one)): json.loads(one.config) for one in found if one.config and one.media_type in MANIFESTS
    }
    image: object = images if top.media_type in INDEXES else next(iter(images.values()), None)
    return {"Name": full_name(name), "Manifest": manifest, "Image": image}
