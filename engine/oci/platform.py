"""Platforms (image-spec, image-index.md#platform-variants) and the choice among an index's manifests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.oci.descriptor import Descriptor

# containerd platforms/database.go: normalizeArch, normalizeOS.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
}
_VARIANTS = {"armhf": "v7", "armel": "v6", "armv6l": "v6", "armv7l": "v7"}
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}
_SYSTEMS = {"linux", "windows", "darwin", "freebsd"}
_PART = re.compile(r"[a-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls) -> Platform:
        """What containers on this machine are: always Linux."""
        machine = os.uname().machine
        architecture = _ARCHITECTURES.get(machine, machine)
        return cls("linux", architecture, _VARIANTS.get(machine, ""))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`linux/amd64`, `linux/arm64/v8`, `linux/x86_64`; `arm64` alone is of Linux. Raises `InvalidInput`."""
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidInput(f"{text!r} is not a platform", hint="write OS/ARCHITECTURE[/VARIANT]: linux/arm64")
        if len(parts) == 1:
            parts = [parts[0], cls.host().architecture] if parts[0] in _SYSTEMS else ["linux", parts[0]]
        system, machine = {"macos": "darwin"}.get(parts[0], parts[0]), parts[1]
        variant = parts[2] if len(parts) == 3 else _VARIANTS.get(machine, "")
        if variant.isdigit():  # arm64/8 is written for arm64/v8
            variant = f"v{variant}"
        return cls(system, _ARCHITECTURES.get(machine, machine), variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @property
    def normal(self) -> Platform:
        """An empty variant is the architecture's usual one, and amd64/v1 is plain amd64."""
        if (self.architecture, self.variant) == ("amd64", "v1"):
            return Platform(self.os, "amd64")
        return Platform(self.os, self.architecture, self.variant or _DEFAULT_VARIANT.get(self.architecture, ""))


def _acceptable(want: Platform) -> list[Platform]:
    """What runs on `want`, best first (containerd platforms.Only): lower variants, and 386 on amd64."""
    want = want.normal
    found = [want]
    version = re.fullmatch(r"v([0-9])(?:\.[0-9]+)?", want.variant)
    if want.architecture in ("arm", "arm64", "amd64") and version:
        lowest = {"arm": 5, "arm64": 8, "amd64": 2}[want.architecture]
        newest = int(version[1]) - ("." not in want.variant)  # v8.2 runs what is made for v8
        found += [Platform(want.os, want.architecture, f"v{n}") for n in range(newest, lowest - 1, -1)]
    if want.architecture == "arm64":
        found += [Platform(want.os, "arm", f"v{n}") for n in (8, 7, 6, 5)]
    if want.architecture == "amd64":
        found += [Platform(want.os, "amd64"), Platform(want.os, "386")]
    return found


def choose(descriptors: Sequence[Descriptor], want: Platform) -> Descriptor:
    """The manifest for `want`. The index's order does not matter. Raises `NotFound`, naming what there is."""
    # Attestations are listed as unknown/unknown; of two entries for one platform the first counts.
    real = [d for d in descriptors if d.platform and d.platform.os not in ("", "unknown")]
    offered = {d.platform.normal: d for d in reversed(real) if d.platform}
    for candidate in _acceptable(want):
        if candidate in offered:
            return offered[candidate]
    bare = [d for d in descriptors if d.platform is None]
    if not offered and len(bare) == 1:
        return bare[0]
    there = ", ".join(sorted(str(p) for p in offered)) or "none"
    raise NotFound(f"no image for {want} in the index", hint=f"it offers: {there}")
