"""The history of builds, newest first."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from engine.api import EngineEvent
from workbench import commands
from workbench.layer_rows import BUILDS, build_row
from workbench.panes.rows import RowsPane
from workbench.subjects import Subject

LIMIT = 200


class BuildsPane(RowsPane):
    NAME, TITLE, KIND = "builds", "builds", "build"
    COLUMNS = BUILDS
    EMPTY = "No builds yet."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("build")

    def shown(self) -> None:
        self.work(self._read, group="read")

    def engine_event(self, event: EngineEvent) -> None:
        if self.on_screen and event.type == "build":
            self.work(self._read, group="read")

    async def _read(self) -> None:
        found = await self.bridge.engine.builds(limit=LIMIT)
        self.put([(Subject("build", str(one.number), one.name, one), build_row(one)) for one in found])
