"""Joins the builder with the images, the runtime and the history of builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.base.cancel import CancelToken
from engine.base.settings import build_settings
from engine.build.compare import compare
from engine.build.history import History
from engine.build.options import refuse_unsupported
from engine.build.solver import Build
from engine.build.trees import Trees
from engine.build.watched import ContextIndexes
from engine.errors import NotFound
from engine.model import BuildEvent, BuildFinished, BuildRequest, BuildStarted, FileDifference
from engine.runtime.client import Runtime
from engine.service.images import ImageService
from engine.service.steps import StepRunner
from engine.service.system import require_root
from engine.store.store import Store
from engine.store.view import LayerView


class BuildService:
    def __init__(self, store: Store, runtime: Runtime, images: ImageService) -> None:
        self._store, self._runtime, self._images = store, runtime, images
        self.history = History(store.root / "builds", budget=build_settings(store.root).history_size)
        self._indexes = ContextIndexes(store.root / "stat")
        self._trees = Trees(store.root / "stat" / "trees.sqlite")

    def close(self) -> None:
        self._indexes.close()
        self._trees.close()

    def build(self, request: BuildRequest, emit: Callable[[BuildEvent], None], cancel: CancelToken) -> BuildFinished:
        require_root()
        refuse_unsupported(request)
        settings = build_settings(self._store.root)
        host_ca = settings.host_ca if request.host_ca is None else request.host_ca
        with self.history.recording(request) as recorder:

            def tell(event: BuildEvent) -> None:
                recorder.feed(event)
                emit(replace(event, number=recorder.number) if isinstance(event, BuildStarted) else event)

            runner = StepRunner(self._store, self._runtime, request, host_ca=host_ca)
            return Build(self._store, runner, self._images, request, tell, cancel, self._trees, self._indexes).run()

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
