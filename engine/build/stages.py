"""What a stage begins with: nothing, an image, an earlier stage, or the files of a named context."""

from __future__ import annotations

from pathlib import Path

from engine.base.clock import parse_rfc3339
from engine.build.copier import write_plan
from engine.build.copy import CopyPlan, digest_plan, take_path
from engine.build.graph import StagePlan
from engine.build.prepare import Prepared
from engine.build.site import Site, Work
from engine.build.source import Source
from engine.build.state import State
from engine.errors import InvalidInput
from engine.oci.config import ImageConfig
from engine.store.images import Image
from engine.store.view import LayerView


def begin_stage(site: Site, plan: StagePlan, prepared: Prepared) -> tuple[State, Work | None]:
    """The state behind FROM, and the layer to make first when the base is a folder of files."""
    index = plan.stage.index
    if index in prepared.images:
        return _from_image(site, prepared.images[index]), None
    named = prepared.named.get(index)
    if named is not None and named.source is not None:
        return State(empty_config(prepared, index)), _files(site, named.source, plan.base)
    if named is not None:
        for stage in site.dockerfile.stages:
            if stage.name == named.stage.lower() and stage.index in site.done:
                return site.done[stage.index].fork(), None
        raise InvalidInput(f"target:{named.stage} is no stage above this one")
    if plan.base_stage is not None:
        return site.done[plan.base_stage].fork(), None
    return State(empty_config(prepared, index)), None


def empty_config(prepared: Prepared, stage: int) -> ImageConfig:
    """FROM scratch."""
    return ImageConfig.scratch(prepared.platforms.get(stage, prepared.target)).with_config(WorkingDir="/")


def _from_image(site: Site, image: Image) -> State:
    images = site.store.images
    config, manifest = images.config(image), images.manifest(image)
    site.store.ensure_layers(manifest.layers, config.diff_ids, cancel=site.cancel)
    try:
        created = parse_rfc3339(config.created) // 10**9 if config.created else 0
    except ValueError:
        created = 0
    steps = list(images.steps(image))
    steps += [{} for _ in range(len(config.history) - len(steps))]
    # The triggers have become this stage's first instructions; a grandchild does not inherit them.
    state = State(config.with_config(OnBuild=None), list(manifest.layers), image.size, steps=steps)
    state.created = max(created, 0)
    return state


def _files(site: Site, source: Source, name: str) -> Work:
    plan = CopyPlan("/", (take_path(source, ""),))
    inputs = digest_plan(plan)

    def perform(upper: Path, scratch: Path) -> None:
        write_plan(plan, upper, LayerView([]), site.cancel, epoch=site.epoch or 0)

    return Work(inputs, f"FROM {name}", perform)
