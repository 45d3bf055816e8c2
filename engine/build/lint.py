"""`build --check`: the 22 rules of Docker's linter on a parsed Dockerfile (pure; a base image's config is asked for).

The order and the texts are those of BuildKit's frontend; each warning has the lines it speaks of and says what to write instead.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.build.dockerfile.ast import (
    Add,
    Arg,
    Cmd,
    Copy,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Run,
    Shell,
    Stage,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from engine.build.dockerfile.ignore import Matcher
from engine.build.dockerfile.words import expand, process
from engine.build.fetch import is_http
from engine.build.git import parse_git_ref
from engine.build.graph import find_base
from engine.build.lint_rules import LintOptions, LintWarning, parse_options
from engine.build.ports import parse_expose
from engine.build.state import DEFAULT_PATH, env_map
from engine.build.variables import global_args
from engine.errors import EngineError, InvalidInput
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform
from engine.oci.reference import Reference

BaseConfig = Callable[[str, Platform], ImageConfig | None]
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_RESERVED = ("context", "scratch")
_EVERYTHING = ("*", "**", "**/*")
_UNCHECKED = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


@dataclass(slots=True)
class _Scope:
    """What the linter knows of a stage on its way down. `known` is false when its base image's variables are not."""

    variables: dict[str, str]
    known: bool = True
    args: set[str] = field(default_factory=set)
    workdir_set: bool = False
    shell: bool = False

    def fork(self) -> _Scope:
        return replace(self, variables=dict(self.variables), args=set(self.args))


@dataclass(frozen=True, slots=True)
class LintInput:
    """`predefined` are the platform's arguments (`variables.platform_args`); `base` gives an image's config, or None."""

    dockerfile: Dockerfile
    build_args: Mapping[str, str]
    predefined: Mapping[str, str]
    target: Platform
    matcher: Matcher | None = None
    base: BaseConfig = lambda name, platform: None


def options_of(given: LintInput) -> LintOptions:
    """`BUILDKIT_DOCKERFILE_CHECK`, else the directive. Raises `InvalidInput`."""
    text = given.build_args.get("BUILDKIT_DOCKERFILE_CHECK") or given.dockerfile.directives.get("check", "")
    return parse_options(text.partition(" ")[0] if " " in text else text)


def lint(given: LintInput, stages: Iterable[int] | None = None) -> list[LintWarning]:
    """The warnings, in BuildKit's order. `stages` limits what is looked into beyond syntax (None: all).

    Raises `InvalidInput` for a `check` option that cannot be read.
    """
    return _Linter(given, options_of(given)).run(set(stages) if stages is not None else None)


class _Linter:
    def __init__(self, given: LintInput, options: LintOptions) -> None:
        self._given, self._options = given, options
        self._file = given.dockerfile
        self._found: list[LintWarning] = []
        self._scopes: dict[int, _Scope] = {}

    def run(self, wanted: set[int] | None) -> list[LintWarning]:
        for line in self._file.empty_continuations:
            self._warn("NoEmptyContinuation", "Empty continuation line", line, line)
        self._syntax()
        self._stage_names()
        self._casing()
        self._default_bases()
        try:
            outer = global_args(self._file, self._given.predefined, self._given.build_args)
        except InvalidInput:
            return self._found
        bases = {stage.index: self._from(stage, outer) for stage in self._file.stages}
        for stage in self._file.stages:
            if wanted is None or stage.index in wanted:
                self._stage(stage, bases[stage.index], outer)
        return self._found

    def _warn(self, rule: str, message: str, line: int, end_line: int, comments: Sequence[str] = ()) -> None:
        if self._options.with_comments(comments).wants(rule):
            self._found.append(LintWarning(rule, message, line, end_line))

    def _at(self, rule: str, message: str, what: Instruction | Stage) -> None:
        self._warn(rule, message, what.line, what.end_line or what.line, what.comments)

    # --- the file -------------------------------------------------------------------------------------

    def _syntax(self) -> None:
        """In the order of the file, whatever stage it is in."""
        every: list[Instruction | Stage] = [*self._file.meta_args]
        for stage in self._file.stages:
            every += [stage, *stage.instructions]
        for what in sorted(every, key=lambda what: what.line):
            if isinstance(what, Stage):
                self._stage_words(what)
            elif isinstance(what, Maintainer):
                self._at("MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", what)
            elif isinstance(what, Arg):
                self._description("ARG", [name for name, _ in what.pairs], what)

    def _stage_words(self, stage: Stage) -> None:
        words = stage.words
        if len(words) == 3:
            if words[2] != words[2].lower():
                self._at("StageNameCasing", f"Stage name '{words[2]}' should be lowercase", stage)
            lower, upper = stage.keyword.islower(), stage.keyword.isupper()
            if (lower and words[1] != words[1].lower()) or (upper and words[1] != words[1].upper()):
                message = f"'{words[1]}' and '{stage.keyword}' keywords' casing do not match"
                self._at("FromAsCasing", message, stage)
        if stage.name:
            self._description("FROM", [stage.name], stage)

    def _description(self, instruction: str, names: Sequence[str], what: Instruction | Stage) -> None:
        if not what.comments or what.comments[-1].split(" ")[0] in names:
            return
        shown = "<arg_key>" if len(names) > 1 else names[0]
        message = f"Comment for {instruction} should follow the format: `# {shown} <description>`"
        self._at("InvalidDefinitionDescription", message, what)

    def _stage_names(self) -> None:
        seen: set[str] = set()
        for stage in self._file.stages:
            if not stage.name:
                continue
            line, end = stage.line, stage.end_line
            if stage.name in _RESERVED:
                message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
                self._warn("ReservedStageName", message, line, end)
            if stage.name in seen:
                message = f'Duplicate stage name "{stage.name}", stage names should be unique'
                self._warn("DuplicateStageName", message, line, end)
            seen.add(stage.name)

    def _casing(self) -> None:
        words: list[tuple[str, int, int]] = []
        for stage in self._file.stages:
            words.append((stage.keyword, stage.line, stage.end_line))
            words += [(i.keyword, i.line, i.end_line) for i in stage.instructions]
        lower = sum(word == word.lower() for word, _, _ in words)
        upper = sum(word == word.upper() and word != word.lower() for word, _, _ in words)
        case = "lowercase" if lower > upper else "uppercase"
        for word, line, end in words:
            if word != (word.lower() if case == "lowercase" else word.upper()):
                message = f"Command '{word}' should match the case of the command majority ({case})"
                self._warn("ConsistentInstructionCasing", message, line, end)

    # --- FROM -----------------------------------------------------------------------------------------

    def _default_bases(self) -> None:
        """Each base's name with the ARGs' defaults alone."""
        try:
            scope = global_args(self._file, self._given.predefined, {})
        except InvalidInput:
            return
        for stage in self._file.stages:
            try:
                name = expand(stage.base, scope, self._file.escape)
            except InvalidInput:
                return
            try:
                Reference.parse(name)
            except InvalidInput:
                message = f"Default value for ARG {stage.base} results in empty or invalid base image name"
                self._warn("InvalidDefaultArgInFrom", message, stage.line, stage.end_line)

    def _from(self, stage: Stage, outer: Mapping[str, str]) -> str:
        """The expanded base name."""
        known = {*outer, *(name for arg in self._file.meta_args for name, _ in arg.pairs)}
        try:
            base = process(stage.base, outer, self._file.escape)
        except InvalidInput:
            return stage.base
        self._undeclared(base.unmatched, known, stage)
        if stage.platform:
            try:
                platform = process(stage.platform, outer, self._file.escape)
            except InvalidInput:
                return base.text
            self._undeclared(platform.unmatched, known, stage)
            if platform.matched == {"TARGETPLATFORM"} and not platform.unmatched:
                if platform.text == outer.get("TARGETPLATFORM"):
                    message = f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the default behavior"
                    self._at("RedundantTargetPlatform", message, stage)
            elif not platform.matched and not platform.unmatched:
                self._constant(platform.text, stage)
        return base.text

    def _undeclared(self, names: Iterable[str], known: set[str], stage: Stage) -> None:
        for name in sorted(set(names) - known):
            message = f"FROM argument '{name}' is not declared{_did_you_mean(name, known)}"
            self._at("UndefinedArgInFrom", message, stage)

    def _constant(self, text: str, stage: Stage) -> None:
        try:
            platform = Platform.parse(text)
        except InvalidInput:
            return
        if platform.os not in stage.name and platform.architecture not in stage.name:
            message = f'FROM --platform flag should not use constant value "{text}"'
            self._at("FromPlatformFlagConstDisallowed", message, stage)

    # --- stages ---------------------------------------------------------------------------------------

    def _stage(self, stage: Stage, base: str, outer: Mapping[str, str]) -> None:
        scope = self._scope(stage, base, outer)
        self._scopes[stage.index] = scope
        before: dict[type[Instruction], Instruction] = {}
        for instruction in stage.instructions:
            try:
                self._instruction(scope, instruction, before, outer)
            except InvalidInput:
                return  # the build itself says what is wrong there

    def _scope(self, stage: Stage, base: str, outer: Mapping[str, str]) -> _Scope:
        parent = find_base(self._file, base, stage.index)
        if parent is not None and parent in self._scopes:
            return self._scopes[parent].fork()
        if parent is not None or base == "scratch":
            return _Scope({"PATH": DEFAULT_PATH})
        platform = self._given.target
        if stage.platform:
            try:
                platform = Platform.parse(expand(stage.platform, outer, self._file.escape))
            except InvalidInput:
                return _Scope({}, known=False)
        try:
            config = self._given.base(base, platform)
        except EngineError:
            config = None
        if config is None:
            return _Scope({"PATH": DEFAULT_PATH}, known=False)
        actual = Platform(config.os, config.architecture, config.variant)
        if (platform.os, platform.architecture) != (actual.os, actual.architecture):
            message = (
                f'Base image {base} was pulled with platform "{actual.normal}", '
                f'expected "{platform.normal}" for current build'
            )
            self._warn("InvalidBaseImagePlatform", message, stage.line, stage.end_line)
        return _Scope({"PATH": DEFAULT_PATH, **env_map(config.env)}, shell=bool(config.shell))

    def _instruction(
        self, scope: _Scope, what: Instruction, before: dict[type[Instruction], Instruction], outer: Mapping[str, str]
    ) -> None:
        escape = self._file.escape
        if isinstance(what, Arg):
            self._arg(scope, what, outer)
            return
        for word in _words(what):
            self._undefined(scope, process(word, scope.variables, escape).unmatched, what)
        if isinstance(what, Copy | Add):
            for heredoc in what.heredocs:
                if heredoc.expand:
                    self._undefined(scope, process(heredoc.text, scope.variables, skip_quotes=True).unmatched, what)
            self._ignored(scope, what)
        elif isinstance(what, Env | Label):
            self._pairs(scope, what)
        elif isinstance(what, Expose):
            self._ports(scope, what)
        elif isinstance(what, Shell):
            scope.shell = True
        elif isinstance(what, Workdir):
            path = expand(what.path, scope.variables, escape)
            if not scope.workdir_set and not path.startswith("/"):
                message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
                self._at("WorkdirRelativePath", message, what)
            scope.workdir_set = True
        elif isinstance(what, Cmd | Entrypoint | Healthcheck):
            self._once(scope, what, before)

    def _undefined(self, scope: _Scope, names: Iterable[str], what: Instruction) -> None:
        if not scope.known:
            return
        for name in sorted(set(names) - scope.args - set(_UNCHECKED)):
            near = _near(name, scope.variables)
            hint = f" (did you mean ${near}?)" if near else ""
            self._at("UndefinedVar", f"Usage of undefined variable '${name}'{hint}", what)

    def _arg(self, scope: _Scope, arg: Arg, outer: Mapping[str, str]) -> None:
        for name, default in arg.pairs:
            self._no_secret("ARG", name, arg)
            value: str | None = self._given.build_args.get(name)
            if value is None and default is not None:
                found = process(default, scope.variables, self._file.escape)
                self._undefined(scope, found.unmatched, arg)
                value = found.text
            elif value is None:
                value = outer.get(name)
            if value is not None:
                scope.variables[name] = value
            scope.args.add(name)

    def _pairs(self, scope: _Scope, what: Env | Label) -> None:
        old = dict(scope.variables)
        for key, value in what.pairs:
            if what.legacy:
                word = what.keyword
                message = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
                self._at("LegacyKeyValueFormat", message, what)
            if isinstance(what, Env):
                name = expand(key, old, self._file.escape)
                self._no_secret("ENV", name, what)
                scope.variables[name] = expand(value, old, self._file.escape)

    def _no_secret(self, instruction: str, name: str, what: Instruction) -> None:
        if _SECRET.search(name) and not _HARMLESS.search(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({instruction} "{name}")'
            self._at("SecretsUsedInArgOrEnv", message, what)

    def _ports(self, scope: _Scope, what: Expose) -> None:
        for text in what.ports:
            for port in process(text, scope.variables, self._file.escape).words:
                found = parse_expose(port)
                if found.odd_case:
                    message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                    self._at("ExposeProtoCasing", message, what)
                if found.mapped:
                    message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    self._at("ExposeInvalidFormat", message, what)

    def _once(
        self, scope: _Scope, what: Cmd | Entrypoint | Healthcheck, before: dict[type[Instruction], Instruction]
    ) -> None:
        earlier = before.get(type(what))
        if earlier is not None:
            message = (
                f"Multiple {what.keyword} instructions should not be used in the same stage because only the last one "
                "will be used"
            )
            self._warn("MultipleInstructionsDisallowed", message, earlier.line, earlier.end_line, what.comments)
        before[type(what)] = what
        if isinstance(what, Cmd | Entrypoint) and what.shell and not scope.shell:
            message = (
                f"JSON arguments recommended for {what.keyword} to prevent unintended behavior related to OS signals"
            )
            self._at("JSONArgsRecommended", message, what)

    def _ignored(self, scope: _Scope, what: Copy | Add) -> None:
        """A `!` pattern makes it too hard to tell."""
        matcher = self._given.matcher
        if matcher is None or matcher.has_exclusions or (isinstance(what, Copy) and what.from_):
            return
        for word in what.sources:
            source = expand(word, scope.variables, self._file.escape)
            if is_http(source) or parse_git_ref(source) is not None:
                continue
            path = posixpath.normpath(source)
            if path in (".", "/") and not any(pattern in _EVERYTHING for pattern in matcher.patterns):
                continue
            if matcher.excluded(path):
                command = "Copy" if isinstance(what, Copy) else "Add"
                message = f'Attempting to {command} file "{path}" that is excluded by .dockerignore'
                self._at("CopyIgnoredFile", message, what)


def _words(what: Instruction) -> list[str]:
    """What the builder expands of an instruction."""
    match what:
        case Env() | Label():
            return [word for pair in what.pairs for word in pair]
        case Copy():
            return [what.chown, what.chmod, *what.sources, what.dest]
        case Add():
            return [what.chown, what.chmod, what.checksum, *what.sources, what.dest]
        case Run():
            values = (field.partition("=")[2] for mount in what.mounts for field in mount.split(","))
            return [value for value in values if value]
        case User():
            return [what.user]
        case Workdir():
            return [what.path]
        case Volume():
            return list(what.paths)
        case Stopsignal():
            return [what.signal]
    return []


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = _near(name, known)
    return f" (did you mean {near}?)" if near else ""


def _near(name: str, known: Iterable[str]) -> str:
    """The nearest of `known` at less than three edits (Levenshtein), "" when none is."""
    best, found = 3, ""
    for option in sorted(known):
        distance = _distance(name, option, best)
        if distance == 0:
            return ""
        if distance < best:
            best, found = distance, option
    return found


def _distance(a: str, b: str, limit: int) -> int:
    if abs(len(a) - len(b)) >= limit:
        return limit
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
