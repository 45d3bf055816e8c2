"""Where the app was left in this folder: read at the start, and written a moment after each change, so that a lost terminal loses
nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from textual.timer import Timer

from workbench import themes
from workbench.settings import Left, read_left, state_file, write_left
from workbench.subjects import Subject

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.panes.base import Pane

KEEP_AFTER = 1.0  # seconds after the last change


class Memory:
    """`place` is what it is kept under; "" keeps nothing."""

    def __init__(self, app: WorkbenchApp, place: str) -> None:
        self._app, self._place = app, place
        self.left = read_left(state_file(), place) if place else Left()
        self.selected: dict[str, Subject | None] = {}  # by pane
        self._awaited = dict(self.left.selected)  # ids that the lists have not shown yet, by pane
        self._timer: Timer | None = None

    def await_subject(self, pane: str, identity: str) -> None:
        """The cursor of `pane` goes there as soon as it is listed."""
        self._awaited[pane] = identity

    def restore(self, panes: dict[str, Pane]) -> None:
        """The lists are there: cursors go where they were."""
        for name in [name for name in self._awaited if name in panes]:
            pane, identity = panes[name], self._awaited[name]
            if pane.KIND is None or pane.choose(Subject(pane.KIND, identity, identity)) or pane.subject is not None:
                del self._awaited[name]

    def keep(self) -> None:
        """Something has changed."""
        if self._place and self._app.is_running:
            if self._timer is not None:
                self._timer.stop()
            self._timer = self._app.set_timer(KEEP_AFTER, self._write)

    def end(self) -> None:
        if self._place:
            with suppress(Exception):  # the screens may be gone: then what was written a second ago holds
                self._write()

    def _write(self) -> None:
        selected = {name: one.id for name, one in self.selected.items() if one} | self._awaited
        grid = self._app.grid
        left = Left(tuple(grid.recent), grid.zoom, themes.own_name(self._app.theme), selected)
        write_left(state_file(), self._place, left)
