"""What a build makes: an image's documents, whose layers are in the store."""

from __future__ import annotations

from dataclasses import dataclass

from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.manifest import Manifest
from engine.oci.platform import Platform
from engine.store.store import Store
from engine.store.view import LayerView


@dataclass(frozen=True, slots=True)
class Result:
    """One platform's image. `size` is the sum of its layers' unpacked bytes."""

    manifest: Manifest
    config: ImageConfig
    size: int

    @property
    def platform(self) -> Platform:
        return Platform(self.config.os, self.config.architecture, self.config.variant)

    def view(self, store: Store) -> LayerView:
        """Its merged file system, read from the unpacked layers."""
        store.ensure_layers(self.manifest.layers, self.config.diff_ids)
        return LayerView([store.layers.tree(chain) for chain in reversed(chain_ids(self.config.diff_ids))])
