"""Small blobs to a registry side by side from one thread: all uploads begun, then all bytes sent, then all answers read.

A blob of a few kilobytes is mostly waiting: for the registry, and, with a thread for each, for the interpreter. Whatever is not
as it mostly is (credentials that are asked for, a connection that ends, a refusal) is left to `Upload`, which knows what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import EngineError
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.registry.net import Asked
from engine.registry.transport import Session
from engine.registry.upload import BYTES, BlobSource, uploads
from engine.registry.url import Url

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
    try:
        asking = ((blob, session.ask("POST", uploads(repository), scope, {}, b"")) for blob in blobs[:AT_ONCE])
        begun.extend((blob, asked) for blob, asked in asking if asked is not None)
        meanwhile()
        while begun:
            blob, asked = begun.pop(0)
            place, content = _place(session, asked, scope, blob), _content(source, blob)
            if place is None or content is None:
                continue
            if (again := session.ask("PUT", place, scope, BYTES, content)) is not None:
                sent.append((blob, again))
        while sent:
            blob, asked = sent.pop(0)
            response = session.answer(asked, scope)
            if response is not None:
                response.close()
                taken |= {blob.digest} if response.status_code in (201, 204) else set()
        return taken
    finally:
        for _, asked in (*begun, *sent):
            asked.drop()


def _content(source: BlobSource, blob: Descriptor) -> bytes | None:
    """None when it is not as long as it should be."""
    with source.open(blob.digest) as file:
        data = file.read(blob.size + 1)
    return data if len(data) == blob.size else None


def _place(session: Session, asked: Asked, scope: str, blob: Descriptor) -> Url | None:
    """Where the bytes go, when an upload was begun."""
    response = session.answer(asked, scope)
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
