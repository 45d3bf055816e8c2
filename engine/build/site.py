"""What the steps of one build share: the store, the contexts, the finished stages, and the rules that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.archive.writer import LayerWriter
from engine.base.cancel import CancelToken
from engine.build.dockerfile.ast import Dockerfile
from engine.build.graph import find_source
from engine.build.interfaces import Emit, Runner
from engine.build.origins import Contexts, Named
from engine.build.source import Source, ViewSource
from engine.build.state import State
from engine.build.trees import Trees
from engine.errors import InvalidInput
from engine.model import BuildRequest
from engine.oci.chain import chain_ids
from engine.oci.platform import Platform
from engine.store.store import Store
from engine.store.view import LayerView

if TYPE_CHECKING:
    from engine.build.delta import Copied


@dataclass(frozen=True, slots=True)
class Work:
    """A step that makes a layer: what its result depends on, its history entry, and how it is done.

    `perform` fills the upper directory it is given; the second folder is for its own use: it is not there yet. `inputs` hold no secret.
    `stream`, where there is one, fills the upper directory and writes the layer's tar in one pass. `copied`: it may also be made out of
    what the same step made before.
    """

    inputs: Mapping[str, str]
    created_by: str
    perform: Callable[[Path, Path], None]
    stream: Callable[[Path, LayerWriter], None] | None = None
    copied: Copied | None = None


@dataclass(slots=True)
class Site:
    store: Store
    runner: Runner
    request: BuildRequest
    dockerfile: Dockerfile
    file: Path
    contexts: Contexts
    emit: Emit
    cancel: CancelToken
    outer: Mapping[str, str]  # ARGs before the first FROM, and the platform's
    target: Platform
    epoch: int | None = None  # SOURCE_DATE_EPOCH
    done: Mapping[int, State] = field(default_factory=dict)  # finished stages; asking for one waits for it
    scratch: Path | None = None  # a folder of this build's own

    @property
    def trees_known(self) -> Trees | None:
        return self.contexts.trees

    @property
    def escape(self) -> str:
        return self.dockerfile.escape

    def trees(self, state: State) -> list[Path]:
        """The state's layers as directories, topmost first."""
        self.store.ensure_layers(state.layers, state.config.diff_ids, cancel=self.cancel)
        return self.store.layers.trees(chain_ids(state.config.diff_ids))

    def view(self, state: State) -> LayerView:
        return LayerView(self.trees(state))

    def origin(self, name: str, stage: int, *, numbers: bool) -> Origin:
        """What `--from=name` (or `from=name`) of an instruction in `stage` reads. "" is the build context."""
        if not name:
            return Origin(source=self.contexts.main)
        index = find_source(self.dockerfile, name, stage, numbers=numbers)
        if index is not None:
            return self._of_stage(index, name)
        if name == "scratch":
            return Origin(trees=(), where="scratch")
        named = self.contexts.named(name, self.target)
        if named is not None:
            return self._of_named(named, name)
        image = self.contexts.image(name, self.target)
        trees = tuple(self.store.lowers(image))
        return Origin(trees=trees, where=f"image {name}", key=str(image.config_digest), remembered=self.trees_known)

    def _of_stage(self, index: int, name: str) -> Origin:
        state = self.done[index]
        return Origin(
            trees=tuple(self.trees(state)), where=f"stage {name}", key=state.chain, remembered=self.trees_known
        )

    def _of_named(self, named: Named, name: str) -> Origin:
        if named.source is not None:
            return Origin(source=named.source)
        if named.image is not None:
            trees = tuple(self.store.lowers(named.image))
            return Origin(
                trees=trees, where=f"image {name}", key=str(named.image.config_digest), remembered=self.trees_known
            )
        for index, stage in enumerate(self.dockerfile.stages):
            if stage.name == named.stage.lower() and index in self.done:
                return self._of_stage(index, named.stage)
        raise InvalidInput(f"--build-context {name}=target:{named.stage}: there is no such stage above this one")


@dataclass(frozen=True, slots=True)
class Origin:
    """Files to read: a `source`, or the merged `trees` (topmost first) that `key` names."""

    source: Source | None = None
    trees: tuple[Path, ...] = ()
    where: str = ""
    key: str = ""
    remembered: Trees | None = None

    def as_source(self) -> Source:
        if self.source is not None:
            return self.source
        return ViewSource(LayerView(self.trees), self.where, self.key, self.remembered)
