"""Small blobs to a registry side by side from one thread: all uploads begun, then all bytes sent, then all answers read.

A blob of a few kilobytes is mostly waiting: for the registry, and, with a thread for each, for the interpreter. Whatever is not
as it mostly is (credentials that are asked for, a connection that ends, a refusal) is left to `Upload`, which knows what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import EngineError
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.registry.errors import Unreachable
from engine.registry.net import Asked
from engine.registry.transport import Session
from engine.registry.upload import BlobSource
from engine.registry.url import Url
from engine.registry.wire import Response

AT_ONCE = 6  # fewer than the connections that are kept for one host


def put_small(
    session: Session,
    repository: str,
    scope: str,
    blobs: Sequence[Descriptor],
    source: BlobSource,
    meanwhile: Callable[[], None],
) -> set[Digest]:
    """Those of `blobs` that the registry has taken. `meanwhile` is called while it is at work."""
    begun: list[tuple[Descriptor, Asked]] = []
    sent: list[tuple[Descriptor, Asked]] = []
    taken: set[Digest] = set()
    path = f"/v2/{repository}/blobs/uploads/"
    try:
        asking = ((blob, _ask(session, "POST", path, scope, b"")) for blob in blobs[:AT_ONCE])
        begun.extend((blob, asked) for blob, asked in asking if asked is not None)
        meanwhile()
        while begun:
            blob, asked = begun.pop(0)
            place, content = _place(session, asked, blob), _content(source, blob)
            if place is None or content is None:
                continue
            if (again := _ask(session, "PUT", place, scope, content)) is not None:
                sent.append((blob, again))
        while sent:
            blob, asked = sent.pop(0)
            if _status(asked) in (201, 204):
                taken.add(blob.digest)
        return taken
    finally:
        for _, asked in (*begun, *sent):
            asked.drop()


def _ask(session: Session, method: str, target: str | Url, scope: str, content: bytes) -> Asked | None:
    headers = {"content-type": "application/octet-stream"} if content else {}
    try:
        return session.ask(method, target, scope, headers, content)
    except Unreachable:
        return None


def _content(source: BlobSource, blob: Descriptor) -> bytes | None:
    """None when it is not as long as it should be."""
    with source.open(blob.digest) as file:
        data = file.read(blob.size + 1)
    return data if len(data) == blob.size else None


def _place(session: Session, asked: Asked, blob: Descriptor) -> Url | None:
    """Where the bytes go, when an upload was begun."""
    response = _answer(asked)
    if response is None:
        return None
    try:
        if response.status_code != 202:
            return None
        return session.location(response).with_query([("digest", str(blob.digest))])
    except EngineError:
        return None
    finally:
        response.close()


def _status(asked: Asked) -> int:
    """0 when there was no answer."""
    response = _answer(asked)
    if response is None:
        return 0
    response.close()
    return response.status_code


def _answer(asked: Asked) -> Response | None:
    try:
        return asked.answer()
    except Unreachable:
        return None
