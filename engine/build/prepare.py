"""Before anything is built: arguments, bases and their triggers, named contexts, and which stages are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.build.dockerfile.ast import Dockerfile, Instruction, Onbuild, Stage
from engine.build.dockerfile.parser import parse_trigger
from engine.build.graph import StagePlan, plan_stages, target_index
from engine.build.lint import LintInput, lint, options_of
from engine.build.lint_rules import LintWarning
from engine.build.origins import Contexts, Named
from engine.build.reading import Input
from engine.build.variables import (
    expand_bases,
    expand_platforms,
    global_args,
    platform_args,
    source_date_epoch,
    unused_args,
)
from engine.errors import DockerfileError, EngineError, InvalidInput
from engine.model import BuildRequest
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform
from engine.store.images import Image
from engine.store.store import Store

SCRATCH = "scratch"
REMEMBERED = 64  # what the linter said
_LINTED: dict[object, tuple[LintWarning, ...]] = {}


@dataclass(frozen=True, slots=True)
class Prepared:
    """`images` are the bases by stage index, `named` the contexts that stand in for a base or a whole stage."""

    plans: tuple[StagePlan, ...]
    outer: Mapping[str, str]
    target: Platform
    epoch: int | None
    images: Mapping[int, Image]
    named: Mapping[int, Named]
    replaced: tuple[int, ...]
    notices: tuple[str, ...] = ()
    platforms: Mapping[int, Platform] = field(default_factory=dict)  # of stages whose FROM names one


@dataclass(slots=True)
class _Bases:
    images: dict[int, Image] = field(default_factory=dict)
    named: dict[int, Named] = field(default_factory=dict)
    triggers: dict[int, list[Instruction]] = field(default_factory=dict)


def target_platforms(request: BuildRequest) -> list[Platform]:
    """Each once, in the order given; this host's when none is. Raises `InvalidInput`."""
    found: dict[Platform, Platform] = {}
    for platform in map(Platform.parse, request.platforms):
        found.setdefault(platform.normal, platform)
    return list(found.values()) or [Platform.host()]


def prepare(request: BuildRequest, given: Input, contexts: Contexts, store: Store, target: Platform) -> Prepared:
    """Pulls the bases that are needed. Raises `DockerfileError`, `InvalidInput`, and what a pull raises."""
    dockerfile, file = given.dockerfile, str(given.file)
    wanted = target_index(dockerfile, request.target, file)
    stage_name = request.target or dockerfile.stages[-1].name
    predefined = platform_args(Platform.host(), target, stage_name, request.build_args)
    try:
        outer = global_args(dockerfile, predefined, request.build_args)
    except InvalidInput as error:
        line = dockerfile.meta_args[0].line
        raise DockerfileError(error.message, file=file, line=line, source=dockerfile.lines[line - 1]) from error
    bases = expand_bases(dockerfile, outer, file)
    platforms = expand_platforms(dockerfile, outer, file)
    epoch = source_date_epoch(outer, request.build_args)
    found = _Bases()
    replaced = tuple(s.index for s in dockerfile.stages if s.name and contexts.is_named(s.name))
    while True:
        plans = plan_stages(dockerfile, wanted, bases, file, found.triggers, replaced)
        resolver = _Resolver(dockerfile, file, contexts, store, platforms, target, found, replaced, request.pull)
        if not resolver.resolve(plans):
            break
    images, named = found.images, found.named
    notices = (*_notices(request, dockerfile), *_check(request, given, predefined, target, plans, found, store))
    return Prepared(tuple(plans), outer, target, epoch, images, named, replaced, notices, platforms)


def _check(
    request: BuildRequest,
    given: Input,
    predefined: Mapping[str, str],
    target: Platform,
    plans: list[StagePlan],
    found: _Bases,
    store: Store,
) -> list[str]:
    """The linter's warnings on the stages that are built. Raises `DockerfileError` where `# check=error=true` asks for it."""
    by_name = {plan.base: found.images[plan.stage.index] for plan in plans if plan.stage.index in found.images}

    def base(name: str, platform: Platform) -> ImageConfig | None:
        image = by_name.get(name)
        return store.images.config(image) if image is not None else None

    wanted = LintInput(given.dockerfile, request.build_args, predefined, target, given.matcher, base)
    indexes = tuple(plan.stage.index for plan in plans)
    # The same Dockerfile with the same arguments on the same bases says the same: it is asked at each save.
    key = (
        given.text, tuple(request.build_args.items()), tuple(predefined.items()), target, indexes,
        given.matcher.patterns if given.matcher else (), tuple((n, i.config_digest) for n, i in by_name.items()),
    )  # fmt: skip
    warnings = _LINTED.get(key)
    if warnings is None:
        warnings = tuple(lint(wanted, indexes))
        if len(_LINTED) >= REMEMBERED:
            _LINTED.clear()
        _LINTED[key] = warnings
    if warnings and options_of(wanted).error:
        first = warnings[0]
        names = ", ".join(dict.fromkeys(warning.rule for warning in warnings))
        raise DockerfileError(
            f"lint violation found for rules: {names}: {first.message}",
            file=str(given.file),
            line=first.line,
            source=given.dockerfile.lines[first.line - 1],
            hint=first.suggestion,
        )
    return [f"{w.rule}: {w.message} (line {w.line}): {w.suggestion}" for w in warnings]


def _notices(request: BuildRequest, dockerfile: Dockerfile) -> tuple[str, ...]:
    found = []
    if syntax := dockerfile.directives.get("syntax"):
        found.append(f"# syntax={syntax}: read by this engine's own frontend")
    if unused := unused_args(dockerfile, request.build_args):
        found.append(f"no ARG takes the build arguments {', '.join(unused)}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Resolver:
    dockerfile: Dockerfile
    file: str
    contexts: Contexts
    store: Store
    platforms: Mapping[int, Platform]
    target: Platform
    found: _Bases
    replaced: tuple[int, ...]
    pull: bool

    def resolve(self, plans: list[StagePlan]) -> bool:
        """Finds the bases of `plans`; whether triggers among them may need further stages."""
        more = False
        for plan in plans:
            index = plan.stage.index
            if index in self.found.triggers:
                continue
            try:
                texts = self._base(plan)
                self.found.triggers[index] = [parse_trigger(text, plan.stage, self.file) for text in texts]
            except DockerfileError:
                raise
            except EngineError as error:
                if error.code in ("invalid", "not-found", "unsupported"):
                    raise self._located(plan.stage, error) from error
                raise
            more = more or bool(self.found.triggers[index])
        return more

    def _located(self, stage: Stage, error: EngineError) -> EngineError:
        source = self.dockerfile.lines[stage.line - 1]
        message = f"FROM {stage.base}: {error.message}"
        return DockerfileError(message, file=self.file, line=stage.line, source=source, hint=error.hint)

    def _base(self, plan: StagePlan) -> tuple[str, ...]:
        """Notes the base of a stage. Its ONBUILD triggers."""
        index, stage = plan.stage.index, plan.stage
        platform = self.platforms.get(index, self.target)
        if index in self.replaced:
            named = self.contexts.named(stage.name, platform)
            assert named is not None
            self._note(index, named)
            return ()
        if plan.base_stage is not None:
            parent = self.dockerfile.stages[plan.base_stage]
            return tuple(i.text for i in parent.instructions if isinstance(i, Onbuild))
        if plan.base == SCRATCH:
            return ()
        named = self.contexts.named(plan.base, platform)
        if named is not None:
            self._note(index, named)
            image = self.found.images.get(index)
            return self.store.images.config(image).on_build if image else ()
        image = self.contexts.image(plan.base, platform, pull=self.pull)
        self.found.images[index] = image
        return self.store.images.config(image).on_build

    def _note(self, index: int, named: Named) -> None:
        if named.image is not None:
            self.found.images[index] = named.image
        else:
            self.found.named[index] = named
