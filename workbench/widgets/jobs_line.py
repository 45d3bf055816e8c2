"""The lines of long work: one for each pull, push or build that was started here, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textual.widgets import Static

from workbench.journal import Job
from workbench.state import neutral

SHOWN = 3


class JobsLine(Static):
    def __init__(self) -> None:
        super().__init__(id="jobs", markup=False)
        self.running: list[Job] = []
        self.key = ""  # that cancels the newest, as it is shown

    @contextmanager
    def run(self, name: str, cancel: Callable[[], object]) -> Iterator[Job]:
        """A line for work that is done inside; `cancel` ends it."""
        job = Job(name, self._draw, cancel)
        self.running.append(job)
        self._draw()
        try:
            yield job
        finally:
            self.running.remove(job)
            self._draw()

    def cancel(self) -> None:
        """The one that was begun last."""
        if self.running:
            self.running[-1].cancel()

    def _draw(self) -> None:
        lines = [f"◐ {neutral(job.name)}  {job.text}" for job in self.running[-SHOWN:]]
        if lines:
            lines[-1] += f"   ({self.key} cancels)"
        self.update("\n".join(lines))
        self.display = bool(lines)
