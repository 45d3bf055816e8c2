"""Builds as rows and as lines to read (pure)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engine.base.clock import rfc3339
from engine.base.units import brief_seconds, human_size
from workbench.build_model import Build, Failure, Step
from workbench.highlight import spans_of
from workbench.state import AMBER, DIM, GREEN, RED, neutral
from workbench.table import Column
from workbench.widgets.lines_view import TextLine

if TYPE_CHECKING:
    from engine.api import BuildDetail, WhyReport

GLYPHS = {"waiting": "◌", "running": "◐", "cached": "·", "done": "✓", "failed": "✗"}
_COLOURS = {"waiting": DIM, "running": AMBER, "cached": DIM, "done": GREEN, "failed": RED}
STEPS = (
    Column(styles={GLYPHS[state]: colour for state, colour in _COLOURS.items()}),
    Column(title="STEP", drop=30, styles={"": DIM}),
    Column(grow=True, title="INSTRUCTION"),
    Column(title="STATE", styles=_COLOURS),
    Column(right=True, title="TIME", drop=20),
    Column(right=True, title="SIZE", drop=40),
    Column(title="WHY", drop=25, cap=50, styles={"": DIM}),
)
_STREAMS = {"stderr": "warning", "note": "accent"}
_QUOTED = re.compile(r" *\d+ \| | {6}> ")  # as `BuildFailed` has them
_BEFORE_FAILURE = 200  # lines of the failed step's output that stand below its message
_LAST_SAID = 3  # of them that stand right under the message


def build_cells(build: Build, *, several: bool) -> tuple[str, ...]:
    """The row of a build itself, above those of its steps."""
    name = build.name if several or build.name else "build"
    words = build.summary() if build.steps else ""
    why = build.failure.message.splitlines()[0] if build.failure else build.progress or build.reason
    took = brief_seconds(build.seconds) if build.seconds is not None else ""
    title = f"{neutral(name)}{f' #{build.number}' if build.number else ''}  {words}"
    return GLYPHS[build.state], "", title, build.state, took, "", neutral(why)


def step_cells(step: Step) -> tuple[str, ...]:
    info = step.info
    took = brief_seconds(step.seconds) if step.state in ("done", "failed") and step.seconds else ""
    stage = "" if info.stage.isdigit() or info.stage.startswith("stage-") else f"{neutral(info.stage)} "
    return (
        GLYPHS[step.state],
        f"{stage}{info.number}/{info.total}",
        neutral(" ".join(info.instruction.split())),
        step.state,
        step.progress or took,
        human_size(step.size) if step.size else "",
        neutral(step.reason),
    )


# --- what is read below the steps -------------------------------------------------------------------------------------


def output_lines(lines: Iterable[tuple[str, str, str]]) -> list[TextLine]:
    return [TextLine(neutral(text), _STREAMS.get(stream, ""), key=key) for key, stream, text in lines]


def build_document(build: Build) -> list[TextLine]:
    """Everything that a build said, by step, and how it ended."""
    found: list[TextLine] = []
    if build.dropped:
        found.append(
            TextLine(f"… {build.dropped:,} lines before these: `workbench builds logs {build.number}` has them", "dim")
        )
    current = ""
    for key, stream, text in build.output:
        if key != current and key in build.steps:
            current = key
            found.append(_title(build.steps[key]))
        found.append(TextLine(neutral(text), _STREAMS.get(stream, ""), key=key))
    if build.failure is not None:
        found += message_lines(build.failure)
    elif build.seconds is not None:
        found.append(TextLine(f"✓ {', '.join(map(neutral, build.tags)) or 'image'}: {build.summary()}", "success"))
    return found


def _title(step: Step) -> TextLine:
    info = step.info
    words = neutral(" ".join(info.instruction.split()))
    return TextLine(f"[{neutral(info.stage)} {info.number}/{info.total}] {words}", "bold", key=info.key)


def step_document(build: Build, step: Step) -> list[TextLine]:
    """One step: what it is, why it ran, what it said."""
    found = [TextLine(neutral(row), "bold") for row in step.info.instruction.split("\n")]
    facts = [f"line {step.info.line}" if step.info.line else "", step.state]
    if step.state == "done":
        facts.append(brief_seconds(step.seconds))
    if step.size:
        facts.append(human_size(step.size))
    if step.reason:
        facts.append(neutral(step.reason))
    found.append(TextLine(" · ".join(filter(None, facts)), "dim"))
    return found + output_lines(build.lines_of(step.info.key))


def message_lines(failure: Failure, *, quoted: bool = True, said: Sequence[TextLine] = ()) -> list[TextLine]:
    """Not `quoted`: without the lines of the Dockerfile and of output that it repeats. `said` comes before the hint."""
    rows = [row for row in failure.message.split("\n") if quoted or not _QUOTED.match(row)]
    found = [TextLine(("✗ " if not number else "  ") + neutral(row), "error") for number, row in enumerate(rows)]  # fmt: skip
    found += said
    if failure.hint:
        found += [TextLine(f"  hint: {neutral(row)}", "accent") for row in failure.hint.split("\n")]
    return found


def failure_document(build: Build, dockerfile: str) -> tuple[list[TextLine], int]:
    """The Dockerfile with the failing line marked and the message under it, then what the step said last; and where the mark is."""
    failure = build.failure
    assert failure is not None  # asked only of a build that failed
    found: list[TextLine] = []
    at = 0
    said = output_lines(build.lines_of(build.failed_step.info.key)[-_BEFORE_FAILURE:]) if build.failed_step else []
    last = [TextLine(f"  {line.text}", line.style) for line in said[-_LAST_SAID:]]
    rows = dockerfile.split("\n") if dockerfile and failure.line else []
    if rows and not rows[-1]:
        rows.pop()
    spans = spans_of("Dockerfile")
    end = _end_of(rows, failure.line)
    for number, row in enumerate(rows, 1):
        if failure.line <= number <= end:
            at = len(found) if number == failure.line else at
            found.append(TextLine(neutral(row), "error", f"✗ {number}", key="failed"))
        else:
            found.append(TextLine(neutral(row), "", str(number), spans(neutral(row))))
        if number == end:
            found += message_lines(failure, quoted=False, said=last)
    if not rows:
        if failure.file:
            found.append(
                TextLine(f"{os.path.basename(failure.file)}{f':{failure.line}' if failure.line else ''}", "bold")
            )
        found += message_lines(failure, quoted=not last, said=last)
    if len(said) > _LAST_SAID:
        found += [TextLine(""), TextLine("what the step said last", "dim"), *said]
    return found, at


def _end_of(rows: Sequence[str], line: int) -> int:
    """The last line of the instruction that begins at `line`: it goes on behind a backslash."""
    end = line
    while 0 < end < len(rows) and rows[end - 1].rstrip().endswith("\\"):
        end += 1
    return end


def detail_lines(detail: BuildDetail) -> list[TextLine]:
    """One build of the history: what was asked, each step with reason and time, how it ended. The key of a step's line is the step's."""
    record, build = detail.record, Build.of(detail)
    colour = {"done": "success", "failed": "error"}.get(record.status, "warning")
    found = [
        TextLine(f"build {record.number}: {record.status} in {brief_seconds(record.seconds)}", colour),
        TextLine(f"begun    {rfc3339(record.started)[:19].replace('T', ' ')} UTC", "dim"),
        TextLine(f"file     {neutral(record.dockerfile)}{f' (target {neutral(record.target)})' if record.target else ''}", "dim"),
        TextLine(f"context  {neutral(record.context)}", "dim"),
    ]  # fmt: skip
    if detail.args:
        found.append(TextLine(f"args     {neutral(' '.join(f'{name}={value}' for name, value in detail.args.items()))}", "dim"))  # fmt: skip
    if record.image_id:
        found.append(TextLine(f"image    {record.image_id[7:19]}  {neutral(', '.join(record.tags))}", "dim"))
    if record.steps:
        found.append(TextLine(f"cache    {record.cached} of {record.steps} steps, {record.cache_share:.0%}", "dim"))
    found.append(TextLine(""))
    for step in build.steps.values():
        cells = step_cells(step)
        why = f"   {cells[6]}" if cells[6] else ""
        text = f"{cells[0]} {cells[1]:<8} {cells[3]:<8}{cells[4]:>8}{cells[5]:>9}  {cells[2]}{why}"
        colours = {"failed": "error", "done": "success", "cached": "dim", "waiting": "dim"}
        found.append(TextLine(text, colours.get(step.state, ""), key=step.info.key))
    if build.failure is not None:
        found += [TextLine(""), *message_lines(build.failure)]
    return found


def why_lines(reports: Sequence[WhyReport]) -> list[TextLine]:
    """What a change would make run."""
    found: list[TextLine] = []
    for report in reports:
        if not report.steps:
            found.append(TextLine(f"{neutral(report.path)}: nothing would run ({neutral(report.note)})", "success"))
            continue
        count = len(report.steps)
        found.append(TextLine(f"{neutral(report.path)}: {count} step{'s' if count > 1 else ''} would run, {brief_seconds(report.seconds)} last time", "bold"))  # fmt: skip
        for one in report.steps:
            took = brief_seconds(one.seconds) if one.seconds is not None else "never ran"
            words = neutral(" ".join(one.step.instruction.split()))
            found.append(TextLine(f"{took:>10}  {words}   ({neutral(one.cause)})", gutter=str(one.step.line)))
        for name, values in (("stages", report.stages), ("images", report.images), ("containers", report.containers)):
            if values:
                found.append(TextLine(f"{name}: {neutral(', '.join(values))}", "dim"))
    return found
