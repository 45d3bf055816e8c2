"""Which generations give way to a budget of bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.base.settings import ProjectSettings, project_settings
from engine.errors import InvalidInput
from engine.project.generations import Generation, Listed
from engine.project.keeping import too_large

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
