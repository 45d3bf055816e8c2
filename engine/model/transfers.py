"""Images on their way in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class PullProgress:
    """State of one blob of a pull (waiting, downloading, extracting, done or exists) or push (packing, uploading, mounted)."""

    reference: str
    layer: str  # short digest; "" speaks of the whole image: "exists" says that the name meant it before
    phase: Literal[
        "resolving",
        "waiting",
        "downloading",
        "uploading",
        "loading",
        "extracting",
        "packing",
        "exists",
        "mounted",
        "done",
    ]
    current: int = 0
    total: int = 0
    text: str = ""
    rate: float = 0.0  # bytes a second over the last few seconds; 0 when not known
    left: float | None = None  # seconds until this blob is there, at that rate


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that came out of an archive. `moved` tells, a sentence each, of tags that another image had before."""

    id: str
    digest: str
    tags: tuple[str, ...]
    moved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing of an image, here and on another host."""

    what: str  # "config", "layer 3", "manifest"
    here: str
    there: str
    packing: bool = False  # they differ only in how the layers are compressed: what is unpacked is the same

    @property
    def same(self) -> bool:
        return self.here == self.there or self.packing


@dataclass(frozen=True, slots=True)
class ImageImport:
    """An image to make of a file system's tar. `changes` are Dockerfile instructions for its config."""

    reference: str = ""  # "" leaves it without a tag
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""  # "" is this host's


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Who one request goes to a registry as, in the place of what this host has stored. `server` is a host, or a URL of one."""

    server: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RegistryMatch:
    """One repository that a registry's search found."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a registry has under a name: the descriptor of its manifest or index, and the platforms ("linux/arm64/v8")."""

    media_type: str
    digest: str
    size: int
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryDocument:
    """A manifest or index as a registry has it. `raw` are its bytes, `platform` what an index says that it is for, `config` an
    image's own, where it was asked for."""

    name: str  # "NAME@sha256:…"
    media_type: str
    digest: str
    raw: bytes
    platform: str = ""
    artifact_type: str = ""  # "" is an image or an index of images
    config: bytes = b""
