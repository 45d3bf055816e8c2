"""What happened, newest last."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.widget import Widget

from workbench.panes.base import Pane
from workbench.state import neutral
from workbench.widgets.log_view import Line, LogView

if TYPE_CHECKING:
    from engine.api import EngineEvent


class EventsPane(Pane):
    NAME, TITLE = "events", "events"

    def __init__(self) -> None:
        super().__init__()
        self.view = LogView(id="events-view", empty="Nothing happened yet.")

    def content(self) -> Iterable[Widget]:
        yield self.view

    @property
    def main(self) -> Widget:
        return self.view

    def engine_event(self, event: EngineEvent) -> None:
        at = time.strftime("%H:%M:%S", time.localtime(event.time / 1e9))
        name = event.attributes.get("name") or event.id.removeprefix("sha256:")[:12]
        self.view.append([Line(f"{at}  {event.type} {neutral(event.action)}  {neutral(name)}")])
