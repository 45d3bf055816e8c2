"""Images on their way in and out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PullProgress:
    """State of one blob of a pull (waiting, downloading, extracting, done or exists) or push (uploading, mounted)."""

    reference: str
    layer: str  # short digest; "" speaks of the whole image
    phase: Literal[
        "resolving", "waiting", "downloading", "uploading", "loading", "extracting", "exists", "mounted", "done"
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
