"""Where panes go (pure). Every size has a plan: what does not fit beside the others becomes a tab of its slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Zoom = Literal["", "half", "full"]

LISTS: tuple[tuple[str, ...], ...] = (("services",), ("containers",), ("images", "volumes", "networks"), ("layers",))
OUTPUTS: tuple[tuple[str, ...], ...] = (("build", "builds", "files", "stats"), ("logs", "events", "terminal"))
PANES = tuple(name for group in (*LISTS, *OUTPUTS) for name in group)

NARROW = 110  # columns below which lists and outputs do not stand side by side
TALL = 45  # rows from which a narrow screen shows three panes above each other
TINY_WIDTH, TINY_HEIGHT = 40, 14  # below either, one pane has the screen
SLIM = 3  # rows of a pane that shows one line
ROOMY = 8  # rows that a list has without having to grow when it is used


@dataclass(frozen=True, slots=True)
class Slot:
    """A rectangle of cells, the panes that are its tabs, and the one that shows."""

    x: int
    y: int
    width: int
    height: int
    panes: tuple[str, ...]
    shown: str


def plan(
    width: int, height: int, recent: Sequence[str], zoom: Zoom = "", wanted: Mapping[str, int] | None = None
) -> list[Slot]:
    """Slots that fill `width` x `height`. `recent` names panes, the focused one first, then by their last use; `wanted` how many
    rows a pane would fill, where it says so."""
    focus = recent[0] if recent else "containers"
    lists, outputs = _flat(LISTS), _flat(OUTPUTS)

    def slot(x: int, y: int, w: int, h: int, panes: tuple[str, ...]) -> Slot:
        shown = next((name for name in recent if name in panes), panes[0])
        return Slot(x, y, max(1, w), max(1, h), panes, shown)

    if zoom == "full" or width < TINY_WIDTH or height < TINY_HEIGHT:
        return [slot(0, 0, width, height, PANES)]
    if zoom == "half" and width >= NARROW:
        left = width // 2
        return [slot(0, 0, left, height, lists), slot(left, 0, width - left, height, outputs)]
    if width < NARROW and (height < TALL or zoom == "half"):
        top = height * 11 // 20 if focus in lists else height * 2 // 5
        return [slot(0, 0, width, top, lists), slot(0, top, width, height - top, outputs)]
    if width < NARROW:
        top, middle = height * 7 // 20, height * 5 // 20
        return [
            slot(0, 0, width, top, lists),
            slot(0, top, width, middle, OUTPUTS[0]),
            slot(0, top + middle, width, height - top - middle, OUTPUTS[1]),
        ]
    left = min(84, width * 7 // 16)
    slots = []
    y = 0
    groups = LISTS if height >= SLIM * len(LISTS) + 4 else (lists,)
    for group, rows in zip(groups, _rows(height, groups, focus, wanted or {}), strict=True):
        slots.append(slot(0, y, left, rows, group))
        y += rows
    upper = height * 2 // 5
    slots.append(slot(left, 0, width - left, upper, OUTPUTS[0]))
    slots.append(slot(left, upper, width - left, height - upper, OUTPUTS[1]))
    return slots


def _flat(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _rows(height: int, groups: Sequence[tuple[str, ...]], focus: str, wanted: Mapping[str, int]) -> list[int]:
    """Heights of lists above each other: equal where each is roomy, else the used one has what the others can spare."""
    fair = height // len(groups)
    if fair < ROOMY:
        at = next((i for i, group in enumerate(groups) if focus in group), 1 if len(groups) > 1 else 0)
        return [SLIM if i != at else height - SLIM * (len(groups) - 1) for i in range(len(groups))]
    rows = [max(SLIM, min(fair, wanted.get(group[0], fair))) for group in groups]
    left = height - sum(rows)
    growing = [i for i, group in enumerate(groups) if group[0] not in wanted]
    for turn in range(left):
        rows[growing[-1 - turn % len(growing)]] += 1
    return rows
