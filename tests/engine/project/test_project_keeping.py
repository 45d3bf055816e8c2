"""Which generations give way to a budget of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.api import Engine
from engine.base.settings import ProjectSettings, project_settings
from engine.errors import Conflict, InvalidInput, NotFound
from engine.project.generations import Generation, Generations, Listed
from engine.project.keeping import Keeping, too_large

LAYERS = {f"i{number}": {"base": 1000, f"own{number}": 10} for number in range(1, 7)}


def listed(*numbers: int, current: int) -> Listed:
    return Listed(tuple(Generation(number, f"i{number}") for number in numbers), current)


@pytest.mark.parametrize(
    ("current", "most", "gone"),
    [
        (6, 50, []),
        (6, 49, [1]),
        (6, 20, [3, 2, 1]),
        (6, 1, [4, 3, 2, 1]),  # there is always a way back
        (2, 20, [4, 3, 1]),  # rolled back: what serves stays
    ],
)
def test_the_oldest_give_way(current: int, most: int, gone: list[int]) -> None:
    assert too_large(listed(1, 2, 3, 4, 5, 6, current=current), LAYERS, most) == gone


def test_what_is_shared_counts_once_and_what_is_gone_not_at_all() -> None:
    layers = {"i1": {"old": 900, "a": 1}, "i2": {"old": 900, "b": 1}, "i3": {"new": 5}}
    assert too_large(listed(1, 2, 3, current=3), layers, 902) == []
    assert too_large(listed(1, 2, 3, current=3), layers, 901) == [1]
    assert too_large(listed(1, 2, 3, current=3), {}, 1) == []


def test_the_settings(tmp_path: Path) -> None:
    assert project_settings(tmp_path) == ProjectSettings(20, 10 << 30)
    (tmp_path / "settings.json").write_text('{"project": {"generations": 5, "generations-size": "1g"}}')
    assert project_settings(tmp_path) == ProjectSettings(5, 1 << 30)
    (tmp_path / "settings.json").write_text('{"project": {"generations": 0}}')
    with pytest.raises(InvalidInput, match=r"project\.generations: 0 is not a number from 1 up"):
        project_settings(tmp_path)


class Images:
    """Images of ten bytes each; an answer may be held back."""

    def __init__(self) -> None:
        self.here, self.used = {f"i{number}" for number in range(1, 7)}, set[str]()
        self.kept: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def image(self, name: str) -> Any:
        await self.go.wait()
        if name not in self.here:
            raise NotFound(name)
        layers = (SimpleNamespace(diff_id=f"own-{name}", size=10),)
        return SimpleNamespace(summary=SimpleNamespace(tags=()), layers=layers)

    async def keep_images(self, owner: str, images: Sequence[str]) -> None:
        await self.go.wait()
        for _ in range(10 - len(images)):  # the shorter the later
            await asyncio.sleep(0)
        self.kept = list(images)

    async def remove_image(self, name: str) -> None:
        if name in self.used:
            raise Conflict(name)
        self.here.remove(name)


def keeping(images: Images, folder: Path, **limits: int) -> tuple[Keeping, Generations]:
    generations = Generations(folder, "app")
    return Keeping(cast("Engine", images), "p-app", generations, ProjectSettings(**limits)), generations


async def test_a_slow_settling_has_not_the_last_word(tmp_path: Path) -> None:
    """Three generations in a row, while the engine does not answer: what is kept in the end is what the list says then."""
    images = Images()
    found, _ = keeping(images, tmp_path)
    images.go.clear()
    tasks = []
    for number in (1, 2, 3):
        tasks.append(asyncio.create_task(found.settle(found.accept(Generation(number, f"i{number}")))))
        await asyncio.sleep(0)
    images.go.set()
    await asyncio.gather(*tasks)
    assert images.kept == ["i1", "i2", "i3"]


async def test_an_image_that_the_old_container_still_uses_goes_with_it(tmp_path: Path) -> None:
    images = Images()
    found, _ = keeping(images, tmp_path, generations=1)
    await found.settle(found.accept(Generation(1, "i1")))
    images.used.add("i1")
    await found.settle(found.accept(Generation(2, "i2")))
    assert "i1" in images.here
    images.used.clear()
    await found.retired()
    assert "i1" not in images.here
    assert images.kept == ["i2"]


async def test_a_size_that_cannot_be_read_drops_nothing(tmp_path: Path) -> None:
    images = Images()
    found, generations = keeping(images, tmp_path, generations_size=20)
    for number in (1, 2, 3):
        await found.settle(found.accept(Generation(number, f"i{number}")))
    real = images.image

    async def busy(name: str) -> Any:
        raise Conflict(name)

    images.image = busy  # type: ignore[method-assign]
    await found.settle(found.accept(Generation(4, "i4")))
    assert [each.number for each in generations.read().generations] == [1, 2, 3, 4]
    images.image = real  # type: ignore[method-assign]
    await found.settle(found.accept(Generation(5, "i5")))
    assert [each.number for each in generations.read().generations] == [3, 4, 5]
