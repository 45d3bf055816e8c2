"""A service's image: built, or pulled as its policy says, and told of while that goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.api import BuildFinished, BuildRequest, PullProgress, ServiceBuild, ServiceState, StepInfo, StepStarted
from engine.errors import NotFound
from engine.oci.reference import Reference
from engine.project.model import Service, service_request
from engine.project.pulls import pulled, wants_pull
from engine.project.shared import Shared

BASE = "workbench/base"  # made here, on no registry


class Making:
    """`busy` while it works: it may be cancelled then, and what a build has finished stays in its cache. `service` gives the service as
    the project's files have it now."""

    def __init__(self, shared: Shared, service: Callable[[], Service]) -> None:
        self._shared, self._service = shared, service
        self.busy = False
        self._invalidated: StepInfo | None = None  # the first step that ran for what is not acted upon yet

    def acted(self) -> None:
        """What the last builds were for is done."""
        self._invalidated = None

    async def image(self, *, quietly: bool) -> tuple[str, BuildFinished | None]:
        """The id of the image to run, and what the build said of it. Raises what a build or a pull raises."""
        self.busy = True
        try:
            service = self._service()
            request = service_request(self._shared.project, service)
            if request is None:
                return await self._pulled(service), None
            finished = await self._built(service, request, quietly=quietly)
            return finished.image_id, finished
        finally:
            self.busy = False

    async def _built(self, service: Service, request: BuildRequest, *, quietly: bool) -> BuildFinished:
        say = self._shared.say
        if not quietly:
            say(ServiceState(service.name, "building"))
        finished: BuildFinished | None = None
        events = self._shared.engine.build(request)
        try:
            async for event in events:
                if not quietly:
                    say(ServiceBuild(service.name, event))
                if isinstance(event, StepStarted) and event.reason and self._invalidated is None:
                    self._invalidated = event.step
                elif isinstance(event, BuildFinished):
                    # What an overtaken build has done is cached by now, and is what the change made necessary all the same.
                    finished = replace(event, first_changed=_earlier(self._invalidated, event.first_changed))
                elif isinstance(event, PullProgress) and event.phase == "resolving":
                    say(ServiceState(service.name, "pulling", text=event.reference))
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()
        assert finished is not None  # a build ends with it, or raises
        return finished

    async def _pulled(self, service: Service) -> str:
        engine, state = self._shared.engine, self._shared.state
        try:
            present = bool(await engine.image(service.image))
        except NotFound:
            present = False
        if not present and Reference.parse(service.image).familiar_name == BASE:
            await engine.ensure_base()
        elif wants_pull(service, present, state):
            self._shared.say(ServiceState(service.name, "pulling"))
            async for progress in engine.pull(service.image):
                self._shared.say(ServiceBuild(service.name, progress))
            pulled(state, service.image)
        return (await engine.image(service.image)).summary.id


def _earlier(before: StepInfo | None, now: StepInfo | None) -> StepInfo | None:
    """Of the steps that two builds ran first, the one that the other follows from: a step that an overtaken build has brought to its
    end is cached afterwards, and what comes behind it in its stage still has to run."""
    if before is None or now is None:
        return before or now
    return now if now.stage == before.stage and now.number < before.number else before
