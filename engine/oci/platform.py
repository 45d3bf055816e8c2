"""Platforms (image-spec, image-index.md#platform-variants) and the choice among an index's manifests."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.oci.descriptor import Descriptor

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386", "arm64": "arm64"}
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls) -> Platform:
        """What containers on this machine are: always Linux."""
        machine = platform.machine()
        architecture = _ARCHITECTURES.get(machine, machine)
        return cls("linux", architecture, {"armv6l": "v6", "armv7l": "v7"}.get(machine, ""))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`linux/amd64`, `linux/arm64/v8`. Raises `InvalidInput`."""
        parts = text.lower().split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InvalidInput(f"{text!r} is not a platform", hint="write OS/ARCHITECTURE[/VARIANT]: linux/arm64")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @property
    def normal(self) -> Platform:
        """An empty variant is the architecture's usual one."""
        return Platform(self.os, self.architecture, self.variant or _DEFAULT_VARIANT.get(self.architecture, ""))


def _acceptable(want: Platform) -> list[Platform]:
    """What runs on `want`, best first (containerd platforms.Only): lower variants, and 386 on amd64."""
    want = want.normal
    found = [want]
    if want.architecture in ("arm", "arm64", "amd64") and want.variant.startswith("v") and want.variant[1:].isdigit():
        lowest = {"arm": 5, "arm64": 8, "amd64": 1}[want.architecture]
        found += [Platform(want.os, want.architecture, f"v{n}") for n in range(int(want.variant[1:]) - 1, lowest - 1, -1)]
    if want.architecture == "arm64":
        found += [Platform(want.os, "arm", f"v{n}") for n in (8, 7, 6, 5)]
    if want.architecture == "amd64":
        found += [Platform(want.os, "amd64"), Platform(want.os, "386")]
    return found


def choose(descriptors: Sequence[Descriptor], want: Platform) -> Descriptor:
    """The manifest for `want`. The index's order does not matter. Raises `NotFound`, naming what there is."""
    offered = {d.platform.normal: d for d in reversed(descriptors) if d.platform and d.platform.os not in ("", "unknown")}
    for candidate in _acceptable(want):
        if candidate in offered:
            return offered[candidate]
    bare = [d for d in descriptors if d.platform is None]
    if not offered and len(bare) == 1:
        return bare[0]
    there = ", ".join(sorted(str(p) for p in offered)) or "none"
    raise NotFound(f"no image for {want} in the index", hint=f"it offers: {there}")
