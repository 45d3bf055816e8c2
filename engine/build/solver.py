"""Runs a Dockerfile: the stages that the target needs, beside each other, each step either found in the cache or done and put there.

A step's cache key is the chain ID of what it builds on and a digest of what it depends on, so equal content meets equal
keys however it came about, and modification times do not count. A layer enters the cache after it is whole; a step that is
cancelled or crashes leaves nothing that is later trusted. Only what was made here is in the cache: an image that was pulled
never answers for a step (CVE-2024-24557).

Each stage has a thread of its own and waits where it reads from another; steps that work take one of a bounded number of slots. The
first stage that fails stops the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence

from engine.base.cancel import CancelToken
from engine.base.clock import rfc3339
from engine.build.export import export_all, keeps_image
from engine.build.finished import Finished
from engine.build.graph import StagePlan, list_steps
from engine.build.interfaces import Emit, ImageSource, Runner
from engine.build.origins import Contexts
from engine.build.prepare import Prepared, prepare
from engine.build.reading import read_input
from engine.build.result import Result
from engine.build.site import Site
from engine.build.source import WARN_ENTRIES
from engine.build.stage_run import Shop, StageRun
from engine.build.state import State
from engine.build.step_cache import StepCache
from engine.build.trees import Trees
from engine.build.watched import ContextIndexes
from engine.errors import Cancelled, from_os_error
from engine.model import BuildFinished, BuildNotice, BuildRequest, BuildStarted, StepInfo
from engine.oci.descriptor import Descriptor
from engine.oci.manifest import build_manifest
from engine.oci.media import OCI_CONFIG
from engine.oci.reference import Reference
from engine.store.images import Image
from engine.store.store import Store

# Steps wait (for a network, a disk) more than they compute: a slot a core would leave cores idle.
SLOTS = max(16, 4 * (os.cpu_count() or 1))


class Build:
    """One build. `run` does it on the calling thread and reports through `emit`, which is called from several threads."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        images: ImageSource,
        request: BuildRequest,
        emit: Emit,
        cancel: CancelToken,
        trees: Trees | None = None,
        indexes: ContextIndexes | None = None,
    ):
        self._store, self._runner, self._images = store, runner, images
        self._request, self._emit = request, emit
        self._outer, self._cancel = cancel, CancelToken()
        self._trees, self._indexes = trees or Trees(store.root / "stat" / "trees.sqlite"), indexes
        self._shop = Shop(StepCache(store), self._trees, threading.BoundedSemaphore(SLOTS))
        self._site: Site
        self._prepared: Prepared

    def run(self) -> BuildFinished:
        started = time.monotonic()
        with self._outer.calling(self._cancel.cancel):
            given = read_input(self._request)
            contexts = Contexts(
                self._store, self._images, self._request, given.matcher, self._emit, self._cancel,
                self._indexes, self._trees,
            )  # fmt: skip
            try:
                with self._store.using():
                    self._prepared = prepare(self._request, given, contexts, self._store)
                    self._site = Site(
                        self._store,
                        self._runner,
                        self._request,
                        given.dockerfile,
                        given.file,
                        contexts,
                        self._emit,
                        self._cancel,
                        self._prepared.outer,
                        self._prepared.epoch,
                        Finished(self._cancel),
                    )
                    result = self._build()
                    image = self._keep_image(result)
                    export_all([result], self._request, self._store, self._cancel)
            except OSError as error:
                raise from_os_error(error, f"building {given.file}") from error
            finally:
                contexts.close()
        return self._finish(result, image, time.monotonic() - started)

    def _finish(self, result: Result, image: Image | None, seconds: float) -> BuildFinished:
        config_digest = result.manifest.config.digest
        attributes = {"dockerfile": str(self._site.file)}
        self._store.records.event("build", "finish", config_digest, attributes, durable=False)
        first, reason = self._shop.first or (None, "")
        tags = image.familiar_tags if image else ()
        finished = BuildFinished(config_digest, result.manifest.digest, tags, seconds, first, reason)
        self._emit(finished)
        return finished

    def _build(self) -> Result:
        plans = self._prepared.plans
        steps = list_steps(plans)
        self._emit(BuildStarted(str(self._site.file), tuple(steps)))
        for text in self._prepared.notices:
            self._emit(BuildNotice(text))
        state = self._stages(plans, {step.key: step for step in steps})
        if self._site.contexts.entries > WARN_ENTRIES:
            count = f"{self._site.contexts.entries:,}"
            self._emit(
                BuildNotice(f"the build context has {count} files: a .dockerignore would make each build faster")
            )
        return self._result(state)

    def _stages(self, plans: Sequence[StagePlan], steps: Mapping[str, StepInfo]) -> State:
        """All stages beside each other, the last one on this thread. Raises what the first one that failed raised."""
        finished = self._site.done
        assert isinstance(finished, Finished)
        finished.expect({plan.stage.index for plan in plans})
        errors: list[BaseException] = []

        def run(plan: StagePlan) -> None:
            try:
                finished.put(plan.stage.index, StageRun(self._site, self._prepared, plan, steps, self._shop).run())
            except BaseException as error:
                errors.append(error)
                self._cancel.cancel()

        threads = [threading.Thread(target=run, args=(plan,), name="build-stage", daemon=True) for plan in plans[:-1]]
        for thread in threads:
            thread.start()
        run(plans[-1])
        for thread in threads:
            thread.join()
        if errors:
            # A stage that was stopped because another one failed says nothing of its own.
            raise next((error for error in errors if not isinstance(error, Cancelled)), errors[0])
        return finished[plans[-1].stage.index]

    def _result(self, state: State) -> Result:
        config = state.config
        if self._request.labels:
            config = config.with_config(Labels={**config.labels, **self._request.labels})
        if self._site.epoch is not None:
            config = config.with_created(rfc3339(self._site.epoch * 10**9))
        raw = config.to_bytes()
        digest = self._store.blobs.put(raw)
        manifest = build_manifest(
            Descriptor(OCI_CONFIG, digest, len(raw)), state.layers, dict(self._request.annotations) or None
        )
        self._store.images.put_steps(digest, state.steps)
        return Result(manifest, config, state.size)

    def _keep_image(self, result: Result) -> Image | None:
        """Records the image, unless it was asked for as files alone."""
        if not keeps_image(self._request.outputs):
            return None
        names = [name for out in self._request.outputs for name in out.options.get("name", "").split(",") if name]
        tags = [Reference.parse(tag) for tag in (*self._request.tags, *names)]
        return self._store.images.put(result.manifest, result.config, result.size, tags)
