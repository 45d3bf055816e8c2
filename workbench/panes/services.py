"""The project's services: phase, generation, drift."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from engine import api
from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.rows import SERVICES, service_row
from workbench.subjects import Lists, Subject


class ServicesPane(RowsPane):
    NAME, TITLE, KIND = "services", "services", "service"
    COLUMNS = SERVICES
    EMPTY = "No project here: neither a compose file nor a Dockerfile."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("service")

    def __init__(self) -> None:
        super().__init__()
        self._synced: dict[str, int] = {}  # paths of a service's container that its image does not have yet

    def loop_event(self, event: api.LoopEvent) -> None:
        match event:
            case api.Synced(service, _, _, _, _, drift):
                self._synced[service] = drift
                self.listed(self.app_.lists)
            case api.Replaced(service):
                self._synced.pop(service, None)
            case _:
                pass

    def listed(self, lists: Lists) -> None:
        rows = []
        for one in lists.services:
            cells = service_row(one, lists, self._synced.get(one.service, 0))
            rows.append((Subject("service", one.service, one.service, one), cells))
        self.put(rows)

    @property
    def rows_wanted(self) -> int | None:
        return max(1, len(self._subjects))

    def opened(self, subject: Subject) -> None:
        """Its log."""
        self.app_.action_pane("logs")
