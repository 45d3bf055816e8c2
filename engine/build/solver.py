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
from collections.abc import Callable, Sequence

from engine.base.cancel import CancelToken
from engine.build.delta import Copies
from engine.build.export import export_all, keeps_image
from engine.build.finished import Finished
from engine.build.interfaces import Emit, ImageSource, Runner
from engine.build.origins import Contexts
from engine.build.platform_run import Inline, PlatformRun, raise_first
from engine.build.prepare import prepare, target_platforms
from engine.build.reading import Input, read_input
from engine.build.result import Outcome
from engine.build.site import Site
from engine.build.source import WARN_ENTRIES
from engine.build.stage_run import Shop
from engine.build.step_cache import StepCache
from engine.build.trees import Trees
from engine.build.watched import ContextIndexes
from engine.errors import from_os_error
from engine.model import BuildFinished, BuildNotice, BuildRequest, BuildStarted
from engine.oci.manifest import Index
from engine.oci.reference import Reference
from engine.store.images import Image
from engine.store.store import Store

# Steps wait (for a network, a disk) more than they compute: a slot a core would leave cores idle.
SLOTS = max(16, 4 * (os.cpu_count() or 1))


class Build:
    """One build. `run` does it on the calling thread and reports through `emit`, which is called from several threads.

    `deliver` is called with what was made, before the build is said to be finished: it pushes, and exports the cache.
    """

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
        *,
        cache: StepCache | None = None,
        copies: Copies | None = None,
        inline: Inline | None = None,
        deliver: Callable[[Outcome], None] | None = None,
    ):
        self._store, self._runner, self._images = store, runner, images
        self._request, self._emit = request, emit
        self._outer, self._cancel = cancel, CancelToken()
        self._trees, self._indexes = trees or Trees(store.root / "stat" / "trees.sqlite"), indexes
        self._shop = Shop(cache or StepCache(store), self._trees, threading.BoundedSemaphore(SLOTS))
        self._shop.copies = copies or self._shop.copies
        self._inline, self._deliver = inline, deliver

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
                    outcome = self._build(given, contexts)
                    with self._shop.phases.during("tag"):
                        image = self._record(given, outcome)
                    export_all(outcome.results, self._request, self._store, self._cancel)
                    if self._deliver is not None:
                        self._deliver(outcome)
            except OSError as error:
                raise from_os_error(error, f"building {given.file}") from error
            finally:
                self._shop.phases.add("scan", contexts.scanned)
                contexts.close()
        return self._finish(outcome, image, time.monotonic() - started)

    def _record(self, given: Input, outcome: Outcome) -> Image | None:
        """The image and the event, in one transaction. An index, for several platforms, is waited for by itself."""
        config_digest = outcome.usual.manifest.config.digest
        with self._store.records.write(durable=False):
            image = self._keep_image(outcome)
            attributes = {"dockerfile": str(given.file)}
            self._store.records.event("build", "finish", config_digest, attributes, durable=False)
        if image is not None and isinstance(outcome.top, Index):
            self._store.unsynced.settle_now()  # it names images that no tag does
            for result in outcome.results:
                self._store.blobs.put(result.manifest.raw)
            for name in outcome.names:
                self._store.indexes.put(name, outcome.top, image.digest)
        return image

    def _finish(self, outcome: Outcome, image: Image | None, seconds: float) -> BuildFinished:
        config_digest = outcome.usual.manifest.config.digest
        first, reason = self._shop.first or (None, "")
        tags = tuple(dict.fromkeys(Reference.parse(name).familiar for name in outcome.names)) if image else ()
        finished = BuildFinished(
            config_digest, outcome.top.digest, tags, seconds, first, reason, self._shop.phases.result(seconds)
        )
        self._emit(finished)
        return finished

    def _build(self, given: Input, contexts: Contexts) -> Outcome:
        platforms = target_platforms(self._request)
        runs = []
        for target in platforms:
            prepared = prepare(self._request, given, contexts, self._store, target)
            site = Site(
                self._store,
                self._runner,
                self._request,
                given.dockerfile,
                given.file,
                contexts,
                self._emit,
                self._cancel,
                prepared.outer,
                prepared.target,
                prepared.epoch,
                Finished(self._cancel),
            )
            runs.append(PlatformRun(site, prepared, self._shop, self._cancel, several=len(platforms) > 1))
        self._emit(BuildStarted(str(given.file), tuple(step for run in runs for step in run.steps)))
        for text in dict.fromkeys(text for run in runs for text in run.notices):
            self._emit(BuildNotice(text))
        self._run(runs)
        if contexts.entries > WARN_ENTRIES:
            count = f"{contexts.entries:,}"
            self._emit(
                BuildNotice(f"the build context has {count} files: a .dockerignore would make each build faster")
            )
        results = tuple(run.result(self._inline) for run in runs)
        return Outcome(results, tuple(state for run in runs for state in run.states), self._names())

    def _run(self, runs: Sequence[PlatformRun]) -> None:
        """All platforms beside each other, the last one on this thread."""
        errors: list[BaseException] = []

        def work(run: PlatformRun) -> None:
            try:
                run.run()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(run,), name="build-platform", daemon=True) for run in runs[:-1]]
        for thread in threads:
            thread.start()
        work(runs[-1])
        for thread in threads:
            thread.join()
        raise_first(errors)

    def _names(self) -> tuple[str, ...]:
        named = [name for out in self._request.outputs for name in out.options.get("name", "").split(",") if name]
        return tuple(str(Reference.parse(name).with_default_tag()) for name in (*self._request.tags, *named))

    def _keep_image(self, outcome: Outcome) -> Image | None:
        """Records the image, unless it was asked for as files alone. Of several platforms, this machine's bears the names here,
        and the index is kept beside it."""
        if not keeps_image(self._request.outputs):
            return None
        usual, names = outcome.usual, [Reference.parse(name) for name in outcome.names]
        return self._store.images.put(usual.manifest, usual.config, usual.size, names, durable=False)
