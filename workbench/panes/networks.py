"""Networks."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.state import NETWORKS, network_row
from workbench.subjects import Lists, Subject


class NetworksPane(RowsPane):
    NAME, TITLE, KIND = "networks", "networks", "network"
    COLUMNS = NETWORKS
    EMPTY = "No networks. A makes one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("network")  # type: ignore[assignment]

    def listed(self, lists: Lists) -> None:
        self.put([(Subject("network", one.id, one.name, one), network_row(one)) for one in lists.networks])
