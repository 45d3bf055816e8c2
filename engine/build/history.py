"""The history of builds: one file a build, `builds/<number>.jsonl`, written while it runs.

The first line says what was asked, the following ones what happened, the last one how it ended. The writer holds a lock on the
file (flock(2)), so a file without a last line is a build that runs, or one whose process was killed: whoever can take the
lock knows which. Nothing is fsynced: a power cut may cost the history's last lines and costs no build 10 ms.
The oldest go when the folder outgrows its budget.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from engine.build.reading import dockerfile_name
from engine.errors import Cancelled, NotFound
from engine.model import (
    BuildDetail,
    BuildEvent,
    BuildFinished,
    BuildNotice,
    BuildOutputLine,
    BuildRecord,
    BuildRequest,
    BuildStarted,
    BuildStatus,
    BuildStepRecord,
    StepFinished,
    StepInfo,
    StepOutput,
    StepStarted,
)

BUDGET_BYTES = 256 << 20
BUDGET_BUILDS = 1000
OUTPUT_LIMIT = 32 << 20  # bytes of output kept of one build
PRUNE_EVERY = 16  # builds between two looks at the budget
FLUSH_SECONDS = 0.2
TAIL = 16384  # the last line is at most this long: its texts are cut to fit
_SUFFIX = ".jsonl"


class Recorder:
    """Writes one build's file. `feed` may be called from several threads; `finish` ends it."""

    def __init__(self, file: TextIO, number: int, request: BuildRequest) -> None:
        self._file, self.number = file, number
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._flushed = 0.0
        self._output = 0
        self._steps = self._cached = 0
        self._result: BuildFinished | None = None
        self._write(
            {
                "started": time.time_ns(),
                "context": request.remote.rpartition("@")[2] or str(request.context),
                "dockerfile": str(dockerfile_name(request)),
                "target": request.target,
                "tags": list(request.tags),
                "args": dict(request.build_args),
            }
        )
        self._file.flush()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def feed(self, event: BuildEvent) -> None:
        with self._lock:
            now = time.monotonic() - self._started
            line = self._line(event)
            if line is None:
                return
            self._write({"at": round(now, 4), **line})
            if now - self._flushed > FLUSH_SECONDS:
                self._flushed = now
                self._file.flush()

    def _line(self, event: BuildEvent) -> dict[str, Any] | None:
        match event:
            case BuildStarted(_, steps):
                return {"steps": [[s.key, s.stage, s.number, s.total, s.instruction, s.line] for s in steps]}
            case StepStarted(step, reason):
                return {"start": step.key, "reason": reason}
            case StepOutput(key, stream, text):
                return self._output_line(key, stream, text)
            case StepFinished(step, cached, seconds, size, reason):
                self._steps += 1
                self._cached += cached
                return {"end": step.key, "cached": cached, "seconds": seconds, "size": size, "reason": reason}
            case BuildNotice(text):
                return {"out": "", "stream": "note", "text": text}
            case BuildFinished():
                self._result = event
        return None

    def _output_line(self, key: str, stream: str, text: str) -> dict[str, Any] | None:
        before, self._output = self._output, self._output + len(text)
        if self._output <= OUTPUT_LIMIT:
            return {"out": key, "stream": stream, "text": text}
        return {"truncated": True} if before <= OUTPUT_LIMIT else None

    def finish(self, error: BaseException | None = None) -> None:
        """Writes how it ended and lets go of the file."""
        with self._lock:
            line: dict[str, Any] = {"seconds": time.monotonic() - self._started, "total": self._steps}
            line |= {"cached": self._cached, "status": _status(error)}
            if self._result and error is None:
                line |= {
                    "image": self._result.image_id,
                    "digest": self._result.digest,
                    "result_tags": list(self._result.tags),
                    "why": self._result.reason,
                }
            if error is not None:
                line["error"] = (str(error) or type(error).__name__)[: TAIL // 8]
                line["hint"] = str(getattr(error, "hint", None) or "")[: TAIL // 16]
            with contextlib.suppress(OSError, ValueError), self._file:  # a full disk must not hide the build's own end
                self._write(line)


def _status(error: BaseException | None) -> BuildStatus:
    if error is None:
        return "done"
    return "cancelled" if isinstance(error, Cancelled | KeyboardInterrupt) else "failed"


class History:
    """The folder of builds. `budget` in bytes; at most `count` builds are kept."""

    def __init__(self, folder: Path, *, budget: int = BUDGET_BYTES, count: int = BUDGET_BUILDS) -> None:
        self._folder, self._budget, self._count = folder, budget, count
        self._last = 0  # the highest number that is known to be taken

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(int(n[: -len(_SUFFIX)]) for n in names if n.endswith(_SUFFIX) and n[: -len(_SUFFIX)].isdigit())

    def path(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"

    def begin(self, request: BuildRequest) -> Recorder:
        """A new build's file under the next number."""
        if not self._last:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._last = max(self._numbers(), default=0)
        while True:
            number = max(self._last, self._last_removed()) + 1
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = os.open(f"{self._folder}/{number}{_SUFFIX}", flags, 0o600)
                break
            except FileExistsError:  # another process's, or another thread's
                self._last = max(self._numbers(), default=number)
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, exist_ok=True)
        self._last = number
        fcntl.flock(fd, fcntl.LOCK_EX)
        if number % min(PRUNE_EVERY, max(1, self._count // 8)) == 0:
            self._prune(self._numbers())
        return Recorder(os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape"), number, request)

    def _prune(self, numbers: Sequence[int]) -> None:
        """Removes the oldest until count and bytes fit; never the newest, which is being written."""
        sizes = {number: self.path(number).stat().st_size for number in numbers if self.path(number).exists()}
        total = sum(sizes.values())
        kept = len(sizes)
        for number in sorted(sizes)[:-1]:
            if total <= self._budget and kept <= self._count:
                return
            self.path(number).unlink(missing_ok=True)
            total, kept = total - sizes[number], kept - 1

    # --- reading --------------------------------------------------------------------------------------

    def records(self, *, search: str = "", limit: int | None = None) -> list[BuildRecord]:
        """Newest first. `search` is looked for in everything that was recorded, output included; letter case is ignored."""
        needle = json.dumps(search, ensure_ascii=False)[1:-1].lower().encode() if search else b""
        found: list[BuildRecord] = []
        for number in reversed(self._numbers()):
            if limit is not None and len(found) >= limit:
                break
            try:
                if needle and needle not in self.path(number).read_bytes().lower():
                    continue
                found.append(self._record(number))
            except (FileNotFoundError, NotFound):
                continue  # removed while we looked
        return found

    def _record(self, number: int) -> BuildRecord:
        with open(self.path(number), "rb") as file:
            head = _parse(file.readline())
            start = file.tell()
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL))
            last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
            return _as_record(number, head, self._footer(file.fileno(), _parse(last)))

    def _footer(self, fd: int, last: dict[str, Any]) -> dict[str, Any]:
        if "status" in last:
            return last
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return {"status": "running"}
        return {"status": "interrupted", "seconds": last.get("at", 0.0)}

    def detail(self, number: int) -> BuildDetail:
        """Everything that is known of a build. Raises `NotFound`."""
        try:
            file = open(self.path(number), "rb")  # noqa: SIM115 closed below
        except FileNotFoundError:
            raise NotFound(f"no such build: {number}", hint="`workbench builds` lists them") from None
        with file:
            head = _parse(file.readline())
            lines = [_parse(line) for line in file]
            footer = self._footer(file.fileno(), lines[-1] if lines else {})
        return _as_detail(number, head, lines, footer)

    def remove(self, number: int) -> None:
        """Raises `NotFound`. Its number is not given again."""
        try:
            self.path(number).unlink()
        except FileNotFoundError:
            raise NotFound(f"no such build: {number}", hint="`workbench builds` lists them") from None
        if number > self._last_removed():
            (self._folder / "removed").write_text(str(number))

    def _last_removed(self) -> int:
        try:
            return int((self._folder / "removed").read_text() or "0")
        except (OSError, ValueError):
            return 0

    @contextlib.contextmanager
    def recording(self, request: BuildRequest) -> Iterator[Recorder]:
        """A recorder that is finished with the exception that leaves the block, if any."""
        recorder = self.begin(request)
        try:
            yield recorder
        except BaseException as error:
            recorder.finish(error)
            raise
        recorder.finish()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}  # half a line: the process was killed while it wrote
    return found if isinstance(found, dict) else {}


def _as_record(number: int, head: dict[str, Any], footer: dict[str, Any]) -> BuildRecord:
    if not head:
        raise NotFound(f"build {number} left no record")
    tags = tuple(footer.get("result_tags") or head["tags"])
    status = footer["status"]
    seconds = footer.get("seconds")
    return BuildRecord(
        number=number,
        status=status,
        started=head["started"],
        seconds=seconds if seconds is not None else (time.time_ns() - head["started"]) / 1e9,
        name=tags[0] if tags else Path(head["context"]).name or head["context"],
        context=head["context"],
        dockerfile=head["dockerfile"],
        target=head["target"],
        tags=tags,
        image_id=footer.get("image", ""),
        digest=footer.get("digest", ""),
        steps=footer.get("total", 0),
        cached=footer.get("cached", 0),
        reason=footer.get("why", ""),
        error=footer.get("error", ""),
    )


def _as_detail(
    number: int, head: dict[str, Any], lines: Sequence[dict[str, Any]], footer: dict[str, Any]
) -> BuildDetail:
    steps, output = _replay(lines)
    record = _as_record(number, head, footer)
    if record.status in ("failed", "cancelled", "interrupted"):
        steps = {key: _stopped(step, record.seconds) for key, step in steps.items()}
    if not record.steps:
        done = [step for step in steps.values() if step.state in ("cached", "done")]
        record = replace(record, steps=len(done), cached=sum(step.state == "cached" for step in done))
    return BuildDetail(
        record,
        tuple(steps.values()),
        tuple(output),
        head.get("args", {}),
        footer.get("hint", ""),
        any("truncated" in line for line in lines),
    )


def _replay(lines: Sequence[dict[str, Any]]) -> tuple[dict[str, BuildStepRecord], list[BuildOutputLine]]:
    steps: dict[str, BuildStepRecord] = {}
    output: list[BuildOutputLine] = []
    for line in lines:
        at = line.get("at", 0.0)
        if "steps" in line:
            steps |= {fields[0]: BuildStepRecord(StepInfo(*fields), "waiting") for fields in line["steps"]}
        elif line.get("start") in steps:
            key = line["start"]
            steps[key] = BuildStepRecord(steps[key].step, "running", at, reason=line.get("reason", ""))
        elif line.get("end") in steps:
            key = line["end"]
            begun = steps[key].at if steps[key].state == "running" else at
            steps[key] = BuildStepRecord(
                steps[key].step,
                "cached" if line["cached"] else "done",
                begun,
                line["seconds"],
                line["size"],
                line["reason"],
            )
        elif "out" in line:
            output.append(BuildOutputLine(line["out"], line["stream"], line["text"], at))
    return steps, output


def _stopped(step: BuildStepRecord, seconds: float) -> BuildStepRecord:
    """A step that ran when its build ended badly: it is the one that failed, or was cut off."""
    if step.state != "running":
        return step
    return replace(step, state="failed", seconds=max(0.0, seconds - step.at))
