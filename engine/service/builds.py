"""Joins the builder with the images, the runtime and the history of builds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.base.cancel import CancelToken
from engine.base.settings import BuildSettings, build_settings
from engine.build.cache_format import write_inline
from engine.build.cache_specs import parse_from, parse_to
from engine.build.compare import compare
from engine.build.delta import Copies
from engine.build.history import History
from engine.build.interfaces import Runner, RunStep
from engine.build.options import check_request, inline_asked, pushes
from engine.build.result import Outcome
from engine.build.shared_cache import SharedCache
from engine.build.solver import Build
from engine.build.step_cache import StepCache
from engine.build.trees import Trees
from engine.build.watched import ContextIndexes
from engine.build.why import why
from engine.errors import NotFound
from engine.model import BuildEvent, BuildFinished, BuildRecord, BuildRequest, BuildStarted, FileDifference, WhyReport
from engine.runtime.client import Runtime
from engine.service.build_cache import BuildCache, plan_prune
from engine.service.cache_import import CacheImport
from engine.service.images import ImageService
from engine.service.system import require_root
from engine.store.images import Image
from engine.store.store import Store
from engine.store.view import LayerView

PAST = 50  # builds that are looked through for what steps cost


class BuildService:
    def __init__(self, store: Store, runtime: Runtime, images: ImageService) -> None:
        self._store, self._runtime, self._images = store, runtime, images
        self.history = History(store.root / "builds", budget=build_settings(store.root).history_size)
        self._indexes = ContextIndexes(store.root / "stat")
        self._trees = Trees(store.root / "stat" / "trees.sqlite")
        self._copies = Copies()
        self._budget = 0  # bytes of the build cache, 0 without a limit

    def close(self) -> None:
        self._indexes.close()
        self._trees.close()

    def build(self, request: BuildRequest, emit: Callable[[BuildEvent], None], cancel: CancelToken) -> BuildFinished:
        require_root()
        check_request(request)
        sources = [parse_from(text) for text in request.cache_from]
        targets = [parse_to(text) for text in request.cache_to]
        settings = build_settings(self._store.root)
        host_ca = settings.host_ca if request.host_ca is None else request.host_ca
        with self.history.recording(request) as recorder:

            def tell(event: BuildEvent) -> None:
                recorder.feed(event)
                emit(replace(event, number=recorder.number) if isinstance(event, BuildStarted) else event)

            runner = _WhenNeeded(lambda: self._runner(request, settings, host_ca))
            if request.network or request.add_hosts or request.ulimits:
                runner.made()  # what is wrong with these is told before anything is built
            imports = CacheImport(self._store, tell, cancel)
            cache = SharedCache(self._store, lambda: imports.open(sources), tell, cancel)

            def deliver(outcome: Outcome) -> None:
                if not (targets or any(map(pushes, request.outputs))):
                    return
                from engine.service.build_delivery import Delivery

                delivery = Delivery(self._store, request, tell, cancel)
                delivery.push(outcome)
                for target in targets:
                    if target.kind != "inline":
                        delivery.export_cache(target, outcome, cache.used)

            inline = any(target.kind == "inline" for target in targets) or inline_asked(request)
            try:
                return Build(
                    self._store, runner, self._images.as_user(*request.auths), request, tell, cancel, self._trees, self._indexes,
                    cache=cache,
                    copies=self._copies,
                    inline=(lambda config: write_inline(cache.used, config.diff_ids)) if inline else None,
                    deliver=deliver,
                ).run()  # fmt: skip
            finally:
                imports.close()
                if settings.cache_size:
                    self._budget = settings.cache_size
                    self._store.unsynced.later(self._keep_to_budget)

    def _runner(self, request: BuildRequest, settings: BuildSettings, host_ca: bool) -> Runner:
        from engine.service.steps import StepRunner

        return StepRunner(self._store, self._runtime, request, host_ca=host_ca, block_metadata=settings.block_metadata)

    def _keep_to_budget(self) -> None:
        """After a build: what was used least recently goes, beside whatever else is done (`build.cache-size`)."""
        cache = BuildCache(self._store)
        if plan_prune(cache.entries(), {}, everything=False, keep_bytes=self._budget):
            cache.prune({}, keep_bytes=self._budget, told=False)

    def diff(self, first: int, second: int) -> list[FileDifference]:
        """Raises `NotFound` when a build has no result, or its image is no longer here."""
        return list(compare(self._result(first), self._result(second)))

    def _result(self, number: int) -> LayerView:
        record = self.history.detail(number).record
        if not record.image_id:
            raise NotFound(f"build {number} ({record.status}) has no result", hint="compare builds that are done")
        image = self._store.images.find(record.image_id)
        if image is None:
            raise NotFound(f"the image of build {number}, {record.image_id}, is no longer here", hint="build it again")
        return LayerView(self._store.lowers(image))

    # --- before a build -----------------------------------------------------------------------------------

    def why(self, request: BuildRequest, path: str) -> WhyReport:
        """Raises `NotFound`, `DockerfileError`."""
        file = str(request.dockerfile or request.context / "Dockerfile")
        past = [record for record in self.history.records(limit=PAST) if record.dockerfile == file]
        steps, note = why(request, path, StepCache(self._store), self._costs(past))
        if not steps:
            return WhyReport(path, note=note)
        images = self._made_by(past, request.target)
        rows = self._store.records.read("SELECT name, image FROM containers ORDER BY name")
        containers = tuple(row["name"] for row in rows if row["image"] in {image.digest for image in images})
        tags = tuple(dict.fromkeys(tag for image in images for tag in image.familiar_tags))
        stages = tuple(dict.fromkeys(found.step.stage for found in steps))
        return WhyReport(path, tuple(steps), stages, tags, containers, sum(found.seconds or 0 for found in steps))

    def _costs(self, past: Sequence[BuildRecord]) -> dict[tuple[str, str], float]:
        costs: dict[tuple[str, str], float] = {}
        for record in past:
            for step in self.history.detail(record.number).steps:
                if step.state == "done":
                    costs.setdefault((step.step.stage, step.step.instruction), step.seconds)
        return costs

    def _made_by(self, past: Sequence[BuildRecord], target: str) -> list[Image]:
        """The images that stand for the last builds of this target."""
        ids = {record.image_id for record in past if record.target == target and record.image_id}
        return [image for image in self._store.images.list() if image.config_digest in ids]


class _WhenNeeded:
    """A runner that is made for the first step that runs: of most builds none does, and it takes longer to load than they do."""

    def __init__(self, make: Callable[[], Runner]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._runner: Runner | None = None

    def made(self) -> Runner:
        with self._lock:
            if self._runner is None:
                self._runner = self._make()
            return self._runner

    def run(self, step: RunStep, output: Callable[[str, bytes], None], cancel: CancelToken) -> int:
        return self.made().run(step, output, cancel)
