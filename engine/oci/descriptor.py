"""Descriptors: typed, digested references to content (image-spec, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import InvalidInput
from engine.oci.digest import Digest
from engine.oci.platform import Platform

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
        if not isinstance(media_type, str) or "/" not in media_type:
            raise InvalidInput(f"descriptor: mediaType {media_type!r} is not a media type")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise InvalidInput(f"descriptor: size {size!r} is not a size")
        annotations = obj.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise InvalidInput("descriptor: annotations are strings by name")
        return cls(
            media_type, Digest.parse(obj.get("digest")), size, _platform(obj.get("platform")), annotations,
            {key: value for key, value in obj.items() if key not in _KNOWN},
        )

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.platform:
            document["platform"] = {
                "architecture": self.platform.architecture, "os": self.platform.os,
                **({"variant": self.platform.variant} if self.platform.variant else {}),
            }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return {**document, **self.extra}


def _platform(obj: object) -> Platform | None:
    if obj is None:
        return None
    if not isinstance(obj, dict):
        raise InvalidInput("descriptor: platform is a JSON object")
    values = [obj.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(value, str) for value in values):
        raise InvalidInput("descriptor: platform fields are strings")
    return Platform(*map(str, values))
