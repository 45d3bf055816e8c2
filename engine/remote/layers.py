"""Files of another engine's images. Another workbench answers for single paths itself; what Docker's API has no words for is read from
a copy of the image on this machine (`engine.remote.near`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.base.units import human_size
from engine.errors import Unsupported
from engine.model import FileComparison, FileContent, FileDifference, FileStep, WasteReport
from engine.remote.errors import beyond
from engine.remote.images import ImagesPart
from engine.remote.near import Near

if TYPE_CHECKING:
    from pathlib import Path

    from engine.api import Engine, FileTree, Sink

_SCRATCH = "scratch"


class LayersPart(ImagesPart):
    """What is in images, layer by layer."""

    _near: Near | None = None

    def look_nearby(self, open_engine: Callable[[Path], Awaitable[Engine]]) -> None:
        """Images may be fetched to be looked into, by an engine of this machine on a folder of its own."""
        self._near = Near(self.save, open_engine)

    async def close(self) -> None:
        if self._near is not None:
            await self._near.close()
        await super().close()

    async def _here(self, *names: str, fetch: bool = True) -> tuple[Engine, list[str]]:
        """An engine of this machine, and the names there of images or of their layers. Raises `Unsupported`."""
        if self._near is None:
            raise _beyond()
        found = []
        for name in names:
            bare, hash_, line = name.rpartition("#") if "#" in name else (name, "", "")
            if bare != _SCRATCH:
                image = (await self.image(bare)).summary.id
                if not fetch and not self._near.has(image):
                    if not self._near.fetching(image):
                        raise Unsupported(
                            f"{bare[:19]} is not here, to be looked into",
                            hint="its files (`workbench files IMAGE`) fetch it from the other engine",
                        )
                    size = human_size(self._near.so_far(image))
                    raise Unsupported(f"the image comes from the other engine, to be looked into: {size} so far")
                bare = await self._near.fetched(image)
            found.append(f"{bare}{hash_}{line}")
        return await self._near.engine(), found

    async def _asked(self, method: str, **arguments: object) -> Any:
        return await self._own(method, "looking into an image's layers", **arguments)

    async def open_files(
        self, name: str, *, progress: Callable[[int], None] = lambda entries: None, depth: int = 0
    ) -> FileTree:
        engine, (here,) = await self._here(name, fetch=not depth)
        return await engine.open_files(here, progress=progress, depth=depth)

    async def image_waste(self, name: str) -> WasteReport:
        """Fetches nothing: it is asked of every image that somebody looks at."""
        if await self._is_workbench():
            found: WasteReport = await self._asked("image_waste", name=name)
            return found
        engine, (here,) = await self._here(name, fetch=False)
        return await engine.image_waste(here)

    async def image_diff(self, first: str, second: str) -> Sequence[FileDifference]:
        if await self._is_workbench():
            found: Sequence[FileDifference] = await self._asked("image_diff", first=first, second=second)
            return found
        engine, (one, two) = await self._here(first, second)
        return await engine.image_diff(one, two)

    async def file_history(self, name: str, path: str) -> Sequence[FileStep]:
        if await self._is_workbench():
            found: Sequence[FileStep] = await self._asked("file_history", name=name, path=path)
            return found
        engine, (here,) = await self._here(name)
        return await engine.file_history(here, path)

    async def file_content(self, name: str, path: str, *, limit: int = 1 << 20) -> FileContent:
        if await self._is_workbench():
            found: FileContent = await self._asked("file_content", name=name, path=path, limit=limit)
            return found
        engine, (here,) = await self._here(name)
        return await engine.file_content(here, path, limit=limit)

    async def file_diff(self, first: str, second: str, path: str) -> FileComparison:
        if await self._is_workbench():
            found: FileComparison = await self._asked("file_diff", first=first, second=second, path=path)
            return found
        engine, (one, two) = await self._here(first, second)
        return await engine.file_diff(one, two, path)

    async def save_file(self, name: str, path: str, out: Sink) -> None:
        engine, (here,) = await self._here(name)
        await engine.save_file(here, path, out)


def _beyond() -> Unsupported:
    return beyond(
        "looking into an image's layers",
        "this machine has no engine to look into a copy with (that needs Linux); run it on that host with `workbench` itself",
    )
