"""What a build makes: an image's documents, whose layers are in the store."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.build.state import State
from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.digest import Digest
from engine.oci.manifest import Index, Manifest, build_index
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
        return LayerView(store.layers.trees(chain_ids(self.config.diff_ids)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a build made: one result a platform, in the order asked for, and the stages that they came of."""

    results: tuple[Result, ...]
    states: tuple[State, ...]
    names: tuple[str, ...]  # full references

    @property
    def top(self) -> Manifest | Index:
        """What the names stand for: the manifest, or an index where several platforms were asked for."""
        if len(self.results) == 1:
            return self.results[0].manifest
        return build_index([replace(r.manifest.descriptor, platform=r.platform) for r in self.results])

    @property
    def usual(self) -> Result:
        """The result for this machine, else the first."""
        host = Platform.host().normal
        return next((r for r in self.results if r.platform.normal == host), self.results[0])

    def chains(self) -> set[Digest]:
        """What the results are made of."""
        return {chain for result in self.results for chain in chain_ids(result.config.diff_ids)}
