"""What the bridge and the panes tell the app. Named for what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from engine.api import ContainerStats, EngineEvent, LoopEvent
    from workbench.subjects import Lists, Subject

# --- from the bridge: the app hands each to every pane, by the hook of the same meaning -------------------------


@dataclass
class LoopReported(Message):
    """`Pane.loop_event`."""

    event: LoopEvent


@dataclass
class EngineHappened(Message):
    """`Pane.engine_event`."""

    event: EngineEvent


@dataclass
class EngineListed(Message):
    """`Pane.listed`. The lists as they are now; a newer one replaces it in the queue."""

    lists: Lists

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EngineListed)


@dataclass(frozen=True, slots=True)
class Reading:
    """One container's use over the time since the reading before: 100 `cpu` is one CPU, rates are bytes a second."""

    stats: ContainerStats
    cpu: float
    received: float = 0.0
    sent: float = 0.0
    read: float = 0.0
    written: float = 0.0


@dataclass
class StatsRead(Message):
    """`Pane.stats_read`, by container name; only while a pane that WANTS_STATS is on the screen."""

    readings: Mapping[str, Reading]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, StatsRead)


@dataclass
class TroubleMet(Message):
    """Shown to the user until the next action. `text` "" takes back what was shown."""

    text: str


@dataclass
class Said(Message):
    """Worth a passing line, no trouble: what was copied and how, what was saved where."""

    text: str


# --- from panes ---------------------------------------------------------------------------------------------------


@dataclass
class Selected(Message):
    """The cursor of a pane stands on another subject (None: there is none). Panes that FOLLOW its kind get `show`."""

    pane: str
    subject: Subject | None


@dataclass
class Wanted(Message):
    """A pane asks for an action of the table in `commands`: "container.stop", on these subjects."""

    command: str
    subjects: Sequence[Subject]
