"""What the user did here, as command lines; and what is still under way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

KEPT = 500  # command lines


@dataclass(slots=True)
class Entry:
    """`state`: "" while it runs, "done", or why it failed."""

    line: str
    at: float = field(default_factory=time.time)
    state: str = ""

    def fail(self, why: str) -> None:
        self.state = why


class Journal:
    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=KEPT)

    @contextmanager
    def run(self, line: str) -> Iterator[Entry]:
        """An action while it runs."""
        entry = Entry(line)
        self.entries.append(entry)
        try:
            yield entry
        except BaseException as error:
            entry.state = entry.state or str(error) or "cancelled"
            raise
        entry.state = entry.state or "done"

    def has(self, line: str) -> bool:
        return any(entry.line == line for entry in self.entries)

    def note(self, line: str) -> None:
        """One that was only begun."""
        self.entries.append(Entry(line, state="done"))


class Job:
    """Long work: its name and how far it is. `cancel` ends it, where it can be ended."""

    def __init__(self, name: str, changed: Callable[[], None], cancel: Callable[[], object] | None) -> None:
        self.name, self.text, self.cancel, self._changed = name, "", cancel, changed

    def end(self) -> None:
        if self.cancel is not None:
            self.cancel()

    def show(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self._changed()
