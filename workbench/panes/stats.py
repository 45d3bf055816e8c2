"""What containers use."""

from __future__ import annotations

from collections.abc import Mapping

from engine.base.units import human_size
from workbench.messages import Reading
from workbench.panes.rows import RowsPane
from workbench.state import STATS
from workbench.subjects import Subject


class StatsPane(RowsPane):
    NAME, TITLE = "stats", "stats"
    WANTS_STATS = True
    COLUMNS = STATS
    EMPTY = "No container runs."

    def stats_read(self, readings: Mapping[str, Reading]) -> None:
        rows = []
        for name, reading in readings.items():
            cells = (name, f"{reading.cpu:.1f} %", human_size(reading.stats.memory.used))
            rows.append((Subject("container", reading.stats.id, name, reading), cells))
        self.put(rows)
