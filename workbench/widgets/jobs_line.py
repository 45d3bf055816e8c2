"""The lines of long work: one for each pull, push or build that was started here, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textual.widgets import Static

from workbench.journal import Job
from workbench.state import neutral

SHOWN = 3
SOON = 0.4  # seconds that an action may take until a line says that it runs


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

    @contextmanager
    def slow(self, name: str) -> Iterator[None]:
        """A line for what is done at once as a rule, for when it is not. It cannot be cancelled, and quitting does not break
        it off."""
        job = Job(name, self._draw, None)

        def begin() -> None:
            self.running.append(job)
            self._draw()

        timer = self.set_timer(SOON, begin)
        try:
            yield
        finally:
            timer.stop()
            if job in self.running:
                self.running.remove(job)
                self._draw()

    @property
    def asked_about(self) -> list[Job]:
        """Those that end with the app."""
        return [job for job in self.running if job.cancel is not None]

    def cancel(self) -> None:
        """The one that was begun last."""
        if found := self.asked_about:
            found[-1].end()

    def _draw(self) -> None:
        lines = [f"◐ {neutral(job.name)}  {job.text}" for job in self.running[-SHOWN:]]
        if lines:
            lines[-1] += f"   ({self.key} cancels)" if self.running[-1].cancel is not None else ""
        self.update("\n".join(lines))
        self.display = bool(lines)
