"""`--filter` of images: Docker's keys and meanings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.base.clock import parse_moment
from engine.errors import InvalidInput

if TYPE_CHECKING:
    from engine.model import ImageSummary

Filters = Mapping[str, Sequence[str]]
LIST_KEYS = ("before", "dangling", "label", "reference", "since", "until")
PRUNE_KEYS = ("dangling", "label", "label!", "until")


def check(filters: Filters, known: Sequence[str]) -> None:
    """Raises `InvalidInput` for a key that this command has not."""
    for key in filters:
        if key not in known:
            raise InvalidInput(f"invalid filter '{key}'", hint=f"{', '.join(known)} are known")


def boolean(key: str, values: Sequence[str]) -> bool:
    words = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}
    if len(values) != 1 or values[0].lower() not in words:
        raise InvalidInput(f"invalid filter '{key}={','.join(values)}'", hint="it is true or false")
    return words[values[0].lower()]


def labelled(labels: Mapping[str, str], filters: Filters) -> bool:
    """All of `label`, none of `label!`: KEY or KEY=VALUE."""

    def has(text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in labels and (not equals or labels[key] == value)

    return all(map(has, filters.get("label", ()))) and not any(map(has, filters.get("label!", ())))


def until(filters: Filters, now: int | None = None) -> int | None:
    """The moment (ns) before which things must have been made; None without that filter."""
    values = filters.get("until")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInput("more than one until filter specified")
    return parse_moment(values[0], time.time_ns() if now is None else now)


def by_id(found: Sequence[ImageSummary]) -> list[ImageSummary]:
    """An image that is here in two compressions has two manifests and one id. Docker shows it once: so what has no tag of its own
    is not shown beside one that has, or a second time."""
    shown = {image.id: image for image in reversed(found)} | {image.id: image for image in found if image.tags}
    return [image for image in found if image.tags or shown[image.id] is image]


def images(found: Sequence[ImageSummary], filters: Filters, created: Callable[[str], int]) -> list[ImageSummary]:
    """Those that `filters` leave; an image's names are narrowed to the references asked for. `created` is of an image by name."""
    check(filters, LIST_KEYS)
    before = [created(name) for name in filters.get("before", ())]
    since = [created(name) for name in filters.get("since", ())]
    limit = until(filters)
    dangling = boolean("dangling", filters["dangling"]) if "dangling" in filters else None
    kept = []
    for image in found:
        if dangling is not None and image.dangling != dangling:
            continue
        if not labelled(image.labels, filters) or (limit is not None and image.created >= limit):
            continue
        if any(image.created >= moment for moment in before) or any(image.created <= moment for moment in since):
            continue
        narrowed = _by_reference(image, filters.get("reference", ()))
        if narrowed is not None:
            kept.append(narrowed)
    return kept


def _by_reference(image: ImageSummary, patterns: Sequence[str]) -> ImageSummary | None:
    if not patterns:
        return image
    from engine.oci.reference import Reference, familiar_match

    tags = [tag for tag in image.tags if any(familiar_match(one, Reference.parse(tag)) for one in patterns)]
    digests = [
        name for name in image.repo_digests if any(familiar_match(one, Reference.parse(name)) for one in patterns)
    ]
    return replace(image, tags=tuple(tags), repo_digests=tuple(digests)) if tags or digests else None
