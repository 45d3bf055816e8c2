"""One platform of a build: its bases and stages, run beside each other, and the image that they come to."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import replace

from engine.base.cancel import CancelToken
from engine.base.clock import rfc3339
from engine.build.finished import Finished
from engine.build.graph import StagePlan, list_steps
from engine.build.prepare import Prepared
from engine.build.result import Result
from engine.build.site import Site
from engine.build.stage_run import Shop, StageRun
from engine.build.state import State
from engine.errors import Cancelled
from engine.model import StepInfo
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG

INLINE = "moby.buildkit.cache.v0"  # the config's field for a cache that travels with the image
Inline = Callable[[ImageConfig], bytes]


class PlatformRun:
    """`steps` are those of the whole Dockerfile that this platform needs. With `several`, they are named by the platform."""

    def __init__(self, site: Site, prepared: Prepared, shop: Shop, cancel: CancelToken, *, several: bool) -> None:
        self._site, self._prepared, self._shop, self._cancel = site, prepared, shop, cancel
        prefix = f"{prepared.target} " if several else ""
        self._steps = {
            step.key: replace(step, key=prefix + step.key, stage=prefix + step.stage)
            for step in list_steps(prepared.plans)
        }
        self._state: State | None = None

    @property
    def steps(self) -> list[StepInfo]:
        return list(self._steps.values())

    @property
    def notices(self) -> tuple[str, ...]:
        return self._prepared.notices

    @property
    def states(self) -> list[State]:
        """Of the stages that are done."""
        return [self._site.done[index] for index in self._site.done]

    def run(self) -> None:
        """All stages beside each other, the last one on this thread. Raises what the first one that failed raised."""
        finished, plans = self._site.done, self._prepared.plans
        assert isinstance(finished, Finished)
        finished.expect({plan.stage.index for plan in plans})
        errors: list[BaseException] = []

        def run(plan: StagePlan) -> None:
            try:
                stage = StageRun(self._site, self._prepared, plan, self._steps, self._shop)
                finished.put(plan.stage.index, stage.run())
            except BaseException as error:
                errors.append(error)
                self._cancel.cancel()

        threads = [threading.Thread(target=run, args=(plan,), name="build-stage", daemon=True) for plan in plans[:-1]]
        for thread in threads:
            thread.start()
        run(plans[-1])
        for thread in threads:
            thread.join()
        raise_first(errors)
        self._state = finished[plans[-1].stage.index]

    def result(self, inline: Inline | None) -> Result:
        """The image's documents, the config stored. `inline` is asked for the cache that it shall carry."""
        site, state = self._site, self._state
        assert state is not None  # after `run`
        config = state.config
        if site.request.labels:
            config = config.with_config(Labels={**config.labels, **site.request.labels})
        if site.epoch is not None:
            config = config.with_created(rfc3339(site.epoch * 10**9))
        if inline is not None:
            cache = base64.b64encode(inline(config)).decode()
            config = ImageConfig({**config.document, INLINE: cache})
        elif INLINE in config.document:  # the base's own, which speaks of fewer layers
            config = ImageConfig({name: value for name, value in config.document.items() if name != INLINE})
        raw = config.to_bytes()
        digest = site.store.blobs.put(raw, durable=False)
        described = Descriptor(OCI_CONFIG, digest, len(raw))
        manifest = build_manifest(described, state.layers, dict(site.request.annotations) or None)
        site.store.images.put_steps(digest, state.steps)
        return Result(manifest, config, state.size)


def raise_first(errors: list[BaseException]) -> None:
    """A stage that was stopped because another one failed says nothing of its own."""
    if errors:
        raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
