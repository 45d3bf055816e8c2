"""Volumes, and who uses them."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.state import VOLUMES, volume_row
from workbench.subjects import Lists, Subject


class VolumesPane(RowsPane):
    NAME, TITLE, KIND = "volumes", "volumes", "volume"
    COLUMNS = VOLUMES
    EMPTY = "No volumes. A makes one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("volume")  # type: ignore[assignment]

    def listed(self, lists: Lists) -> None:
        self.put([(Subject("volume", one.name, one.name, one), volume_row(one)) for one in lists.volumes])
