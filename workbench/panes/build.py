"""The build that runs, or ran last."""

from __future__ import annotations

import os
from collections.abc import Iterable

from textual.widget import Widget

from engine import api
from workbench.panes.base import Pane
from workbench.state import build_line
from workbench.widgets.log_view import Line, LogView


class BuildPane(Pane):
    NAME, TITLE = "build", "build"

    def __init__(self) -> None:
        super().__init__()
        self.view = LogView(id="build-view", empty="Nothing was built yet.")

    def content(self) -> Iterable[Widget]:
        yield self.view

    @property
    def main(self) -> Widget:
        return self.view

    def loop_event(self, event: api.LoopEvent) -> None:
        view = self.view
        match event:
            case api.ProjectFound(_, _, _, _, notes):
                view.append(Line(note, "stderr") for note in notes)
            case api.ServiceState(phase="building"):
                view.clear()
            case api.ServiceBuild(_, api.StepOutput(_, stream, text)):
                view.append(Line(f"    {line}", stream) for line in text.splitlines())
            case api.ServiceBuild(_, step):
                if line := build_line(step):
                    view.append([Line(line)])
            case api.ServiceBuildFailed(service, text, hint, file, line_number, _):
                where = f" ({os.path.basename(file)}:{line_number})" if file and line_number else ""
                view.append(
                    Line(part, "stderr")
                    for part in (f"✗ {service}{where}", *text.splitlines(), *([f"hint: {hint}"] if hint else []))
                )
            case api.LoopNotice(text, _):
                view.append([Line(f"· {text}")])
            case api.ChangeSeen(_, paths):
                view.append([Line(f"· {', '.join(paths[:3])}{' …' if len(paths) > 3 else ''} changed")])
            case _:
                pass

    def build_event(self, event: api.BuildEvent) -> None:
        """Of a build that the user started here (`app.build`)."""
        if isinstance(event, api.BuildStarted):
            self.view.clear()
        self.loop_event(api.ServiceBuild("", event))
