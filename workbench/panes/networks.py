"""Networks: subnet, and how many containers are on each."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.rows import NETWORKS, network_row
from workbench.subjects import Lists, Subject


class NetworksPane(RowsPane):
    NAME, TITLE, KIND = "networks", "networks", "network"
    COLUMNS = NETWORKS
    EMPTY = "No networks yet: A makes one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("network")

    def listed(self, lists: Lists) -> None:
        users: dict[str, int] = {}
        for container in lists.containers:
            for name in container.networks if container.running else ():
                users[name] = users.get(name, 0) + 1
        self.put(
            [
                (Subject("network", one.id, one.name, one), network_row(one, users.get(one.name, 0)))
                for one in lists.networks
            ]
        )
