"""Which stages the target needs, in an order in which each finds what it copies from (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.build.dockerfile.ast import Add, Copy, Dockerfile, Instruction, Run, Stage
from engine.build.dockerfile.mounts import mount_from
from engine.build.dockerfile.words import expand
from engine.errors import DockerfileError, InvalidInput
from engine.model import StepInfo


@dataclass(frozen=True, slots=True)
class StagePlan:
    """`base_stage` is the index of the stage it continues, or None when `base` names an image (or "scratch").

    `instructions` are the base's ONBUILD triggers, then the stage's own.
    """

    stage: Stage
    base: str
    base_stage: int | None
    instructions: tuple[Instruction, ...]
    triggers: int = 0


def label(stage: Stage) -> str:
    return stage.name or f"stage-{stage.index}"


def references(instruction: Instruction) -> list[str]:
    """The stages, images and named contexts that an instruction reads from."""
    if isinstance(instruction, Copy) and instruction.from_:
        return [instruction.from_]
    if isinstance(instruction, Run):
        return [name for name in map(mount_from, instruction.mounts) if name]
    return []


def find_base(dockerfile: Dockerfile, name: str, before: int) -> int | None:
    """The stage that a FROM of stage `before` continues: the last one above it of exactly that name."""
    found = [stage.index for stage in dockerfile.stages[:before] if stage.name and stage.name == name]
    return found[-1] if found else None


def find_source(dockerfile: Dockerfile, name: str, at: int, *, numbers: bool) -> int | None:
    """The stage that `name` means to an instruction of stage `at`; None when it is an image. Raises `InvalidInput`.

    Letter case does not count. A number (of COPY --from only) is a stage's place in the file.
    """
    wanted: int | None = None
    if numbers and name.isascii() and name.isdigit():
        wanted = int(name[:6])
        if wanted >= len(dockerfile.stages):
            raise InvalidInput(f"invalid stage index {name}", hint=f"the file has {len(dockerfile.stages)} stages")
    else:
        named = [stage.index for stage in dockerfile.stages if stage.name and stage.name == name.lower()]
        earlier = [index for index in named if index < at]
        wanted = earlier[-1] if earlier else named[0] if named else None
    if wanted is not None and wanted >= at:
        what = "itself" if wanted == at else f"stage {name!r}, which is further down"
        raise InvalidInput(
            f"stage {label(dockerfile.stages[at])} cannot read from {what}", hint="a stage reads from stages above it"
        )
    return wanted


def check_from(name: str, escape: str) -> None:
    """`--from` takes no variables. Raises `InvalidInput`."""
    if expand(name, {}, escape) != name:
        raise InvalidInput(
            f"variable expansion is not supported for --from={name}",
            hint="define a stage for it: FROM $IMAGE AS name, with the ARG before the first FROM",
        )


def target_index(dockerfile: Dockerfile, target: str, file: str) -> int:
    """The last stage, or the one that `--target` names (letter case does not count)."""
    if not target:
        return dockerfile.stages[-1].index
    for stage in reversed(dockerfile.stages):
        if stage.name == target.lower() or f"stage-{stage.index}" == target.lower():
            return stage.index
    if target.isascii() and target.isdigit() and int(target[:6]) < len(dockerfile.stages):
        return int(target)
    names = ", ".join(label(stage) for stage in dockerfile.stages)
    raise InvalidInput(f"{file} has no stage {target!r}", hint=f"its stages are: {names}")


def plan_stages(
    dockerfile: Dockerfile,
    wanted: int,
    bases: Mapping[int, str],
    file: str,
    triggers: Mapping[int, Sequence[Instruction]] | None = None,
    replaced: Sequence[int] = (),
) -> list[StagePlan]:
    """The closure of stage `wanted`, dependencies first. `bases` are the expanded FROM words by stage index,
    `replaced` the stages that a named context stands in for: they need nothing. Raises `DockerfileError`.
    """
    order: list[StagePlan] = []
    seen: set[int] = set()

    def visit(index: int) -> None:
        if index in seen:
            return
        seen.add(index)
        stage = dockerfile.stages[index]
        if index in replaced:
            order.append(StagePlan(stage, bases[index], None, ()))
            return
        base_stage = find_base(dockerfile, bases[index], index)
        inherited = tuple((triggers or {}).get(index, ()))
        instructions = (*inherited, *stage.instructions)
        if base_stage is not None:
            visit(base_stage)
        for instruction in instructions:
            for other in _stages(dockerfile, instruction, index, file):
                visit(other)
        order.append(StagePlan(stage, bases[index], base_stage, instructions, len(inherited)))

    visit(wanted)
    return order


def _stages(dockerfile: Dockerfile, instruction: Instruction, index: int, file: str) -> list[int]:
    numbers = isinstance(instruction, Copy | Add)
    try:
        if isinstance(instruction, Copy) and instruction.from_:
            check_from(instruction.from_, dockerfile.escape)
        found = (find_source(dockerfile, name, index, numbers=numbers) for name in references(instruction))
        return [other for other in found if other is not None]
    except InvalidInput as error:
        raise DockerfileError(
            f"{instruction.source}: {error.message}",
            file=file,
            line=instruction.line,
            source=dockerfile.lines[instruction.line - 1],
            hint=error.hint,
        ) from error


def list_steps(plans: Sequence[StagePlan]) -> list[StepInfo]:
    """Every instruction of the plan as a step; FROM is step 1 of its stage."""
    steps = []
    for plan in plans:
        stage = plan.stage
        total = 1 + len(plan.instructions)
        texts = [(f"FROM {plan.base}" + (f" AS {stage.name}" if stage.name else ""), stage.line)]
        texts += [
            ("ONBUILD " * (number < plan.triggers) + instruction.source, instruction.line)
            for number, instruction in enumerate(plan.instructions)
        ]
        steps += [
            StepInfo(f"{label(stage)}/{number}", label(stage), number, total, text, line)
            for number, (text, line) in enumerate(texts, 1)
        ]
    return steps
