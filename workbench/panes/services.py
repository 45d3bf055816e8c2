"""The project's services: phase, generation, container."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.state import SERVICES, service_row
from workbench.subjects import Lists, Subject


class ServicesPane(RowsPane):
    NAME, TITLE, KIND = "services", "services", "service"
    COLUMNS = SERVICES
    EMPTY = "No project here: neither a compose file nor a Dockerfile."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("service")  # type: ignore[assignment]

    def listed(self, lists: Lists) -> None:
        self.put([(Subject("service", one.service, one.service, one), service_row(one)) for one in lists.services])

    @property
    def rows_wanted(self) -> int | None:
        return max(1, len(self._subjects))
