"""Which generations of a service stay: so many, and so many bytes beyond what serves now; their images are kept, those of others go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from engine.api import Engine
from engine.base.settings import ProjectSettings
from engine.errors import Conflict, EngineError, NotFound
from engine.project.generations import Generation, Generations, Listed

Sizes = Mapping[str, Mapping[str, int]]  # images -> their layers' bytes, by diff ID


def too_large(listed: Listed, layers: Sizes, most: int) -> list[int]:
    """The generations that give way, so that those before the one that serves need no more than `most` bytes that it has not itself.
    The newest of them always stays: there is a way back. Layers count once, however many generations have them."""
    current = next((each for each in listed.generations if each.number == listed.current), None)
    have = set(layers.get(current.image, {})) if current is not None else set()
    total, full, kept, gone = 0, False, 0, []
    for each in reversed(listed.generations):
        if each.number == listed.current:
            continue
        own = {name: size for name, size in layers.get(each.image, {}).items() if name not in have}
        full = full or total + sum(own.values()) > most
        if full and kept:
            gone.append(each.number)
            continue
        kept, total, have = kept + 1, total + sum(own.values()), have | own.keys()
    return gone


class Keeping:
    """Of one service; `owner` is what the engine knows the kept images by."""

    def __init__(self, engine: Engine, owner: str, generations: Generations, limits: ProjectSettings) -> None:
        self._engine, self._owner, self._generations, self._limits = engine, owner, generations, limits
        self._layers: dict[str, dict[str, int]] = {}
        self._doomed: set[str] = set()  # images that are to go
        self._settling = asyncio.Lock()

    def accept(self, generation: Generation) -> list[Generation]:
        """Puts it on the list; those that fall off."""
        return self._generations.accept(generation, kept=self._limits.generations)

    async def settle(self, dropped: Sequence[Generation]) -> None:
        """After `accept`: the images of the generations that are left are kept, those of others that nobody names go. One at a time,
        and each reads the list anew: an older one must not have the last word on what is kept."""
        async with self._settling:
            gone = [*dropped, *await self._over_budget()]
            left = {each.image for each in self._generations.read().generations}
            with contextlib.suppress(EngineError):
                await self._engine.keep_images(self._owner, sorted(left))
            self._doomed = (self._doomed | {each.image for each in gone}) - left
            await self._remove()

    async def retired(self) -> None:
        """A container of an older generation is gone: what only it still used goes, too."""
        async with self._settling:
            await self._remove()

    async def _remove(self) -> None:
        for image in sorted(self._doomed):
            self._layers.pop(image, None)
            try:
                if not (await self._engine.image(image)).summary.tags:
                    await self._engine.remove_image(image)
            except Conflict:  # the old container still stops
                continue
            except EngineError:
                pass
            self._doomed.discard(image)

    async def _over_budget(self) -> list[Generation]:
        listed = self._generations.read()
        if not self._limits.generations_size or len(listed.generations) < 3:
            return []
        for each in listed.generations:
            if each.image not in self._layers:
                try:
                    detail = await self._engine.image(each.image)
                except NotFound:  # it takes no room
                    continue
                except EngineError:  # the next time, when its size is known
                    return []
                self._layers[each.image] = {layer.diff_id: layer.size for layer in detail.layers if layer.diff_id}
        return self._generations.drop(too_large(listed, self._layers, self._limits.generations_size))
