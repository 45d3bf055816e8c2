"""Build contexts that a client names instead of sending: both builders' endpoints fetch them here."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from engine.api import BuildRequest
from engine.base.cancel import CancelToken
from engine.build.reading import is_remote
from engine.build.remote import Fetched, fetch_context
from engine.errors import InvalidInput, Unsupported


async def fetched(
    place: str, folder: Path, root: Path | None, closing: contextlib.ExitStack, request: BuildRequest | None = None
) -> Fetched:
    """A git repository, or what is behind a URL: an archive or a Dockerfile. What takes long stops when the client goes.

    `root` is the engine's data root, None where that is not in this process's reach; `request` has what git may need. Raises
    `InvalidInput`, `Unsupported`, and what fetching raises.
    """
    if not is_remote(place):
        raise InvalidInput(f"{place[:200]!r} is no URL and no git repository")
    if root is None:
        raise Unsupported("remote contexts need an engine in this process", hint="send the context")
    cancel = CancelToken()
    work = asyncio.create_task(
        asyncio.to_thread(fetch_context, place, folder, root, closing, request=request, cancel=cancel)
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancel.cancel()
        await asyncio.wait([work])
        raise
