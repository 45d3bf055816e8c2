"""What a change of a file would cost, said before any build: the steps, stages, images and containers that it invalidates.

Whether a step reads a path is known from what it depended on when it was last built here; where it never was, from its words.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence

from engine.build.dockerfile.ast import Add, Copy, Dockerfile, Instruction, Run, Workdir
from engine.build.dockerfile.ignore import Matcher
from engine.build.dockerfile.mounts import mount_from
from engine.build.graph import StagePlan, find_source, label, list_steps, plan_stages, references, target_index
from engine.build.reading import read_input
from engine.build.step_cache import Scope, StepCache
from engine.build.variables import expand_bases, global_args, platform_args
from engine.model import BuildRequest, StepInfo, WhyStep
from engine.oci.platform import Platform

Costs = Mapping[tuple[str, str], float]  # (stage, instruction) -> seconds when it last ran


def why(request: BuildRequest, path: str, cache: StepCache, costs: Costs) -> tuple[list[WhyStep], str]:
    """The steps that a change of `path` (relative to the context) makes run, in the Dockerfile's order; and a note when there is
    a reason that there are none. Raises `NotFound`, `DockerfileError`."""
    given = read_input(request)
    dockerfile, file = given.dockerfile, str(given.file)
    path = posixpath.normpath(path).lstrip("/")
    if given.matcher is not None and given.matcher.excluded(path):
        return [], "the ignore file excludes it: no build sees it"
    stage = request.target or dockerfile.stages[-1].name
    host = Platform.host()
    outer = global_args(dockerfile, platform_args(host, host, stage, request.build_args), request.build_args)
    bases = expand_bases(dockerfile, outer, file)
    plans = plan_stages(dockerfile, target_index(dockerfile, request.target, file), bases, file)
    finder = _Finder(dockerfile, path, cache, given.file.resolve(), costs)
    steps = {step.key: step for step in list_steps(plans)}
    for plan in plans:
        finder.stage(plan, steps)
    note = "" if finder.found else "no step of this target reads it"
    return sorted(finder.found, key=lambda found: found.step.line), note


class _Finder:
    def __init__(self, dockerfile: Dockerfile, path: str, cache: StepCache, file: object, costs: Costs) -> None:
        self._dockerfile, self._path, self._cache, self._file, self._costs = dockerfile, path, cache, file, costs
        self._stages: set[int] = set()  # whose result changes
        self.found: list[WhyStep] = []

    def stage(self, plan: StagePlan, steps: Mapping[str, StepInfo]) -> None:
        name, index = label(plan.stage), plan.stage.index
        above = plan.base_stage in self._stages if plan.base_stage is not None else False
        seen: Counter[str] = Counter()
        for number, instruction in enumerate(plan.instructions, 2):
            step = steps[f"{name}/{number}"]
            scope = Scope(self._file, name, step.key, step.instruction, seen[step.instruction])  # type: ignore[arg-type]
            seen[step.instruction] += 1
            cause = self._cause(instruction, index, scope)
            if not cause and above and isinstance(instruction, Run | Copy | Add | Workdir):
                cause = "parent step runs"
            if cause:
                above = True
                self.found.append(WhyStep(step, cause, self._costs.get((name, step.instruction))))
        if above:
            self._stages.add(index)

    def _cause(self, instruction: Instruction, index: int, scope: Scope) -> str:
        for name in references(instruction):
            numbers = isinstance(instruction, Copy | Add)
            other = find_source(self._dockerfile, name, index, numbers=numbers)
            if other is not None and other in self._stages:
                return f"reads from stage {name}"
        if not _reads_context(instruction):
            return ""
        inputs, same = self._cache.remembered(scope)
        if inputs is not None and same and _depended(inputs, self._path):
            return f"reads {self._path}"
        return f"reads {self._path}" if _named(instruction, self._path) else ""


def _reads_context(instruction: Instruction) -> bool:
    if isinstance(instruction, Copy):
        return not instruction.from_
    if isinstance(instruction, Run):
        return any("type=bind" in text or "type=" not in text for text in instruction.mounts if not mount_from(text))
    return isinstance(instruction, Add)


def _depended(inputs: Mapping[str, str], path: str) -> bool:
    for key in inputs:
        kind, _, name = key.partition(":")
        if kind == "file" and name == path:
            return True
        if kind == "tree" and (name in ("./", "/") or path.startswith(name) or path == name.rstrip("/")):
            return True
    return False


def _excluded(word: str, exclude: Sequence[str], path: str) -> bool:
    """`--exclude` speaks of the path below the source."""
    below = posixpath.normpath("/" + word).lstrip("/")
    inner = path.removeprefix(f"{below}/") if below else path
    return bool(exclude) and Matcher(exclude).excluded(inner)


def _named(instruction: Instruction, path: str) -> bool:
    """By the words of the instruction: a file that is new was in no build yet. Words with variables cannot be told."""
    if isinstance(instruction, Run):
        words: Sequence[str] = [
            field.partition("=")[2]
            for text in instruction.mounts
            for field in text.split(",")
            if field[:6] in ("source", "src=")
        ]
    elif isinstance(instruction, Copy | Add):
        words = [word for word in instruction.sources if not _excluded(word, instruction.exclude, path)]
    else:
        return False
    for word in words:
        if "$" in word or "://" in word:
            continue
        clean = posixpath.normpath("/" + word).lstrip("/")
        if clean in ("", path) or path.startswith(f"{clean}/"):
            return True
        parts = clean.split("/")
        begin = path.split("/")[: len(parts)]
        if len(begin) == len(parts) and all(fnmatch.fnmatchcase(a, b) for a, b in zip(begin, parts, strict=True)):
            return True
    return False
