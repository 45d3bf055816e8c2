"""One build as it goes, or as it went: steps with their states, what they said, how it ended (pure)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from engine import api
from engine.base.units import brief_seconds, human_size

if TYPE_CHECKING:
    from engine.api import BuildDetail, BuildEvent, PullProgress, StepInfo

State = Literal["waiting", "running", "cached", "done", "failed"]
KEPT = 50_000  # lines of output of one build that the app keeps; the history has all of them
_SLACK = 5_000


@dataclass
class Step:
    info: StepInfo
    state: State = "waiting"
    reason: str = ""
    seconds: float = 0.0
    size: int = 0
    progress: str = ""


@dataclass
class Failure:
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0


@dataclass
class Build:
    """`name` is the service's, "" for a build that the user asked for. `output` are (step's key, stream, line)."""

    name: str = ""
    number: int = 0  # in the history
    dockerfile: str = ""
    steps: dict[str, Step] = field(default_factory=dict)
    output: list[tuple[str, str, str]] = field(default_factory=list)
    dropped: int = 0  # lines that were there before the first of `output`
    failure: Failure | None = None
    seconds: float | None = None
    tags: tuple[str, ...] = ()
    reason: str = ""
    progress: str = ""
    _pulls: dict[str, PullProgress] = field(default_factory=dict)

    # --- what happens -------------------------------------------------------------------------------------------

    def feed(self, event: BuildEvent) -> None:
        match event:
            case api.BuildStarted(file, steps, number):
                self.dockerfile, self.number = file, number
                self.steps = {step.key: self.steps.get(step.key, Step(step)) for step in steps}
            case api.StepStarted(step, reason):
                found = self._step(step)
                found.state, found.reason, self.progress = "running", reason, ""
            case api.StepProgress(key, current, total) if key in self.steps:
                self.steps[key].progress = human_size(current) + (f"/{human_size(total)}" if total else "")
            case api.StepOutput(key, stream, text):
                self.say(key, stream, text)
            case api.StepFinished(step, cached, seconds, size, reason):
                found = self._step(step)
                found.state, found.progress = "cached" if cached else "done", ""
                found.seconds, found.size, found.reason = seconds, size, reason or found.reason
            case api.BuildNotice(text):
                self.say("", "note", text)
            case api.PullProgress():
                self._pulled(event)
            case api.BuildFinished(_, _, tags, seconds, _, reason):
                self.tags, self.seconds, self.reason, self.progress = tags, seconds, reason, ""

    def _step(self, info: StepInfo) -> Step:
        return self.steps.setdefault(info.key, Step(info))

    def say(self, key: str, stream: str, text: str) -> None:
        """Whole lines; of one that was written over with carriage returns, its last state."""
        for line in text.removesuffix("\n").split("\n"):
            self.output.append((key, stream, line.rstrip("\r").rsplit("\r", 1)[-1]))
        if len(self.output) > KEPT + _SLACK:
            gone = len(self.output) - KEPT
            del self.output[:gone]
            self.dropped += gone

    def _pulled(self, event: PullProgress) -> None:
        if not event.layer:
            self.progress = f"{event.reference} {event.phase}" if event.phase != "done" else ""
            return
        self._pulls[event.layer] = event
        done = sum(one.phase in ("done", "exists") for one in self._pulls.values())
        current = sum(one.current for one in self._pulls.values())
        total = sum(one.total for one in self._pulls.values())
        amount = f", {human_size(current)} of {human_size(total)}" if total else ""
        self.progress = f"↓ {event.reference}: {done} of {len(self._pulls)} layers{amount}"

    def fail(self, message: str, hint: str = "", file: str = "", line: int = 0) -> None:
        message = message.removeprefix(f"{file}:{line}: ")  # the line stands above it
        self.failure, self.progress = Failure(message, hint, file, line), ""
        for step in self.steps.values():
            if step.state == "running":
                step.state = "failed"

    @classmethod
    def of(cls, detail: BuildDetail) -> Build:
        """A build of the history."""
        record = detail.record
        made = cls(record.name, record.number, record.dockerfile, tags=record.tags, reason=record.reason)
        made.seconds = record.seconds
        for one in detail.steps:
            made.steps[one.step.key] = Step(one.step, one.state, one.reason, one.seconds, one.size)
        for line in detail.output:
            made.say(line.key, line.stream, line.text)
        if record.error:
            failed = made.failed_step
            made.failure = Failure(record.error, detail.hint, record.dockerfile, failed.info.line if failed else 0)
        return made

    # --- what is said of it ---------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        if self.failure is not None:
            return "failed"
        return "done" if self.seconds is not None else "running" if self.steps or self.progress else "waiting"

    @property
    def failed_step(self) -> Step | None:
        """The one that failed; where none ran, the one on the failing line."""
        failed = next((step for step in self.steps.values() if step.state == "failed"), None)
        if failed is None and self.failure is not None and self.failure.line:
            failed = next((step for step in self.steps.values() if step.info.line == self.failure.line), None)
        return failed

    @property
    def running_step(self) -> Step | None:
        return next((step for step in self.steps.values() if step.state == "running"), None)

    def summary(self) -> str:
        """`6 steps, 5 cached, 41 ms`."""
        states = Counter(step.state for step in self.steps.values())
        done = states["cached"] + states["done"]
        parts = [f"{done} of {len(self.steps)} steps" if done < len(self.steps) else f"{done} steps"]
        if states["cached"]:
            parts.append(f"{states['cached']} cached")
        if self.seconds is not None:
            parts.append(brief_seconds(self.seconds))
        return ", ".join(parts)

    def lines_of(self, key: str | None) -> list[tuple[str, str, str]]:
        """What a step said; None: all of them."""
        return self.output if key is None else [line for line in self.output if line[0] == key]
