"""Containers: state, health, ports."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.state import CONTAINERS, container_row
from workbench.subjects import Lists, Subject


class ContainersPane(RowsPane):
    NAME, TITLE, KIND = "containers", "containers", "container"
    COLUMNS = CONTAINERS
    EMPTY = "No containers. x on an image runs one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("container")  # type: ignore[assignment]

    def listed(self, lists: Lists) -> None:
        self.put([(Subject("container", one.id, one.name, one), container_row(one)) for one in lists.containers])
