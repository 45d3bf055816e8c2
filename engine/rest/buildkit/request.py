"""What a client of BuildKit asks for, as a request to our builder (pure).

Frontend options are those of BuildKit's `dockerfile.v0` (moby/buildkit `frontend/dockerui/config.go`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.api import BuildOutput, BuildRequest
from engine.errors import InvalidInput, Unsupported
from engine.model import HostConfig
from engine.rest.buildkit.messages import CacheEntry, Exporter

_FRONTENDS = ("dockerfile.v0", "gateway.v0")
_DOCKERFILE = ("docker/dockerfile", "docker.io/docker/dockerfile", "docker/dockerfile-upstream")
# What changes nothing of the result: labels of provenance, hints, and what the language's version is, which our builder decides.
_WITHOUT_MEANING = (
    "vcs:", "input:", "sharedkey:", "frontend.caps", "requestid", "cmdline", "source", "contextkey", "dockerfilekey",
    "filename", "context", "multi-platform", "cache-from", "local-sessionid:", "build-arg:BUILDKIT_SYNTAX",
)  # fmt: skip
_READ = {
    "cgroup-parent", "target", "no-cache", "platform", "image-resolve-mode", "force-network-mode", "add-hosts", "shm-size", "ulimit",
    "cache-imports", "dockerfilekey", "hostname",
}  # fmt: skip
# Attributes of results that say how BuildKit and containerd keep and call them; ours are kept in one way.
_OF_BUILDKITS_STORE = {
    "load", "unpack", "store", "prefer-image-digest", "name-canonical", "dangling-name-prefix", "oci-mediatypes",
    "oci-artifact", "buildinfo", "buildinfo-attrs", "registry.insecure", "mode",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """A build as its client describes it. `context` is a URL, or "" for the files that the session has under `context_key`."""

    options: Mapping[str, str]
    exporters: Sequence[Exporter]
    cache_exports: Sequence[CacheEntry] = ()
    cache_imports: Sequence[CacheEntry] = ()
    entitlements: Sequence[str] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)  # named contexts that are results of other builds

    @property
    def context(self) -> str:
        return self.options.get("context", "")

    @property
    def context_key(self) -> str:
        return self.options.get("contextkey", "context")

    @property
    def dockerfile_key(self) -> str:
        """Empty where the Dockerfile lies in the (remote) context itself."""
        return self.options.get("dockerfilekey", "" if self.context else "dockerfile")

    @property
    def filename(self) -> str:
        return self.options.get("filename", "Dockerfile")

    @property
    def call(self) -> str:
        """What is asked instead of a build: "lint", "outline", "targets"; "" for a build."""
        return self.options.get("requestid", "").removeprefix("frontend.")

    def local_contexts(self) -> dict[str, str]:
        """Named contexts that are folders of the client's: their names, and the session's."""
        found = _prefixed(self.options, "context:")
        return {name: place.removeprefix("local:") for name, place in found.items() if place.startswith("local:")}


def check_frontend(name: str, options: Mapping[str, str]) -> None:
    """Raises `Unsupported`: frontends are images that run in BuildKit; the Dockerfile's own we are."""
    source = options.get("source", "")
    base = source.partition("@")[0].rpartition(":")[0] if ":" in source else source
    if name not in _FRONTENDS or (name == "gateway.v0" and base not in _DOCKERFILE):
        raise Unsupported(
            f"the frontend {source or name or 'of raw LLB'} is not supported",
            hint="Dockerfiles are built by this engine itself; other frontends need BuildKit",
        )


def build_request(wanted: Wanted, context: Path, dockerfile: Path, scratch: Path) -> BuildRequest:
    """The request, whose files lie in `context`; results that go to the client are written below `scratch` (`output_path`).

    Raises `InvalidInput`, `Unsupported`.
    """
    options = wanted.options
    no_cache = options.get("no-cache")
    outputs = tuple(_output(number, exporter, scratch) for number, exporter in enumerate(wanted.exporters))
    return BuildRequest(
        context=context,
        dockerfile=dockerfile,
        remote=wanted.context or "client",
        tags=tuple(_names(wanted.exporters)),
        target=options.get("target", ""),
        build_args=_prefixed(options, "build-arg:"),
        labels=_prefixed(options, "label:"),
        no_cache=no_cache == "",
        no_cache_filter=tuple(part for part in (no_cache or "").split(",") if part),
        pull=options.get("image-resolve-mode") == "pull",
        contexts=_contexts(wanted, scratch),
        platforms=_list(options.get("platform", "")),
        network=options.get("force-network-mode", ""),
        add_hosts=tuple(host.replace("=", ":", 1) for host in _list(options.get("add-hosts", ""))),
        ulimits=_list(options.get("ulimit", "")),
        shm_size=_number(options, "shm-size"),
        limits=HostConfig(cgroup_parent=options.get("cgroup-parent", "")),
        allow=tuple(wanted.entitlements),
        cache_from=tuple(_cache(entry) for entry in _imports(wanted)),
        cache_to=tuple(_cache(entry) for entry in wanted.cache_exports),
        outputs=outputs or (BuildOutput("cacheonly"),),
        annotations={key: value for exporter in wanted.exporters for key, value in _annotations(exporter)},
    )


def unknown_options(options: Mapping[str, str]) -> list[str]:
    """Options that mean nothing here: the user is told. Raises `Unsupported` for those that would change what is made."""
    unknown = []
    for name in sorted(options):
        if name.startswith("attest:"):
            raise Unsupported(
                f"attestations are not supported ({name.partition(':')[2]})",
                hint="build with --provenance=false --sbom=false",
            )
        known = name in _READ or name.startswith((*_WITHOUT_MEANING, "build-arg:", "label:", "context:"))
        if not known:
            unknown.append(name)
    return unknown


def output_path(number: int, exporter: Exporter, scratch: Path) -> Path | None:
    """Where a result that belongs to the client is first written here; None for one that stays."""
    return scratch / f"output-{number}" if exporter.type in ("local", "tar", "oci", "docker") else None


def _output(number: int, exporter: Exporter, scratch: Path) -> BuildOutput:
    attrs = {
        key: value
        for key, value in exporter.attrs.items()
        if key not in _OF_BUILDKITS_STORE and not key.startswith("annotation")
    }
    path = output_path(number, exporter, scratch)
    match exporter.type:
        case "moby" | "image":
            return BuildOutput("image", "", attrs)
        case "oci" | "docker" | "tar" | "local":
            if attrs.get("tar") == "false":
                raise Unsupported(
                    f"an output of type {exporter.type} with tar=false is not supported over the API",
                    hint="leave tar=false out and unpack the archive",
                )
            return BuildOutput(exporter.type, str(path), attrs)
    raise Unsupported(f"the output type {exporter.type!r} is not supported")


def _names(exporters: Sequence[Exporter]) -> list[str]:
    names = [name for exporter in exporters for name in _list(exporter.attrs.get("name", ""))]
    return list(dict.fromkeys(names))


def _annotations(exporter: Exporter) -> list[tuple[str, str]]:
    found = []
    for key, value in exporter.attrs.items():
        kind, dot, name = key.partition(".")
        if kind in ("annotation", "annotation-manifest") and dot:
            found.append((name, value))
        elif kind.startswith("annotation"):
            raise Unsupported(f"{kind} of {name} is not supported: manifests alone take annotations")
    return found


def _contexts(wanted: Wanted, scratch: Path) -> dict[str, str]:
    found = {}
    for name, place in _prefixed(wanted.options, "context:").items():
        kind, _, rest = place.partition(":")
        if kind == "local":
            found[name] = str(named_folder(scratch, rest))
        elif kind == "input":
            if rest not in wanted.inputs:
                raise Unsupported(f"the context {name} is a result that this engine did not make")
            found[name] = wanted.inputs[rest]
        elif kind == "oci-layout":
            raise Unsupported(
                f"the context {name} is an OCI layout of the client's, which is not supported over the API",
                hint="load it first, and name it as docker-image://NAME",
            )
        else:
            found[name] = place
    return found


def named_folder(scratch: Path, key: str) -> Path:
    """Where the files of a named context lie. Keys are the client's: they are not used as paths."""
    return scratch / f"context-{key.encode().hex()[:200]}"


def _imports(wanted: Wanted) -> list[CacheEntry]:
    """In `cache-imports` they stand as JSON, for the frontend."""
    found = list(wanted.cache_imports)
    try:
        given = json.loads(wanted.options.get("cache-imports", "[]"))
        found += [CacheEntry(str(entry["Type"]), dict(entry["Attrs"])) for entry in given]
    except (ValueError, TypeError, KeyError):
        raise InvalidInput("cache-imports is no list of caches") from None
    found += [CacheEntry("registry", {"ref": ref}) for ref in _list(wanted.options.get("cache-from", ""))]
    return list({(entry.type, tuple(sorted(entry.attrs.items()))): entry for entry in found}.values())


def _cache(entry: CacheEntry) -> str:
    if entry.type == "local":
        raise Unsupported(
            "a cache in the client's folder (type=local) is not supported over the API", hint="use type=registry,ref=…"
        )
    return ",".join([f"type={entry.type}", *(f"{key}={value}" for key, value in sorted(entry.attrs.items()))])


def _prefixed(options: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _number(options: Mapping[str, str], name: str) -> int:
    text = options.get(name, "0") or "0"
    if not text.isdecimal():
        raise InvalidInput(f"{name}: {text!r} is not a number")
    return int(text)
