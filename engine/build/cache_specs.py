"""The words of `--cache-from` and `--cache-to` (docker buildx build's own): `type=registry,ref=NAME`, `type=local,src=FOLDER`, a name alone."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from engine.errors import InvalidInput, Unsupported
from engine.oci.reference import Reference

Kind = Literal["registry", "local", "inline", "image"]  # "image": one of this store, never asked of a registry
_ELSEWHERE = ("gha", "s3", "azblob")
_FROM = {"registry": {"ref"}, "image": {"ref"}, "local": {"src", "tag", "digest"}}
_TO = {
    "registry": {"ref", "mode", "compression", "image-manifest", "oci-mediatypes", "ignore-error"},
    "local": {"dest", "mode", "tag", "compression", "image-manifest", "oci-mediatypes", "ignore-error"},
    "inline": {"mode"},
}


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """`place` is a reference or a folder, "" for an inline one."""

    kind: Kind
    place: str = ""
    tag: str = "latest"
    digest: str = ""
    every_stage: bool = False  # mode=max
    compression: str = "uncompressed"
    as_manifest: bool = True  # image-manifest
    ignore_error: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.place}".strip()


def parse_from(text: str) -> CacheSpec:
    """Raises `InvalidInput`, `Unsupported`."""
    if "=" not in text:
        return CacheSpec("registry", _reference(text, "--cache-from", text))
    given, kind = _fields(text, "--cache-from", _FROM)
    if kind in ("registry", "image"):
        return CacheSpec(cast(Kind, kind), _reference(given.get("ref", ""), "--cache-from", text))
    return CacheSpec(
        "local", _need(given, "src", "--cache-from", text), given.get("tag", "latest"), given.get("digest", "")
    )


def parse_to(text: str) -> CacheSpec:
    """Raises `InvalidInput`, `Unsupported`."""
    if "=" not in text and text != "inline":
        return CacheSpec("registry", _reference(text, "--cache-to", text))
    given, kind = _fields(f"type={text}" if text == "inline" else text, "--cache-to", _TO)
    mode = given.get("mode", "min")
    if mode not in ("min", "max"):
        raise InvalidInput(f"--cache-to {text}: mode={mode} is not known", hint="min and max are")
    if kind == "inline":
        if mode == "max":
            raise InvalidInput(
                f"--cache-to {text}: an image holds its own layers alone",
                hint="mode=max needs type=registry or type=local",
            )
        return CacheSpec("inline")
    compression = given.get("compression", "uncompressed")
    if compression not in ("uncompressed", "gzip", "zstd"):
        raise InvalidInput(
            f"--cache-to {text}: compression={compression} is not known", hint="uncompressed, gzip and zstd are"
        )
    if not _switch(given, "oci-mediatypes", True, text):
        raise Unsupported(f"--cache-to {text}: caches have OCI's media types here", hint="leave oci-mediatypes out")
    place = (
        _reference(given.get("ref", ""), "--cache-to", text)
        if kind == "registry"
        else _need(given, "dest", "--cache-to", text)
    )
    return CacheSpec(
        "registry" if kind == "registry" else "local",
        place,
        given.get("tag", "latest"),
        every_stage=mode == "max",
        compression=compression,
        as_manifest=_switch(given, "image-manifest", True, text),
        ignore_error=_switch(given, "ignore-error", False, text),
    )


def _fields(text: str, flag: str, known: Mapping[str, set[str]]) -> tuple[dict[str, str], str]:
    try:
        (row,) = csv.reader([text])
    except (csv.Error, ValueError):
        raise InvalidInput(f"{flag} {text}: its fields cannot be told apart") from None
    given = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in row)}
    kind = given.pop("type", "")
    if kind in _ELSEWHERE:
        raise Unsupported(f"{flag} {text}: type={kind} is not supported", hint="registry, local and inline are")
    if kind not in known:
        raise InvalidInput(f"{flag} {text}: type={kind} is not known", hint=f"types are {', '.join(known)}")
    unknown = given.keys() - known[kind]
    if unknown:
        hint = f"type={kind} knows {', '.join(sorted(known[kind]))}"
        raise InvalidInput(f"{flag} {text}: unknown field {sorted(unknown)[0]!r}", hint=hint)
    return given, kind


def _need(given: Mapping[str, str], name: str, flag: str, text: str) -> str:
    if not given.get(name):
        raise InvalidInput(f"{flag} {text}: {name} is missing", hint=f"write type=local,{name}=FOLDER")
    return given[name]


def _reference(text: str, flag: str, whole: str) -> str:
    if not text:
        raise InvalidInput(f"{flag} {whole}: ref is missing", hint="write type=registry,ref=HOST/NAME:TAG")
    return str(Reference.parse(text).with_default_tag())


def _switch(given: Mapping[str, str], name: str, default: bool, text: str) -> bool:
    value = given.get(name, str(default)).lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidInput(f"{text}: {name}={value} is neither true nor false")
    return value in ("true", "1")
