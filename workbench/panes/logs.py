"""The log of the selected container or service. A new generation of the same name goes on in the same stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Input

from engine.api import LoopEvent, ServiceState
from workbench.panes.base import Pane
from workbench.subjects import Subject
from workbench.widgets.log_view import Line, LogView

FRAME = 1 / 60  # seconds: log lines that arrive within it are drawn at once
TAIL = 5000


class LogsPane(Pane):
    NAME, TITLE = "logs", "logs"
    FOLLOWS = ("container", "service")
    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        Binding("slash", "filter", "Filter", key_display="/", id="logs.filter", tooltip="Show only matching lines"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view = LogView(id="logs-view", empty="No output yet.")
        self.box = Input(placeholder="show only lines that match", id="logs-filter", classes="filter")
        self._name = ""
        self._offset = 0

    def content(self) -> Iterable[Widget]:
        yield self.view
        yield self.box

    @property
    def main(self) -> Widget:
        return self.view

    def show(self, subject: Subject | None) -> None:
        if subject is None:
            return
        name = subject.record.container if subject.kind == "service" else subject.name
        if name and name != self._name:
            self._name, self._offset = name, 0
            self.view.clear()
            self.border_subtitle = name
            self.work(self._follow, name, group="follow")

    def loop_event(self, event: LoopEvent) -> None:
        if isinstance(event, ServiceState) and event.phase == "running" and event.container:
            self.show(Subject("container", event.container, event.container))
            if event.container == self._name:
                self.work(self._follow, self._name, group="follow")

    async def _follow(self, name: str) -> None:
        batch: list[Line] = []
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def flush() -> None:
            nonlocal batch
            if batch:
                self.view.append(batch)
                batch = []

        try:
            async for line in self.bridge.engine.logs(name, follow=True, tail=TAIL):
                if line.offset <= self._offset:
                    continue
                self._offset = line.offset
                if not batch:
                    timer = loop.call_later(FRAME, flush)
                batch.append(Line(line.text, line.stream))
        finally:
            if timer:
                timer.cancel()
            flush()

    def action_filter(self) -> None:
        self.box.add_class("open")
        self.box.focus()

    @on(Input.Changed)
    def _filter_changed(self, event: Input.Changed) -> None:
        self.view.filter(event.value)

    @on(Input.Submitted)
    def _filter_done(self) -> None:
        self.view.focus()

    def clear_filter(self) -> bool:
        if not self.box.has_class("open"):
            return False
        self.box.value = ""
        self.box.remove_class("open")
        self.view.filter("")
        self.view.focus()
        return True
