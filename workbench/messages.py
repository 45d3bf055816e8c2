"""What the bridge tells the app. Named for what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.message import Message

from engine.api import ContainerSummary, ImageDetail, ImageSummary, LogLine, LoopEvent


@dataclass
class LoopReported(Message):
    event: LoopEvent


@dataclass
class EngineListed(Message):
    """The lists as they are now; a newer one replaces it in the queue."""

    images: Sequence[ImageSummary]
    containers: Sequence[ContainerSummary]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EngineListed)


@dataclass
class ImageRead(Message):
    detail: ImageDetail


@dataclass
class LogArrived(Message):
    container: str
    lines: list[LogLine]


@dataclass
class TroubleMet(Message):
    text: str
