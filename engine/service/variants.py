"""Images by platform: whether one fits, and which one of several that a name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import NotFound
from engine.oci.config import ImageConfig
from engine.oci.manifest import Manifest, parse_manifest
from engine.oci.platform import Platform, choose

if TYPE_CHECKING:
    from engine.store.images import Image
    from engine.store.store import Store


def fits(store: Store, image: Image, platform: Platform) -> bool:
    there, wanted = of(store, image).normal, platform.normal
    same = (there.os, there.architecture) == (wanted.os, wanted.architecture)
    return same and (not platform.variant or there.variant == wanted.variant)


def of(store: Store, image: Image) -> Platform:
    config = store.images.config(image)
    return Platform(config.os, config.architecture, config.variant)


def variant(store: Store, name: str, platform: Platform | None) -> Image | None:
    """The image for `platform` among those that stand here under `name` for several."""
    index = store.indexes.find(name) if platform is not None else None
    if index is None or platform is None:
        return None
    try:
        chosen = choose(index.manifests, platform)
    except NotFound:
        return None
    manifest = parse_manifest(store.blobs.read(chosen.digest), chosen.media_type)
    if not isinstance(manifest, Manifest):
        return None
    config = ImageConfig.parse(store.blobs.read(manifest.config.digest))
    records = store.ensure_layers(manifest.layers, config.diff_ids)
    return store.images.put(manifest, config, sum(record.size for record in records), [])


def wanted(store: Store, name: str, platform: str) -> Image:
    """The image that `name` means here, for `platform` ("" is any). Raises `NotFound`, as `docker run` expects it."""
    image = store.images.get(name)
    if not platform:
        return image
    asked = Platform.parse(platform)
    if fits(store, image, asked):
        return image
    found = variant(store, name, asked)
    if found is None:
        raise NotFound(
            f"image with reference {name} was found but does not provide the specified platform ({asked}): "
            f"it is for {of(store, image)}",
            hint=f"`workbench pull --platform {asked} {name}` fetches it",
        )
    return found
