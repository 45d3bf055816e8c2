"""What a Dockerfile offers, without building it: its targets, and the arguments, secrets and agents that a target asks for (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.build.dockerfile.ast import Arg, Dockerfile, Run
from engine.build.dockerfile.words import expand
from engine.build.graph import label, plan_stages, target_index


@dataclass(frozen=True, slots=True)
class TargetLine:
    """A stage that `--target` may name. `default` marks the one that is built without it."""

    name: str
    description: str
    base: str
    default: bool
    line: int


@dataclass(frozen=True, slots=True)
class ArgLine:
    name: str
    value: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Outline:
    """`secrets` and `ssh` map an id to whether the build needs it."""

    target: str
    description: str
    args: tuple[ArgLine, ...]
    secrets: Mapping[str, bool]
    ssh: Mapping[str, bool]


def targets(dockerfile: Dockerfile) -> list[TargetLine]:
    return [
        TargetLine(
            stage.name or str(stage.index),
            _comment(dockerfile, stage.line, stage.name or ""),
            stage.base,
            stage is dockerfile.stages[-1],
            stage.line,
        )
        for stage in dockerfile.stages
    ]


def outline(dockerfile: Dockerfile, target: str, build_args: Mapping[str, str], file: str) -> Outline:
    """What building `target` would use. Raises `DockerfileError`, `InvalidInput`."""
    scope: dict[str, str] = {}
    for arg in dockerfile.meta_args:
        for name, default in arg.pairs:
            scope[name] = build_args.get(name, expand(default or "", scope, dockerfile.escape))
    bases = {stage.index: expand(stage.base, scope, dockerfile.escape) for stage in dockerfile.stages}
    plans = plan_stages(dockerfile, target_index(dockerfile, target, file), bases, file)
    stage = plans[-1].stage
    args: dict[str, ArgLine] = {}
    for arg in dockerfile.meta_args:
        _add(args, arg, dockerfile, build_args)
    secrets: dict[str, bool] = {}
    ssh: dict[str, bool] = {}
    for plan in plans:
        for instruction in plan.stage.instructions:
            if isinstance(instruction, Arg):
                _add(args, instruction, dockerfile, build_args)
            elif isinstance(instruction, Run):
                for mount in _mounts(instruction):
                    kind, identity, required = mount
                    known = secrets if kind == "secret" else ssh
                    known[identity] = known.get(identity, False) or required
    name = stage.name or label(stage)
    return Outline(name, _comment(dockerfile, stage.line, stage.name or ""), tuple(args.values()), secrets, ssh)


def _add(args: dict[str, ArgLine], arg: Arg, dockerfile: Dockerfile, given: Mapping[str, str]) -> None:
    for name, default in arg.pairs:
        known = args.get(name)
        value = given.get(name, default if default is not None else known.value if known else None)
        args[name] = ArgLine(name, value, _comment(dockerfile, arg.line, name) or (known.description if known else ""))


def _comment(dockerfile: Dockerfile, line: int, name: str) -> str:
    """The comment right above an instruction, when it begins with the thing's name (Dockerfile reference, "outline")."""
    if not name or line < 2:
        return ""
    above = dockerfile.lines[line - 2].strip() if line - 2 < len(dockerfile.lines) else ""
    text = above.lstrip("#").strip() if above.startswith("#") else ""
    first, _, rest = text.partition(" ")
    return rest.strip() if first.lower() == name.lower() else ""


def _mounts(run: Run) -> Sequence[tuple[str, str, bool]]:
    """`--mount=type=secret|ssh` of a RUN: kind, id, whether it is required."""
    found = []
    for text in run.mounts:
        fields = dict(part.partition("=")[::2] for part in str(text).split(","))
        kind = fields.get("type", "bind")
        if kind in ("secret", "ssh"):
            target = fields.get("target") or fields.get("dst") or fields.get("destination") or ""
            identity = fields.get("id") or (target.rpartition("/")[2] if kind == "secret" else "default")
            found.append((kind, identity, fields.get("required", "false") in ("", "true")))
    return found
