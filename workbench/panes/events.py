"""What happened, newest first."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from workbench import commands
from workbench.panes.rows import FILTER, RowsPane
from workbench.rows import EVENTS, event_row
from workbench.screens.reading import ReadingScreen
from workbench.state import neutral
from workbench.subjects import Subject
from workbench.widgets.lines_view import TextLine

if TYPE_CHECKING:
    from engine.api import EngineEvent

LIMIT = 5000  # events that are kept; `workbench events --since` has them all
_GATHER = 0.1  # seconds: what comes within it is drawn at once


class EventsPane(RowsPane):
    NAME, TITLE, KIND = "events", "events", "event"
    COLUMNS = EVENTS
    EMPTY = "Nothing happened yet."
    BINDINGS: ClassVar[list[Binding]] = [*commands.bindings("event"), FILTER]

    def __init__(self) -> None:
        super().__init__()
        self._happened: deque[EngineEvent] = deque(maxlen=LIMIT)
        self._waiting = False

    def engine_event(self, event: EngineEvent) -> None:
        self._happened.appendleft(event)
        if self.on_screen and not self._waiting:
            self._waiting = True
            self.set_timer(_GATHER, self.shown)

    def shown(self) -> None:
        """The cursor stays on its event, but for one on the newest: that follows."""
        self._waiting = False
        follows = self.list.selected == (self.list.keys[0] if self.list.keys else "")
        self.put(
            [(Subject("event", str(one.seq), _name(one), one), event_row(one, _name(one))) for one in self._happened]
        )
        if follows and self.list.keys:
            self.list.select(self.list.keys[0])

    def opened(self, subject: Subject) -> None:
        event: EngineEvent = subject.record
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time / 1e9))
        lines = [
            TextLine(f"{event.type} {neutral(event.action)}"),
            TextLine(f"{moment}  {event.id}", "dim"),
            TextLine(""),
        ]
        lines += [TextLine(f"{neutral(name)}={neutral(value)}") for name, value in sorted(event.attributes.items())]
        self.app.push_screen(ReadingScreen(f"{event.type} {subject.name}", lines))


def _name(event: EngineEvent) -> str:
    return event.attributes.get("name") or event.id.removeprefix("sha256:")[:12]
