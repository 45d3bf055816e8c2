"""One blob into a sink: resumed when the connection breaks, never longer than announced, reported as it grows."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.errors import Corrupt, EngineError
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.registry.errors import Again, Unreachable, corrupt, unavailable
from engine.registry.net import chunks
from engine.registry.transport import Session, pause
from engine.registry.wire import Response

Phase = Literal["waiting", "downloading", "uploading", "exists", "mounted", "done"]
_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
PROGRESS_SECONDS = 0.1
# A server that breaks off after every byte must not keep us busy for ever: only real progress earns new tries.
WORTH_A_TRY = 1 << 20
# One budget for all transfers of this process: ten pulls at once do not make forty connections.
DOWNLOADS = threading.BoundedSemaphore(6)


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """How far one blob is. The first report of a blob is "waiting" or "exists", the last "exists", "mounted" or "done"."""

    digest: Digest
    phase: Phase
    current: int
    total: int
    detail: str = ""  # the repository that a mounted blob came from


class BlobWriter(Protocol):
    """A blob that is being written. Nothing is visible before `commit`."""

    def write(self, data: bytes, /) -> object: ...

    def commit(self, digest: Digest, size: int, /) -> object:
        """Publishes the bytes if they are `digest` and `size`; `Corrupt` (and nothing kept) if not."""

    def abort(self) -> object: ...


class ResumedWriter(BlobWriter, Protocol):
    """A blob of which `size` bytes are here already, from an attempt that was cut."""

    size: int
    resumed: int

    def digest(self) -> Digest:
        """Of the bytes that are here."""

    def restart(self) -> object:
        """Forgets the bytes that are here."""

    def keep(self) -> object:
        """Ends this attempt; the bytes stay for the next."""


class BlobSink(Protocol):
    """Where pulled bytes go."""

    def has(self, digest: Digest, /) -> bool: ...

    def read(self, digest: Digest, /) -> bytes:
        """A small document, verified. `Corrupt` or `NotFound` when it cannot be trusted."""

    def ingest(self) -> BlobWriter: ...

    def resume(self, digest: Digest, wait: Callable[[int], None], /) -> ResumedWriter | None:
        """None when the blob is here; waits while somebody else downloads it (`wait` gets their bytes, and may raise)."""


def download(
    session: Session,
    path: str,
    scope: str,
    descriptor: Descriptor,
    sink: BlobSink,
    report: Callable[[Phase, int], None],
) -> None:
    """Fetches `descriptor` from one endpoint and commits it. What arrived before a cut is kept for the next attempt."""

    def wait(current: int) -> None:
        session.network.cancel.check()
        report("downloading", min(current, descriptor.size))

    writer = sink.resume(descriptor.digest, wait)
    if writer is None:
        report("done", descriptor.size)
        return
    try:
        while not DOWNLOADS.acquire(timeout=0.1):
            session.network.cancel.check()
        try:
            _fetch(session, path, scope, descriptor, writer, report)
        finally:
            DOWNLOADS.release()
    except Corrupt:
        writer.abort()
        raise
    except BaseException:
        writer.keep()
        raise
    report("done", descriptor.size)


def _fetch(
    session: Session,
    path: str,
    scope: str,
    descriptor: Descriptor,
    writer: ResumedWriter,
    report: Callable[[Phase, int], None],
) -> None:
    if writer.size > descriptor.size:
        writer.restart()
    if writer.size:
        report("downloading", writer.size)
    _Download(session, path, scope, descriptor, writer, report).run()
    if writer.resumed and writer.digest() != descriptor.digest:
        # The kept part was not of this blob (a power cut, an older workbench): once more, from the beginning.
        writer.restart()
        _Download(session, path, scope, descriptor, writer, report).run()
    try:
        writer.commit(descriptor.digest, descriptor.size)
    except Corrupt as error:
        raise corrupt(_name(session, descriptor), session.endpoint.label, error.message) from error


def _name(session: Session, descriptor: Descriptor) -> str:
    return f"{session.what}: blob {descriptor.digest}"


class _Download:
    """The bytes of one blob over as many connections as it takes."""

    def __init__(
        self,
        session: Session,
        path: str,
        scope: str,
        descriptor: Descriptor,
        writer: ResumedWriter,
        report: Callable[[Phase, int], None],
    ) -> None:
        self.session, self.path, self.scope = session, path, scope
        self.descriptor, self.writer, self.report = descriptor, writer, report
        self.offset = writer.size
        self.ranges = True
        self.reported = 0.0

    def run(self) -> None:
        retry, cancel = self.session.network.retry, self.session.network.cancel
        failures, mark = 0, 0
        while True:
            try:
                self._attempt()
                return
            except Again as again:
                if self.offset - mark >= WORTH_A_TRY:
                    failures, mark = 0, self.offset
                failures += 1
                if failures >= retry.tries:
                    raise again.final from again
                pause(retry, cancel, failures, again.after)

    def _attempt(self) -> None:
        size = self.descriptor.size
        if self.offset >= size > 0:
            return
        headers = {"accept": "*/*"}
        if self.offset and self.ranges:
            # A closed range: some registries answer 416 to an open one, and most send no Accept-Ranges.
            headers["range"] = f"bytes={self.offset}-{size - 1}"
        with self.session.open(self.path, self.scope, headers) as response:
            if response.status_code == 416:
                self.ranges = False
                raise Again(self._damaged("its ranges cannot be had"), after=0.0)
            skip = self._skip(response)
            try:
                for chunk in chunks(self.session.network, response):
                    skip = self._take(chunk, skip)
            except Unreachable as error:
                raise Again(self._cut(str(error))) from error
        if self.offset < size:
            raise Again(self._cut("the answer ended"))

    def _skip(self, response: Response) -> int:
        """How many bytes of this answer we have already. A 200 to a range request is the whole blob again."""
        if response.status_code == 200:
            length = response.headers.get("content-length", "")
            if length.isdecimal() and int(length) > self.descriptor.size:
                raise self._damaged(f"{length} bytes are offered where {self.descriptor.size} were announced")
            return self.offset
        match = _RANGE.match(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != self.offset:
            self.ranges = False
            raise Again(self._damaged("the wrong range was sent"), after=0.0)
        return 0

    def _take(self, chunk: bytes, skip: int) -> int:
        if skip >= len(chunk):
            return skip - len(chunk)
        fresh = chunk[skip:] if skip else chunk
        if self.offset + len(fresh) > self.descriptor.size:
            raise self._damaged(f"more than the announced {self.descriptor.size} bytes arrive")
        self.writer.write(fresh)
        self.offset += len(fresh)
        now = time.monotonic()
        if now - self.reported >= PROGRESS_SECONDS:
            self.reported = now
            self.report("downloading", self.offset)
        return 0

    def _damaged(self, detail: str) -> EngineError:
        return corrupt(_name(self.session, self.descriptor), self.session.endpoint.label, detail)

    def _cut(self, why: str) -> EngineError:
        detail = f"blob {self.descriptor.digest.short} was cut off after {self.offset} of {self.descriptor.size} bytes ({why})"
        return unavailable(self.session.endpoint.label, detail, what=self.session.what)
