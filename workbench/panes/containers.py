"""Containers: state as glyph and word, health, ports, what they use, restarts, generation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.rows import CONTAINERS, CPU, MEMORY, container_row
from workbench.subjects import Lists, Subject

if TYPE_CHECKING:
    from workbench.messages import Reading


class ContainersPane(RowsPane):
    NAME, TITLE, KIND = "containers", "containers", "container"
    COLUMNS = CONTAINERS
    EMPTY = "No containers yet: x on an image runs one."
    BINDINGS: ClassVar[list[Binding]] = [
        *commands.bindings("container"),
        Binding("e", "ended", "Ended", show=False, id="containers.ended", tooltip="Hide or show those that have ended"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lists = Lists()
        self._readings: Mapping[str, Reading] = {}
        self._hide_ended = False

    @property
    def wants_stats(self) -> bool:
        """Only where there is room for their columns."""
        return self.list.shows(CPU) or self.list.shows(MEMORY)

    def listed(self, lists: Lists) -> None:
        self._lists = lists
        self._draw()

    def stats_read(self, readings: Mapping[str, Reading]) -> None:
        self._readings = readings
        if self.on_screen:
            self._draw()

    def shown(self) -> None:
        self._draw()

    def _draw(self) -> None:
        rows = [
            (Subject("container", one.id, one.name, one), container_row(one, self._readings.get(one.name)))
            for one in self._lists.containers
            if one.running or not self._hide_ended
        ]
        self.put(rows)

    def action_ended(self) -> None:
        self._hide_ended = not self._hide_ended
        self._draw()

    def subtitle(self, counts: str) -> str:
        hidden = len(self._lists.containers) - self.list.total
        return " · ".join(filter(None, (counts, f"{hidden} ended hidden" if self._hide_ended and hidden else "")))

    def stays(self, subject: Subject) -> bool:
        """Somebody else has removed it: its last words are to be read, and another one may get its name in a moment."""
        gone = self._lists.container(subject.id) is None
        return gone and not self.app_.journal.has(f"workbench rm -f {shlex.quote(subject.name)}")

    def opened(self, subject: Subject) -> None:
        """Its log."""
        self.app_.action_pane("logs")
