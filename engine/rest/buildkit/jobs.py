"""Builds that clients speak of, by the name ("ref") that they gave: what was asked, what happens, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from engine.errors import InvalidInput
from engine.rest.buildkit.messages import Definition, SolveRequest, StatusResponse

_BEHIND = 1000  # messages that wait for a client that reads slowly, before the build waits for it
_UNREAD = 10_000  # and for one that does not read at all, before the oldest go
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build came to. `response` goes to the client as it is, `metadata` to its build function."""

    response: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    definition: Definition | None = None


class Job:
    """One build. Calls of one client meet in it, in any order."""

    def __init__(self, ref: str) -> None:
        loop = asyncio.get_running_loop()
        self.ref = ref
        self.users = 0
        self.outcome = Outcome()
        self._asked: asyncio.Future[SolveRequest] = loop.create_future()
        self.returned: asyncio.Future[Outcome] = loop.create_future()
        self._messages: deque[StatusResponse] = deque()
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._read = self._ended = False

    def begin(self, request: SolveRequest) -> None:
        if self._asked.done():
            raise InvalidInput(f"a build called {self.ref} is under way already")
        self._asked.set_result(request)

    async def asked(self) -> SolveRequest:
        """What the client wants to have of the build: outputs, caches, the session of its files."""
        return await asyncio.shield(self._asked)

    def give(self, outcome: Outcome | Exception) -> None:
        """The client's build function has ended."""
        if self.returned.done():
            return
        if isinstance(outcome, Exception):
            self.returned.set_exception(outcome)
            self.returned.exception()  # it is no fault when nobody asks for it
        else:
            self.returned.set_result(outcome)

    async def tell(self, message: StatusResponse | None) -> None:
        """Waits while the client is behind."""
        if message is None:
            return
        self._messages.append(message)
        self._news.set()
        while self._read and len(self._messages) > _BEHIND:
            self._room.clear()
            await self._room.wait()
        if len(self._messages) > _UNREAD:
            self._messages.popleft()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def progress(self) -> AsyncIterator[StatusResponse]:
        """What happens, until the build has ended."""
        self._read = True
        try:
            while self._messages or not self._ended:
                while self._messages:
                    yield self._messages.popleft()
                    self._room.set()
                if not self._ended:
                    self._news.clear()
                    await self._news.wait()
        finally:
            self._read = False
            self._room.set()


class Jobs:
    """The builds that somebody speaks of."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    @contextlib.asynccontextmanager
    async def job(self, ref: str) -> AsyncIterator[Job]:
        """The build called `ref`; it is forgotten when nobody is in this context any more. Raises `InvalidInput`."""
        if not ref or len(ref) > _MAX_NAME:
            raise InvalidInput("the build has no name")
        job = self._jobs.setdefault(ref, Job(ref))
        job.users += 1
        try:
            yield job
        finally:
            job.users -= 1
            if not job.users:
                del self._jobs[ref]
