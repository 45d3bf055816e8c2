"""Leaving the app: what is under way is named and asked about; behind a terminal that is lost it is first brought to its end.

An ssh connection that breaks and a tmux pane that is killed are the same to a program: SIGHUP, and a terminal that takes and gives
nothing. What the user started goes on then, without a screen, and the app ends with it; only a second SIGHUP ends both at once.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

LOOK = 0.5  # seconds between two looks whether all is done
BUSY = (
    "pulling",
    "building",
)  # phases of a service that quitting would break off; a swap that has begun is ended in any case


class Leaving:
    def __init__(self, app: WorkbenchApp) -> None:
        self._app = app
        self.terminal_lost = False

    def listen(self) -> None:
        """For signals, where there are any."""
        with suppress(NotImplementedError, RuntimeError, ValueError):  # no such signal, or not the main thread
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self.hung_up)
            loop.add_signal_handler(signal.SIGTERM, self._app.exit)  # with the terminal as it was found

    def under_way(self) -> list[str]:
        """What ends with the app: jobs that the user started, and services of the project that are not up yet."""
        jobs = [job.name for job in self._app.jobs.asked_about]
        return jobs + [f"{one.service}: {one.phase}" for one in self._app.services if one.phase in BUSY]

    def ask(self) -> None:
        """Ends the app; when something is under way, the user is asked first."""
        names = self.under_way()
        if not names:
            self._app.exit()
            return
        from workbench.screens.dialogs import Confirm

        question = Confirm("Quit and break off", names, "# containers go on")
        self._app.push_screen(question, lambda yes: self._app.exit() if yes else None)

    def hung_up(self) -> None:
        app, driver = self._app, self._app._driver
        # Its input is at its end for ever: the thread that reads it is told first, since the driver tells it only after writes
        # that fail now, and a process waits for such a thread at its end.
        ended = getattr(driver, "exit_event", None)
        if isinstance(ended, threading.Event):
            ended.set()
        if self.terminal_lost or not self.under_way():
            app.exit()
            return
        self.terminal_lost = True
        if driver is not None:
            driver.write = lambda data: None  # type: ignore[method-assign]  # else its queue fills, and then the app waits for it
        self._still = ExitStack()
        self._still.enter_context(app.batch_update())  # nothing is drawn any more
        app.set_interval(LOOK, self._look)

    def _look(self) -> None:
        if not self.under_way():
            self._still.close()
            self._app.exit()
