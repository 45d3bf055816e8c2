"""A build context that is somewhere else: a git repository, an archive or a Dockerfile behind a URL, a stream. Here, it is a folder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.base.cancel import CancelToken
from engine.build.contexts import read_stream
from engine.build.fetch import Fetcher
from engine.build.git import GitSource, parse_git_ref
from engine.errors import InvalidInput
from engine.model import BuildRequest
from engine.store.store import Store


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where the build's files are. `text` is the Dockerfile when that is all that was there. `epoch` is a commit's time, in seconds."""

    context: Path
    text: str | None = None
    epoch: int | None = None

    def dockerfile(self, name: str, place: str) -> Path | None:
        """The file that `-f` names. Raises `InvalidInput` when what was fetched is itself the Dockerfile."""
        if self.text is not None and name:
            raise InvalidInput(f"{place} is the Dockerfile itself: -f names no other one", hint="leave -f out")
        return self.context / name if name else None


def fetch_context(
    place: str,
    folder: Path,
    root: Path,
    closing: contextlib.ExitStack,
    *,
    request: BuildRequest | None = None,
    stream: BinaryIO | None = None,
    cancel: CancelToken | None = None,
) -> Fetched:
    """What is at `place`, or in `stream`, in the empty `folder` or one that goes with `closing`; `root` is the data root.

    `request` holds what fetching may need: secrets and agents that open private places. Raises `InvalidInput`, `NotFound`,
    `Unavailable`, `AccessDenied`, `Corrupt`, `HostileArchive`, `Cancelled`.
    """
    cancel = cancel or CancelToken()
    if stream is not None:
        found = read_stream(stream, folder, cancel)
        return Fetched(folder, found.dockerfile_text)
    request = request or BuildRequest(folder)
    store = Store(root)
    closing.callback(store.close)
    git = parse_git_ref(place)
    if git is not None:
        keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "") in ("1", "true")
        source = GitSource(git, store.tmp, request, cancel, keep_git_dir=keep)
        closing.callback(source.close)
        return Fetched(source.root, epoch=source.committed)
    with open(Fetcher(store, request, cancel).get(place).path, "rb") as fetched:
        unpacked = read_stream(fetched, folder, cancel)
    return Fetched(folder, unpacked.dockerfile_text)
