"""Files of images and layers in the in-process engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from engine.base.cancel import CancelToken
from engine.base.lazy import lazy
from engine.local.base import Services, cancelling

if TYPE_CHECKING:
    import asyncio

    from engine.api import Sink
    from engine.model import (
        FileComparison,
        FileContent,
        FileDifference,
        FileStep,
        TreeExtent,
        TreeQuery,
        TreeRow,
        WasteReport,
    )
    from engine.service.layer_files import LayerFiles
    from engine.store.tree_rows import TreeRows
else:
    asyncio = lazy("asyncio")

T = TypeVar("T")


class LocalFileTree:
    """`engine.api.FileTree` over an index: every call works on a thread, one at a time."""

    def __init__(self, rows: TreeRows) -> None:
        self._rows = rows
        self._lock = asyncio.Lock()

    async def _do(self, work: Callable[[CancelToken], T]) -> T:
        cancel = CancelToken()
        async with self._lock:
            job = asyncio.ensure_future(asyncio.to_thread(work, cancel))
            try:
                return await asyncio.shield(job)
            except asyncio.CancelledError:
                cancel.cancel()
                await asyncio.wait([job])
                raise

    async def extent(self) -> TreeExtent:
        return await self._do(lambda _: self._rows.extent())

    async def select(self, query: TreeQuery) -> TreeExtent:
        await self._do(lambda cancel: self._rows.select(query, cancel))
        return await self.extent()

    async def rows(self, first: int, count: int) -> Sequence[TreeRow]:
        return await self._do(lambda _: self._rows.rows(first, count))

    async def fold(self, row: int, *, open: bool) -> TreeExtent:
        await self._do(lambda _: self._rows.fold(row, open=open))
        return await self.extent()

    async def fold_all(self, *, open: bool) -> TreeExtent:
        await self._do(lambda cancel: self._rows.fold_all(open=open, cancel=cancel))
        return await self.extent()

    async def row_of(self, path: str) -> int | None:
        return await self._do(lambda _: self._rows.row_of(path))


class LayersPart(Services):
    """What is in images, layer by layer."""

    @functools.cached_property
    def _layer_files(self) -> LayerFiles:
        from engine.service.layer_files import LayerFiles

        return LayerFiles(self._store)

    async def open_files(
        self, name: str, *, progress: Callable[[int], None] = lambda entries: None, depth: int = 0
    ) -> LocalFileTree:
        cancel = CancelToken()
        with cancelling(cancel):
            return LocalFileTree(await self._do(self._layer_files.tree, name, progress, cancel, depth))

    async def image_waste(self, name: str) -> WasteReport:
        return await self._cancellable(lambda cancel: self._layer_files.waste(name, cancel))

    async def image_diff(self, first: str, second: str) -> Sequence[FileDifference]:
        return await self._cancellable(lambda cancel: self._layer_files.diff(first, second, cancel))

    async def file_history(self, name: str, path: str) -> Sequence[FileStep]:
        return await self._do(self._layer_files.history, name, path)

    async def file_content(self, name: str, path: str, *, limit: int = 1 << 20) -> FileContent:
        return await self._do(self._layer_files.content, name, path, limit)

    async def file_diff(self, first: str, second: str, path: str) -> FileComparison:
        return await self._do(self._layer_files.compare_file, first, second, path)

    async def save_file(self, name: str, path: str, out: Sink) -> None:
        await self._cancellable(lambda cancel: self._layer_files.save(name, path, out, cancel))
