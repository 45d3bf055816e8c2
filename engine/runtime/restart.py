"""Restart policies with Docker's timing: 100 ms, doubled each time up to a minute; a run of 10 s starts over. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_FIRST, _LONGEST, _GOOD_RUN = 0.1, 60.0, 10.0  # seconds


@dataclass(slots=True)
class RestartPolicy:
    """`name` is no, on-failure, always or unless-stopped; `maximum` bounds on-failure (0: no bound)."""

    name: str = "no"
    maximum: int = 0
    _delay: float = 0.0

    @classmethod
    def from_spec(cls, document: dict[str, Any]) -> RestartPolicy:
        return cls(str(document.get("name") or "no"), int(document.get("maximum_retry_count") or 0))

    def after(self, exit_code: int, ran: float, restarts: int, *, by_hand: bool) -> float | None:
        """Seconds to wait before the next start, None: stay ended. `ran` is how long it ran, in seconds; `by_hand`: a user
        has stopped it, which no policy undoes while the engine's own records live on."""
        if by_hand or not self.wants(exit_code, restarts):
            return None
        if ran >= _GOOD_RUN:
            self._delay = 0.0
        self._delay = min(self._delay * 2, _LONGEST) if self._delay else _FIRST
        return self._delay

    def change(self, document: dict[str, Any]) -> None:
        """To another policy while the container runs. The back-off goes on where it was."""
        other = RestartPolicy.from_spec(document)
        self.name, self.maximum = other.name, other.maximum

    def wants(self, exit_code: int, restarts: int) -> bool:
        if self.name == "on-failure":
            return exit_code != 0 and (not self.maximum or restarts < self.maximum)
        return self.name in ("always", "unless-stopped")


def on_boot(name: str, *, by_hand: bool) -> bool:
    """Whether the first engine after a (re)boot brings a container with this policy back, however it had ended."""
    return name == "always" or (name == "unless-stopped" and not by_hand)
