"""Descriptors: typed, digested references to content (image-spec, descriptor.md)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import InvalidInput
from engine.oci.digest import Digest
from engine.oci.platform import Platform

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838, section 4.2
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_KNOWN = {"mediaType", "digest", "size", "platform", "annotations"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """`extra` holds the fields that this version does not know: they are written back as they came."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_json(cls, obj: object) -> Descriptor:
        """Raises `InvalidInput` when a required field is missing or of the wrong kind."""
        if not isinstance(obj, dict):
            raise InvalidInput("a descriptor is a JSON object")
        media_type, size = obj.get("mediaType"), obj.get("size")
        for name, value in (("mediaType", media_type), ("artifactType", obj.get("artifactType", media_type))):
            if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
                raise InvalidInput(f"descriptor: {name} {str(value)[:200]!r} is not a media type")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise InvalidInput(f"descriptor: size {size!r} is not a size")
        annotations = obj.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise InvalidInput("descriptor: annotations are strings by name")
        digest = Digest.parse(obj.get("digest"), known=False)
        _check_urls(obj.get("urls"))
        _check_data(obj.get("data"), digest, size)
        extra = {key: value for key, value in obj.items() if key not in _KNOWN}
        return cls(str(media_type), digest, size, _platform(obj.get("platform")), annotations, extra)

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.platform:
            document["platform"] = {
                "architecture": self.platform.architecture,
                "os": self.platform.os,
                **({"variant": self.platform.variant} if self.platform.variant else {}),
            }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return {**document, **self.extra}


def _check_urls(obj: object) -> None:
    if obj is None:
        return
    if not isinstance(obj, list) or not all(isinstance(url, str) and _URL.match(url) for url in obj):
        raise InvalidInput("descriptor: urls is a list of URLs")


def _check_data(obj: object, digest: Digest, size: int) -> None:
    """`data` is the content in base64, so it must be of that size and digest (descriptor.md#embedded-content)."""
    if obj is None:
        return
    try:
        content = base64.b64decode(obj, validate=True) if isinstance(obj, str) else b""
    except ValueError:
        raise InvalidInput("descriptor: data is not base64") from None
    if not isinstance(obj, str) or len(content) != size or not digest.matches(content):
        raise InvalidInput("descriptor: data is not the content that the digest names")


def _platform(obj: object) -> Platform | None:
    if obj is None:
        return None
    if not isinstance(obj, dict):
        raise InvalidInput("descriptor: platform is a JSON object")
    values = [obj.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(value, str) for value in values):
        raise InvalidInput("descriptor: platform fields are strings")
    return Platform(*map(str, values))
