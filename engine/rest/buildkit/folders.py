"""Where clients' files lie here: kept between builds of one folder, so that the next build takes what changed alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

_KEPT = 8  # folders; the least recently used goes


class Folders:
    """Below `scratch` (None: the system's place for such). What is kept goes with `close`."""

    def __init__(self, scratch: Path | None) -> None:
        self._scratch = scratch
        self._kept: dict[str, Path] = {}  # the oldest first
        self._busy: set[str] = set()

    @contextlib.asynccontextmanager
    async def temporary(self) -> AsyncIterator[Path]:
        folder = await self._make()
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))

    @contextlib.asynccontextmanager
    async def kept(self, key: str) -> AsyncIterator[Path]:
        """The folder that was used for `key` last time, as it was left; an empty one for a new key, or while another build has it."""
        if not key or key in self._busy:
            async with self.temporary() as folder:
                yield folder
            return
        self._busy.add(key)
        try:
            self._kept[key] = folder = await self._again(key) or await self._make()
            await self._tidy()
            yield folder
        finally:
            self._busy.discard(key)

    async def _again(self, key: str) -> Path | None:
        """The folder of last time, marked as used: a sweep of the store takes what lies in its `tmp` for long (`store.collect`)."""
        folder = self._kept.pop(key, None)
        try:
            if folder is not None:
                await asyncio.to_thread(os.utime, folder)
        except FileNotFoundError:
            return None
        return folder

    async def _make(self) -> Path:
        return Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="context-", dir=self._scratch))

    async def _tidy(self) -> None:
        for key in [key for key in self._kept if key not in self._busy][: max(0, len(self._kept) - _KEPT)]:
            await asyncio.to_thread(shutil.rmtree, self._kept.pop(key), True)

    def close(self) -> None:
        for folder in self._kept.values():
            shutil.rmtree(folder, True)
        self._kept.clear()


def folder_key(*parts: str) -> str:
    """A key of what a client says of itself; "" when it says nothing to tell it from others."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest() if all(parts) else ""
