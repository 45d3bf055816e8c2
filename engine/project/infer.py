"""Which files a build only copies, told from the Dockerfile: what a sync may bring into a running container (pure).

Conservative: a path is synced when exactly one step of all that the target needs reads it, a COPY or ADD of the last stage, when no
step after that could have seen the file or put another one in its place, and when where it goes stands in the file without
variables. Of anything else the builder is asked.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Sequence
from pathlib import Path

from engine.build.dockerfile.ast import Add, Copy, Dockerfile, Instruction, Run, Volume, Workdir
from engine.build.dockerfile.ignore import Matcher
from engine.build.graph import StagePlan, plan_stages, references, target_index
from engine.model import SyncEntry


class Copies:
    """Asked with a path below the context: how it is synced; or why it is not, in words; or None when nothing reads it."""

    def __init__(self, dockerfile: Dockerfile, target: str, context: Path, file: str = "Dockerfile") -> None:
        """Raises `DockerfileError`, `InvalidInput` when the file has no such target."""
        self._context = context
        bases = {stage.index: stage.base for stage in dockerfile.stages}
        wanted = target_index(dockerfile, target, file)
        self._plans = plan_stages(dockerfile, wanted, bases, file)
        self._last = next(plan for plan in self._plans if plan.stage.index == wanted)
        self._stages = {plan.stage.index: plan for plan in self._plans}

    def __call__(self, path: str) -> SyncEntry | str | None:
        readers: list[tuple[StagePlan, int, Instruction]] = []
        for plan in self._plans:
            for number, instruction in enumerate(plan.instructions):
                reads = _reads(instruction, path)
                if reads is None:
                    return f"line {instruction.line} may read it"
                if reads:
                    readers.append((plan, number, instruction))
        if not readers:
            return None
        plan, number, step = readers[0]
        if len(readers) > 1:
            return f"lines {readers[0][2].line} and {readers[1][2].line} read it"
        if plan is not self._last or not isinstance(step, Copy | Add):
            return f"line {step.line} makes something of it"
        return self._sync(number, step, path)

    def _sync(self, number: int, step: Copy | Add, path: str) -> SyncEntry | str:
        if isinstance(step, Add) and (step.checksum or _packed(path)):
            return f"line {step.line} may unpack it"
        if isinstance(step, Copy) and step.parents:
            return f"line {step.line} copies with --parents"
        if any("$" in word for word in (step.dest, step.chown, step.chmod)):
            return f"line {step.line} has variables"
        folder = "/" if step.dest.startswith("/") else self._folder(self._last, number)
        if folder is None:
            return f"line {step.line} copies to a folder that the base image names"
        target, maybe = _target(step, path, folder)
        for later in self._last.instructions[number + 1 :]:
            if isinstance(later, Run):
                return f"line {later.line} runs after it was copied"
            if isinstance(later, Volume) and any(_meets(target, each) for each in later.paths):
                return f"line {later.line} makes a volume of its folder"
            if isinstance(later, Copy | Add):
                below = "/" if later.dest.startswith("/") else self._folder(self._last, len(self._last.instructions))
                if "$" in later.dest or below is None or _meets(target, posixpath.join(below, later.dest)):
                    return f"line {later.line} may copy over it"
        return SyncEntry(self._context / path, target, step.chown, step.chmod, maybe)

    def _folder(self, plan: StagePlan, number: int) -> str | None:
        """The working directory at an instruction; None where the base image decides."""
        parts: list[str] = []
        for instruction in reversed(plan.instructions[:number]):
            if isinstance(instruction, Workdir):
                if "$" in instruction.path:
                    return None
                parts.append(instruction.path)
                if instruction.path.startswith("/"):
                    return posixpath.normpath(posixpath.join("/", *reversed(parts)))
        if plan.base_stage is not None:
            base = self._stages[plan.base_stage]
            above = self._folder(base, len(base.instructions))
            return None if above is None else posixpath.normpath(posixpath.join(above, *reversed(parts)))
        return posixpath.join("/", *reversed(parts)) if plan.base == "scratch" else None


def _packed(path: str) -> bool:
    return path.endswith((".tgz", ".tbz", ".tbz2", ".txz", ".tar", ".gz", ".bz2", ".xz", ".zst"))


def _meets(one: str, other: str) -> bool:
    """Whether one lies in the other, either way round."""
    first, second = posixpath.normpath("/" + one), posixpath.normpath("/" + other)
    return first == second or first.startswith(second.rstrip("/") + "/") or second.startswith(first.rstrip("/") + "/")


def _reads(instruction: Instruction, path: str) -> bool | None:
    """None: it cannot be told."""
    if isinstance(instruction, Run):
        for text in instruction.mounts:
            bind = "type=" not in text or "type=bind" in text
            if bind and "from=" not in text:
                return None
        return False
    if not isinstance(instruction, Copy | Add) or references(instruction):
        return False
    for word in instruction.sources:
        if "$" in word:
            return None
        if "://" not in word and not word.startswith("git@") and _split(word, path, instruction.exclude) is not None:
            return True
    return False


def _split(word: str, path: str, exclude: Sequence[str] = ()) -> tuple[str, str] | None:
    """(what the source word names, what is below it) of a path that it takes."""
    clean = posixpath.normpath("/" + word).lstrip("/")
    parts = clean.split("/") if clean else []
    mine = path.split("/")
    if len(mine) < len(parts):
        return None
    if not all(fnmatch.fnmatchcase(a, b) for a, b in zip(mine, parts, strict=False)):
        return None
    named, rest = "/".join(mine[: len(parts)]), "/".join(mine[len(parts) :])
    if exclude and Matcher(exclude).excluded(rest or posixpath.basename(named)):
        return None
    return named, rest


def _target(step: Copy | Add, path: str, folder: str) -> tuple[str, bool]:
    """Where `path` goes, and whether that may turn out to be a folder that it goes into."""
    dest = posixpath.join(folder, step.dest)
    into = step.dest.endswith(("/", "/.")) or step.dest in (".", "..") or len(step.sources) > 1
    for word in step.sources:
        found = _split(word, path, step.exclude)
        if found is None:
            continue
        named, rest = found
        if rest:
            return posixpath.normpath(posixpath.join(dest, rest)), False
        name = posixpath.basename(named)
        if into or posixpath.normpath(dest) == folder:
            return posixpath.normpath(posixpath.join(dest, name)), False
        return posixpath.normpath(dest), True
    raise AssertionError(f"{path} is not read by {step.source}")  # the caller has asked
