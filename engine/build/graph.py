"""Which stages the target needs, in an order in which each finds what it copies from (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.build.dockerfile.ast import Add, Copy, Dockerfile, Stage
from engine.errors import DockerfileError, InvalidInput
from engine.model import StepInfo


@dataclass(frozen=True, slots=True)
class StagePlan:
    """`base_stage` is the index of the stage it continues, or None when `base` names an image (or "scratch")."""

    stage: Stage
    base: str
    base_stage: int | None


def label(stage: Stage) -> str:
    return stage.name or f"stage-{stage.index}"


def _from(instruction: Copy | Add) -> str:
    return instruction.from_ if isinstance(instruction, Copy) else ""


def stage_index(dockerfile: Dockerfile, name: str, before: int) -> int | None:
    """The stage that `name` (or its number) means to an instruction of stage `before`; None when it is an image."""
    for stage in reversed(dockerfile.stages[:before]):
        if stage.name and stage.name == name.lower():
            return stage.index
    if name.isascii() and name.isdigit() and int(name) < before:
        return int(name)
    return None


def plan_stages(dockerfile: Dockerfile, target: str, bases: Mapping[int, str], file: str) -> list[StagePlan]:
    """The target's closure, dependencies first. `bases` are the expanded FROM words by stage index."""
    if not dockerfile.stages:
        raise DockerfileError("no build stage: a Dockerfile needs a FROM instruction", file=file, line=1)
    wanted = dockerfile.stages[-1].index
    if target:
        found = stage_index(dockerfile, target, len(dockerfile.stages))
        if found is None:
            names = ", ".join(label(stage) for stage in dockerfile.stages)
            raise InvalidInput(f"{file} has no stage {target!r}", hint=f"its stages are: {names}")
        wanted = found
    order: list[StagePlan] = []
    seen: set[int] = set()

    def visit(index: int) -> None:
        if index in seen:
            return
        seen.add(index)
        stage = dockerfile.stages[index]
        base_stage = stage_index(dockerfile, bases[index], index)
        needs = [base_stage] if base_stage is not None else []
        for instruction in stage.instructions:
            if isinstance(instruction, Copy | Add) and _from(instruction):
                other = stage_index(dockerfile, _from(instruction), index)
                if other is not None:
                    needs.append(other)
        for need in needs:
            visit(need)
        order.append(StagePlan(stage, bases[index], base_stage))

    visit(wanted)
    return order


def list_steps(plans: Sequence[StagePlan]) -> list[StepInfo]:
    """Every instruction of the plan as a step; FROM is step 1 of its stage."""
    steps = []
    for plan in plans:
        stage = plan.stage
        total = 1 + len(stage.instructions)
        texts = [(f"FROM {plan.base}" + (f" AS {stage.name}" if stage.name else ""), stage.line)]
        texts += [(instruction.source, instruction.line) for instruction in stage.instructions]
        steps += [
            StepInfo(f"{label(stage)}/{number}", label(stage), number, total, text, line)
            for number, (text, line) in enumerate(texts, 1)
        ]
    return steps
