"""What a user can point at: the row under the cursor, a marked row, a match of the palette."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from engine.api import ContainerSummary, ImageSummary, NetworkInfo, ServiceState, VolumeInfo

Kind = Literal["service", "container", "image", "layer", "volume", "network", "event", "build"]


@dataclass(frozen=True, slots=True)
class Subject:
    """`id` is unique among its kind and what the engine is asked with; `name` is what people call it. `record` is the engine's
    record it was made of. A layer's `id` is "IMAGE#INDEX"; a build's its number."""

    kind: Kind
    id: str
    name: str
    record: Any = field(default=None, compare=False, repr=False)


_ASIDE = re.compile(r"-(before-\d+|next)$")


def own_name(container: str) -> str:
    """What a service's container is called when it serves: while it is replaced, or waits to replace, it has a longer name."""
    return _ASIDE.sub("", container)


def image_subjects(images: Iterable[ImageSummary]) -> list[Subject]:
    """One for each name of each image, the shortest first, as `docker images` lists them: what is done to it is done to that name.
    An image without a name is its id."""
    return [
        Subject("image", tag or one.digest, tag or one.id, one)
        for one in images
        for tag in sorted(one.tags, key=lambda tag: (len(tag), tag)) or [""]
    ]


@dataclass(frozen=True, slots=True)
class Lists:
    """What is there now: one look at the engine and at the project's loop."""

    images: Sequence[ImageSummary] = ()
    containers: Sequence[ContainerSummary] = ()
    volumes: Sequence[VolumeInfo] = ()
    networks: Sequence[NetworkInfo] = ()
    services: Sequence[ServiceState] = ()
    project: str = ""

    def container(self, name: str) -> ContainerSummary | None:
        """By name or id."""
        return next((each for each in self.containers if name in (each.name, each.id)), None)

    def image(self, name: str) -> ImageSummary | None:
        """By config digest, manifest digest or tag."""
        return next((each for each in self.images if name in (each.id, each.digest, *each.tags)), None)
