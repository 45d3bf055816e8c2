"""One build for a client of BuildKit, from its options to what it gets back."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from engine.api import BuildFinished, BuildRequest, Engine
from engine.errors import EngineError
from engine.rest.buildkit import calls, wire
from engine.rest.buildkit.errors import rpc_error, sentence
from engine.rest.buildkit.folders import Folders
from engine.rest.buildkit.gathering import Gathering
from engine.rest.buildkit.jobs import Job, Outcome
from engine.rest.buildkit.messages import Definition, Empty, Input, Op, SourceOp
from engine.rest.buildkit.progress import Progress
from engine.rest.buildkit.request import Wanted, build_request, output_path, unknown_options
from engine.rest.buildkit.sessions import Session, Sessions
from engine.rest.http import Body


class Builds:
    """Runs them on `engine`. `scratch` lies below the data root; None when that is not in this process's reach."""

    def __init__(self, engine: Engine, sessions: Sessions, scratch: Path | None) -> None:
        self._engine, self._sessions, self._scratch = engine, sessions, scratch
        self._folders = Folders(scratch)

    async def build(self, job: Job, wanted: Wanted, session_id: str, body: Body | None = None) -> Outcome:
        """`body` is the context where that came with the request. Raises `GRPCError`, with where the Dockerfile is wrong."""
        progress = Progress(job.ref)
        text = ""
        try:
            unknown = unknown_options(wanted.options)
            session = await self._sessions.find(session_id)
            async with contextlib.AsyncExitStack() as closing:
                scratch = await closing.enter_async_context(self._folders.temporary())
                root = self._scratch.parent if self._scratch is not None else None
                gathering = Gathering(job, progress, session, wanted, scratch, root, body)
                gathered = await gathering.files(self._folders, closing)
                text = gathered.text
                plan = build_request(wanted, gathered.context, gathered.dockerfile, scratch)
                if wanted.call:
                    answer = calls.answer(wanted.call, plan, text, wanted.filename)
                    return Outcome({}, answer, _definition("scratch"))  # a client wants to see some result
                plan = await gathering.fill(plan, text, closing)
                for name in unknown:
                    await job.tell(progress.warn(f"the option {name} is not known to this engine, and has no effect"))
                finished = await self._run(job, progress, plan)
                await self._deliver(job, progress, session, wanted, scratch)
                return _outcome(wanted, finished)
        except EngineError as error:
            failing = progress.failing
            await job.tell(progress.fail(sentence(error)))
            raise rpc_error(error, file=wanted.filename, source=text, vertex=failing) from error

    async def _run(self, job: Job, progress: Progress, plan: BuildRequest) -> BuildFinished | None:
        finished = None
        async with contextlib.aclosing(_events(self._engine, plan)) as events:
            async for event in events:
                await job.tell(progress.feed(event))
                if isinstance(event, BuildFinished):
                    finished = event
        return finished

    async def _deliver(self, job: Job, progress: Progress, session: Session, wanted: Wanted, scratch: Path) -> None:
        for number, exporter in enumerate(wanted.exporters):
            path = output_path(number, exporter, scratch)
            if path is None:
                continue
            name = f"exporting to client {'directory' if path.is_dir() else exporter.type + ' archive'}"
            await job.tell(progress.begin(name))
            await session.give(number, path)
            await job.tell(progress.end(name))

    def close(self) -> None:
        self._folders.close()


async def _events(engine: Engine, plan: BuildRequest) -> AsyncGenerator[Any, None]:
    async for event in engine.build(plan):
        yield event


def _outcome(wanted: Wanted, finished: BuildFinished | None) -> Outcome:
    if finished is None:
        return Outcome()
    response = {
        "containerimage.digest": finished.digest,
        "containerimage.config.digest": finished.image_id,
    }
    names = [name for exporter in wanted.exporters if (name := exporter.attrs.get("name"))]
    if names:
        response["image.name"] = names[0]
    return Outcome({key: value for key, value in response.items() if value}, {}, _definition(finished.image_id))


def _definition(image: str) -> Definition | None:
    """The result as a source that another build can name: LLB of one operation, an image by its id (solver/pb/ops.proto)."""
    if not image:
        return None
    source = wire.encode(Op(source=SourceOp(f"docker-image://{image}")))
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    last = wire.encode(Op(inputs=[Input(digest)]))
    return Definition([source, last], {digest: Empty()})
