"""Volumes: who uses them, and how big they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import RowsPane
from workbench.rows import VOLUMES, volume_row
from workbench.subjects import Lists, Subject

if TYPE_CHECKING:
    from engine.api import EngineEvent, VolumeInfo


class VolumesPane(RowsPane):
    NAME, TITLE, KIND = "volumes", "volumes", "volume"
    COLUMNS = VOLUMES
    EMPTY = "No volumes yet: A makes one."
    BINDINGS: ClassVar[list[Binding]] = commands.bindings("volume")

    def __init__(self) -> None:
        super().__init__()
        self._volumes: Sequence[VolumeInfo] = ()
        self._sizes: dict[str, int] = {}
        self._stale = True

    def listed(self, lists: Lists) -> None:
        self._stale |= [one.name for one in lists.volumes] != [one.name for one in self._volumes]
        self._volumes = lists.volumes
        self._draw()
        self.shown()

    def engine_event(self, event: EngineEvent) -> None:
        """A container that has ended has written what it wrote."""
        self._stale |= (event.type, event.action) == ("container", "die")

    def shown(self) -> None:
        if self.on_screen and self._stale and self._volumes:
            self._stale = False
            self.work(self._read_sizes, group="sizes")

    async def _read_sizes(self) -> None:
        usage = await self.bridge.engine.disk_usage()
        self._sizes = {one.name: one.size for one in usage.volumes}
        self._draw()

    def _draw(self) -> None:
        self.put(
            [
                (Subject("volume", one.name, one.name, one), volume_row(one, self._sizes.get(one.name, -1)))
                for one in self._volumes
            ]
        )
