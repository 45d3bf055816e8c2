"""A container's health by Docker's rules. Pure: the monitor runs the probes and says what came of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEPT_RESULTS = 5
MAX_OUTPUT = 4096  # bytes of a probe's output
TIMED_OUT = -1  # the exit code of a probe that took too long
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """What to run and when; times in seconds. An unset value in the document (0) is Docker's default."""

    args: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    @classmethod
    def from_spec(cls, document: dict[str, Any] | None) -> Healthcheck | None:
        """Of `{"args": […], "interval": ns, "timeout": ns, "start_period": ns, "start_interval": ns, "retries": n}`."""
        if not document or not document.get("args"):
            return None

        def seconds(name: str, default: float) -> float:
            return int(document.get(name) or 0) / _SECOND or default

        return cls(
            tuple(document["args"]),
            seconds("interval", 30.0),
            seconds("timeout", 30.0),
            seconds("start_period", 0.0),
            seconds("start_interval", 5.0),
            int(document.get("retries") or 0) or 3,
        )


@dataclass(slots=True)
class Health:
    """`status` is starting, healthy or unhealthy."""

    check: Healthcheck
    status: str = "starting"
    failing_streak: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)

    def next_delay(self, running_for: float) -> float:
        """Seconds from now to the next probe."""
        if self.status == "starting" and running_for < self.check.start_period:
            return self.check.start_interval
        return self.check.interval

    def probed(self, exit_code: int, output: str, started: int, ended: int, *, running_for: float) -> bool:
        """Takes a result (times in ns since the epoch; `running_for` as the probe began). True: the status changed."""
        self.results = [
            *self.results[-KEPT_RESULTS + 1 :],
            {"start": started, "end": ended, "exit_code": exit_code, "output": output},
        ]
        before = self.status
        if exit_code == 0:
            self.failing_streak, self.status = 0, "healthy"
        elif not (self.status == "starting" and running_for < self.check.start_period):
            self.failing_streak += 1
            if self.failing_streak >= self.check.retries:
                self.status = "unhealthy"
        return self.status != before

    def stopped(self) -> None:
        """No probes for now: paused, or ended. Docker calls that unhealthy, and tells nobody."""
        self.status = "unhealthy"

    def document(self) -> dict[str, Any]:
        return {"status": self.status, "failing_streak": self.failing_streak, "log": list(self.results)}


def clip(output: bytes) -> str:
    """What is kept of a probe's output."""
    text = output[:MAX_OUTPUT].decode("utf-8", "replace")
    return text + "..." if len(output) > MAX_OUTPUT else text
