"""A shell in a container, or the container's own terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from textual.widget import Widget

from workbench.panes.base import Pane
from workbench.subjects import Subject
from workbench.widgets.log_view import Line, LogView


class TerminalPane(Pane):
    NAME, TITLE = "terminal", "terminal"

    def __init__(self) -> None:
        super().__init__()
        self.view = LogView(id="terminal-view", empty="E on a container opens a shell in it.")

    def content(self) -> Iterable[Widget]:
        yield self.view

    @property
    def main(self) -> Widget:
        return self.view

    def open(self, subject: Subject, what: Literal["shell", "attach"]) -> None:
        """Opens a terminal on the container `subject`: the app has brought this pane to the front."""
        words = "exec -it" if what == "shell" else "attach"
        self.view.append([Line(f"not in the app yet: workbench {words} {subject.name}")])
