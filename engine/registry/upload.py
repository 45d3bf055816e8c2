"""One blob to a registry: already there, mounted from a neighbour, or uploaded and resumed where the registry can.

Distribution specification, "Pushing blobs": HEAD, then POST (with `mount` and `from`), PATCH with the bytes, PUT with the digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Literal, Protocol

from engine.errors import Corrupt, EngineError, NotFound, Unauthorized, Unavailable
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.registry.blob import PROGRESS_SECONDS, WORTH_A_TRY, Phase
from engine.registry.errors import Again, registry_message, unavailable
from engine.registry.net import read_limited
from engine.registry.transport import Session, pause
from engine.registry.url import Url, parse_url
from engine.registry.wire import Response

_CHUNK = 1 << 18
_SMALL = 1 << 20  # sent with the closing PUT, which saves a round trip
_MOUNT_TRIES = 2
BYTES = {"content-type": "application/octet-stream"}

Outcome = Literal["exists", "mounted", "done"]


class BlobSource(Protocol):
    """Where pushed bytes come from."""

    def has(self, digest: Digest, /) -> bool: ...

    def open(self, digest: Digest, /) -> BinaryIO: ...

    def read(self, digest: Digest, /) -> bytes:
        """A small document, verified."""


class UploadJournal(Protocol):
    """Remembers across processes where an upload that was cut goes on. Losing it costs a new upload, no more."""

    def get(self, key: str, /) -> str | None: ...

    def put(self, key: str, location: str, /) -> None: ...

    def drop(self, key: str, /) -> None: ...


class NoJournal:
    def get(self, key: str, /) -> str | None:
        return None

    def put(self, key: str, location: str, /) -> None:
        pass

    def drop(self, key: str, /) -> None:
        pass


class Upload:
    """The state of one blob's upload over as many connections as it takes."""

    def __init__(
        self,
        session: Session,
        repository: str,
        scope: str,
        descriptor: Descriptor,
        source: BlobSource,
        report: Callable[[Phase, int], None],
        *,
        journal: UploadJournal,
        ask: bool = True,
        mounts: Sequence[str] = (),
    ) -> None:
        """`ask`: whether it is there, before anything is sent."""
        self.session, self.repository, self.scope = session, repository, scope
        self.descriptor, self.source, self.report = descriptor, source, report
        self.journal, self.ask = journal, ask
        self.mounts = list(mounts)[:_MOUNT_TRIES]
        self.mounted_from = ""
        self.offset = 0
        self.reported = 0.0
        self.location: Url | None = None
        self.resumed = False  # a part was sent by an earlier connection: the registry may have kept it wrongly
        self.doubtful = False  # how much the registry has must be asked before going on
        self.key = f"{session.endpoint.host}/{repository}@{descriptor.digest}"

    def run(self) -> Outcome:
        """Raises the engine's errors when the tries are used up."""
        retry, cancel = self.session.network.retry, self.session.network.cancel
        failures, mark = 0, 0
        while True:
            try:
                outcome = self._attempt()
            except Again as again:
                if self.offset - mark >= WORTH_A_TRY:
                    failures, mark = 0, self.offset
                failures += 1
                if failures >= retry.tries:
                    raise again.final from again
                pause(retry, cancel, failures, again.after)
            else:
                self.journal.drop(self.key)
                return outcome

    def _attempt(self) -> Outcome:
        if self.location is None:
            known = self._begin()
            if known:
                return known
        elif self.doubtful:
            self._ask()
        if self.location is None:
            raise self._anew("the upload is no longer known there")
        self.doubtful = True
        if self.descriptor.size - self.offset > _SMALL:
            self._patch(self.location)
        self._finish(self.location)
        return "done"

    # --- before the bytes ---

    def _begin(self) -> Outcome | None:
        self.offset = 0
        if self.ask and self._exists():
            return "exists"
        saved = self.journal.get(self.key)
        if saved:
            self.location = parse_url(saved)
            if self.location is not None:
                self._ask()
            if self.location is not None:
                return None
        while self.mounts:
            if self._mount(self.mounts.pop(0)):
                return "mounted"
            if self.location is not None:  # refused with an upload begun in its stead
                return None
        path = uploads(self.repository)
        with self.session.request("POST", path, self.scope, {}, ok=(202,), content=lambda: b"") as response:
            self._move(response)
        return None

    def _exists(self) -> bool:
        path = f"/v2/{self.repository}/blobs/{self.descriptor.digest}"
        with self.session.request("HEAD", path, self.scope, {}, ok=(200, 404)) as response:
            return response.status_code == 200

    def _mount(self, origin: str) -> bool:
        path = f"{uploads(self.repository)}?mount={self.descriptor.digest}&from={origin}"
        scope = f"{self.scope} repository:{origin}:pull"
        try:
            with self.session.request("POST", path, scope, {}, ok=(201, 202), content=lambda: b"") as response:
                if response.status_code == 201:
                    self.mounted_from = origin
                    return True
                self._move(response)
        except (Unauthorized, NotFound, Unavailable):
            pass  # not ours to read there, or no mounts here: an upload does the same
        return False

    def _ask(self) -> None:
        """How many bytes the registry kept of an upload; no location when it kept none of it."""
        assert self.location is not None
        try:
            with self.session.request("GET", self.location, self.scope, {}, ok=(204,)) as response:
                self.offset = _range_end(response.headers.get("range", ""))
                self.location = self.session.location(response) if "location" in response.headers else self.location
        except (NotFound, Unavailable):
            self.offset, self.location = 0, None
            self.journal.drop(self.key)
            return
        if not 0 < self.offset <= self.descriptor.size:
            # "0-0" stands for no byte and for one byte alike; a new upload is certain.
            self.offset, self.location = 0, None
        self.resumed, self.doubtful = self.offset > 0, False

    def _move(self, response: Response) -> None:
        self.location = self.session.location(response)
        self.doubtful = False
        if self.descriptor.size > _SMALL:  # what goes in one piece has nothing to go on from
            self.journal.put(self.key, str(self.location))

    # --- the bytes ---

    def _patch(self, location: Url) -> None:
        size = self.descriptor.size
        headers = {**BYTES, "content-length": str(size - self.offset)}
        if self.offset:
            headers["content-range"] = f"{self.offset}-{size - 1}"
        start = self.offset
        with self.session.request(
            "PATCH", location, self.scope, headers, ok=(202, 204, 404, 416), content=lambda: self._body(start)
        ) as response:
            if response.status_code in (404, 416):
                raise self._anew(f"it answered {response.status_code} to a part")
            self._move(response)
        self.offset = size

    def _finish(self, location: Url) -> None:
        location = self.location or location
        start, size = self.offset, self.descriptor.size
        url = location.with_query([("digest", str(self.descriptor.digest))])
        headers = {**BYTES, "content-length": str(size - start)}
        if start and start < size:
            headers["content-range"] = f"{start}-{size - 1}"
        with self.session.request(
            "PUT", url, self.scope, headers, ok=(201, 204, 400, 404, 416), content=lambda: self._body(start)
        ) as response:
            if response.status_code in (201, 204):
                return
            said = read_limited(self.session.network, response, 64_000, lambda: self._anew("it goes on and on"))
            detail = registry_message(said)
            if b"DIGEST_INVALID" in said and not self.resumed:
                raise self._damaged(detail)
            raise self._anew(detail or f"it answered {response.status_code} at the end")

    def _body(self, start: int) -> Iterator[bytes]:
        left = self.descriptor.size - start
        self.offset = start
        with self.source.open(self.descriptor.digest) as blob:
            blob.seek(start)
            while left:
                self.session.network.cancel.check()
                data = blob.read(min(left, _CHUNK))
                if not data:
                    raise self._damaged("the file is shorter than the manifest says")
                left -= len(data)
                yield data
                self.offset += len(data)
                now = time.monotonic()
                if now - self.reported >= PROGRESS_SECONDS:
                    self.reported = now
                    self.report("uploading", self.offset)

    def _anew(self, why: str) -> Again:
        self.location, self.offset, self.resumed = None, 0, False
        self.journal.drop(self.key)
        detail = f"blob {self.descriptor.digest.short} was not taken: {why}"
        return Again(unavailable(self.session.endpoint.label, detail, what=self.session.what), after=0.0)

    def _damaged(self, detail: str) -> EngineError:
        return Corrupt(
            f"registry {self.session.endpoint.label} refuses blob {self.descriptor.digest} of {self.session.what}: "
            f"{detail or 'its bytes are not its digest'}",
            hint="the copy in this store may be damaged: `workbench check --repair` finds and mends it",
        )


def uploads(repository: str) -> str:
    """The path where uploads begin."""
    return f"/v2/{repository}/blobs/uploads/"


def _range_end(text: str) -> int:
    """The number of bytes of a `Range: 0-N` (bytes 0 to N, both included)."""
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if first != "0" or not dash or not last.isdecimal() or last == "0":
        return 0
    return int(last[:18]) + 1
