"""A Dockerfile's text as typed instructions (Dockerfile reference; BuildKit frontend/dockerfile/instructions)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

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
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stage,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from engine.build.dockerfile.command import BLANKS, NotStrings, json_strings, split_blanks, split_words
from engine.build.dockerfile.durations import parse_duration
from engine.build.dockerfile.lexer import HeredocWord, Lexer, Logical, heredoc_word
from engine.build.dockerfile.mounts import mount_from
from engine.errors import DockerfileError, InvalidInput

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
KEYWORDS = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME "
    "WORKDIR"
).split()
_SWITCHES = ("link", "parents", "keep-git-dir", "unpack")
_REPEATED = ("mount", "exclude", "device")
_MAY_BE_EMPTY = ("RUN", "CMD", "ENTRYPOINT")


def parse(text: str, file: str) -> Dockerfile:
    """Raises `DockerfileError` with file, line and column."""
    lexer = Lexer(text, file)
    stages: list[tuple[Logical, str, str, str]] = []
    bodies: list[list[Instruction]] = []
    meta: list[Arg] = []
    for logical in lexer.instructions():
        parser = _Parser(lexer, logical)
        if parser.name == "FROM":
            stages.append((logical, *parser.from_()))
            bodies.append([])
            continue
        instruction = parser.instruction()
        if bodies:
            bodies[-1].append(instruction)
        elif isinstance(instruction, Arg):
            meta.append(instruction)
        else:
            hint = "begin with FROM: only ARG may come before it"
            raise parser.error("no build stage in current context", hint)
    if not stages:
        what = "the file has no FROM" if meta else "the file has no instructions"
        raise lexer.error(what, 1, hint="a Dockerfile begins with FROM")
    built = tuple(
        Stage(
            index,
            name,
            base,
            platform,
            logical.line,
            tuple(body),
            end_line=logical.end_line,
            keyword=logical.keyword,
            words=tuple(split_blanks(logical.rest)),
            comments=logical.comments,
        )
        for index, ((logical, base, name, platform), body) in enumerate(zip(stages, bodies, strict=True))
    )
    return Dockerfile(
        built, tuple(meta), lexer.escape, lexer.directives, tuple(lexer.lines), tuple(lexer.empty_continuations)
    )


def parse_trigger(text: str, stage: Stage, file: str) -> Instruction:
    """One ONBUILD trigger of a base image, as an instruction at the line of the FROM that pulls it in."""
    lexer = Lexer(text, file)
    found = list(lexer.instructions())
    if len(found) != 1:
        raise InvalidInput(f"the ONBUILD trigger {text[:80]!r} of {stage.base} is not one instruction")
    try:
        instruction = _Parser(lexer, found[0]).instruction()
    except DockerfileError as error:
        raise InvalidInput(f"the ONBUILD trigger {text[:80]!r} of {stage.base}: {error.message}") from error
    return replace(instruction, line=stage.line, end_line=stage.end_line)


class _Parser:
    """One logical instruction on its way to a typed one."""

    def __init__(self, lexer: Lexer, logical: Logical) -> None:
        self._lexer, self._logical = lexer, logical
        self.name = logical.keyword.upper()
        self._rest = logical.rest
        self._flags: dict[str, list[str]] = {}

    def error(self, message: str, hint: str | None = None, at: str = "") -> DockerfileError:
        """`at` is the text to point to; the keyword when it is not on the instruction's first line."""
        line = self._logical.line
        found = self._lexer.lines[line - 1].find(at, self._logical.column - 1) if at else -1
        return self._lexer.error(message, line, found + 1 if found >= 0 else self._logical.column, hint)

    def _common(self) -> dict[str, Any]:
        text = re.sub(r"\s+", " ", self._logical.text).strip()
        logical = self._logical
        return {
            "line": logical.line,
            "end_line": logical.end_line,
            "source": f"{self.name} {text}".strip(),
            "keyword": logical.keyword,
            "comments": logical.comments,
        }

    def instruction(self) -> Instruction:
        if self.name not in KEYWORDS:
            near = get_close_matches(self.name, KEYWORDS, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else None
            raise self.error(f"unknown instruction: {self._logical.keyword}", hint)
        if not self._rest and self.name not in _MAY_BE_EMPTY:
            raise self.error(f"{self.name} requires at least one argument")
        make: Callable[[], Instruction] = getattr(self, f"_{self.name.lower()}")
        return make()

    # --- flags ----------------------------------------------------------------------------------------

    def _take_flags(self, *known: str) -> None:
        for flag in self._logical.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean --{near[0]}?" if near else None
                raise self.error(f"unknown flag: --{name}", hint, at=f"--{name}")
            if name in self._flags and name not in _REPEATED:
                raise self.error(f"duplicate flag specified: --{name}", at=f"--{name}")
            if not (value if equals and name in _SWITCHES else equals or name in _SWITCHES):
                raise self.error(f"missing a value on flag: --{name}", at=f"--{name}")
            self._flags.setdefault(name, []).append(value)

    def _flag(self, name: str) -> str:
        return (self._flags.get(name) or [""])[-1]

    def _switch(self, name: str) -> bool:
        if name not in self._flags:
            return False
        value = self._flag(name).lower()
        if value not in ("", "true", "false"):
            raise self.error(f"expecting boolean value for flag --{name}, not: {value}", at=f"--{name}")
        return value != "false"

    def _choice(self, name: str, *values: str) -> str:
        value = self._flag(name)
        if value and value not in values:
            raise self.error(f"invalid --{name} {value!r}", f"it is one of {', '.join(values)}", at=f"--{name}")
        return value

    # --- commands -------------------------------------------------------------------------------------

    def from_(self) -> tuple[str, str, str]:
        """The base, the stage's name in lower case, the platform."""
        words = split_blanks(self._rest)
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
            raise self.error("FROM requires either one or three arguments", "FROM IMAGE [AS NAME]")
        name = words[2].lower() if len(words) == 3 else ""
        if name and not _STAGE_NAME.fullmatch(name):
            hint = "a name begins with a letter and holds a-z 0-9 - _ ."
            raise self.error(f"invalid name for build stage: {words[2]!r}", hint, at=words[2])
        self._take_flags("platform")
        return words[0], name, self._flag("platform")

    def _json(self) -> list[str] | None:
        try:
            return json_strings(self._rest)
        except NotStrings as error:
            raise self.error(str(error), "quote every word", at=self._rest[:1]) from None

    def _command(self) -> tuple[tuple[str, ...], bool]:
        words = self._json()
        return (tuple(words), False) if words is not None else ((self._rest,), True)

    def _run(self) -> Run:
        self._take_flags("mount", "network", "security", "device")
        mounts = tuple(self._flags.get("mount", ()))
        for mount in mounts:
            self._check_mount(mount)
        args, shell = self._command()
        if not args:
            raise self.error("RUN [] runs nothing", 'RUN ["program", "argument"]', at=self._rest)
        return Run(
            args=args,
            shell=shell,
            heredocs=self._logical.heredocs,
            mounts=mounts,
            network=self._choice("network", "default", "none", "host"),
            security=self._choice("security", "sandbox", "insecure"),
            devices=tuple(self._flags.get("device", ())),
            **self._common(),
        )

    def _check_mount(self, mount: str) -> None:
        """The rest of a mount is read when it is used, with variables; which stage it is from cannot wait."""
        try:
            mount_from(mount)
        except InvalidInput as error:
            raise self.error(error.message, error.hint, at="from=" if "from=" in mount else "--mount") from None

    def _cmd(self) -> Cmd:
        self._take_flags()
        args, shell = self._command()
        return Cmd(args=args, shell=shell, **self._common())

    def _entrypoint(self) -> Entrypoint:
        self._take_flags()
        args, shell = self._command()
        return Entrypoint(args=args, shell=shell, **self._common())

    def _shell(self) -> Shell:
        self._take_flags()
        args = self._json()
        if not args:
            raise self.error("SHELL requires the arguments to be in JSON form", 'SHELL ["/bin/bash", "-c"]', self._rest)
        return Shell(args=tuple(args), **self._common())

    def _healthcheck(self) -> Healthcheck:
        kind, *rest = re.split(r"\s+", self._rest, maxsplit=1)
        self._rest = rest[0] if rest else ""
        if kind.upper() == "NONE":
            if self._rest:
                raise self.error("HEALTHCHECK NONE takes no arguments", at=self._rest)
            return Healthcheck(test=("NONE",), **self._common())
        self._take_flags("interval", "timeout", "start-period", "start-interval", "retries")
        if kind.upper() != "CMD":
            raise self.error(f"unknown type {kind!r} in HEALTHCHECK", "HEALTHCHECK CMD … or HEALTHCHECK NONE", at=kind)
        args, shell = self._command()
        if not args or not self._rest:
            raise self.error("missing command after HEALTHCHECK CMD")
        retries = self._flag("retries") or "0"
        if not re.fullmatch(r"\+?[0-9]{1,9}", retries):
            raise self.error(f"--retries {retries!r} is not a number of retries", at="--retries")
        return Healthcheck(
            test=("CMD-SHELL" if shell else "CMD", *args),
            interval=self._duration("interval"),
            timeout=self._duration("timeout"),
            start_period=self._duration("start-period"),
            start_interval=self._duration("start-interval"),
            retries=int(retries),
            **self._common(),
        )

    def _duration(self, name: str) -> int:
        text = self._flag(name)
        try:
            total = parse_duration(text) if text else 0
        except ValueError as error:
            raise self.error(f"--{name} {error}", "30s, 1m30s or 500ms", at=f"--{name}") from None
        if total < 10**6 and total != 0:
            raise self.error(f"--{name} cannot be less than 1ms", at=f"--{name}")
        return total

    # --- files ----------------------------------------------------------------------------------------

    def _heredoc(self, word: str) -> HeredocWord | None:
        try:
            return heredoc_word(word)
        except InvalidInput:
            return None

    def _paths(self) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
        """The sources, the destination, and the heredocs among the sources."""
        words = self._json()
        words = split_blanks(self._rest) if words is None else words
        if len(words) < 2:
            message = f"{self.name} requires at least two arguments, but only one was provided"
            raise self.error(f"{message}. Destination could not be determined", f"{self.name} SOURCE DESTINATION")
        if self._heredoc(words[-1]):
            raise self.error(f"{self.name} cannot accept a heredoc as a destination", at=words[-1])
        contents = {heredoc.name: heredoc for heredoc in self._logical.heredocs}
        sources: list[str] = []
        heredocs: list[Heredoc] = []
        for word in words[:-1]:
            if heredoc := self._heredoc(word):
                heredocs.append(contents.get(heredoc.name, Heredoc(heredoc.name, "", heredoc.expand)))
            else:
                sources.append(word)
        return tuple(sources), words[-1], tuple(heredocs)

    def _copy(self) -> Copy:
        sources, dest, heredocs = self._paths()
        self._take_flags("from", "chown", "chmod", "link", "parents", "exclude")
        return Copy(
            sources=sources,
            dest=dest,
            from_=self._flag("from"),
            chown=self._flag("chown"),
            chmod=self._flag("chmod"),
            link=self._switch("link"),
            parents=self._switch("parents"),
            exclude=tuple(self._flags.get("exclude", ())),
            heredocs=heredocs,
            **self._common(),
        )

    def _add(self) -> Add:
        sources, dest, heredocs = self._paths()
        self._take_flags("chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude")
        return Add(
            sources=sources,
            dest=dest,
            chown=self._flag("chown"),
            chmod=self._flag("chmod"),
            link=self._switch("link"),
            checksum=self._flag("checksum"),
            keep_git_dir=self._switch("keep-git-dir") if "keep-git-dir" in self._flags else None,
            unpack=self._switch("unpack") if "unpack" in self._flags else None,
            exclude=tuple(self._flags.get("exclude", ())),
            heredocs=heredocs,
            **self._common(),
        )

    # --- values ---------------------------------------------------------------------------------------

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        """`k=v k2="v 2"`, or the old `k the rest`."""
        self._take_flags()
        words = split_words(self._rest, self._lexer.escape)
        if not words or "=" not in words[0]:
            parts = BLANKS.split(self._rest, maxsplit=1)
            if len(parts) < 2:
                raise self.error(f"{self.name} must have two arguments", f"{self.name} NAME=VALUE", at=self._rest)
            return ((parts[0], parts[1]),)
        pairs = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                message = f"syntax error - can't find = in {word!r}. Must be of the form: name=value"
                raise self.error(message, 'quote a value with blanks: NAME="some text"', at=word)
            if not key:
                raise self.error(f"{self.name} names can not be blank", at=word)
            pairs.append((key, value))
        return tuple(pairs)

    def _is_legacy(self) -> bool:
        words = split_words(self._rest, self._lexer.escape)
        return not words or "=" not in words[0]

    def _env(self) -> Env:
        return Env(pairs=self._pairs(), legacy=self._is_legacy(), **self._common())

    def _label(self) -> Label:
        return Label(pairs=self._pairs(), legacy=self._is_legacy(), **self._common())

    def _arg(self) -> Arg:
        pairs: list[tuple[str, str | None]] = []
        for word in split_words(self._rest, self._lexer.escape):
            key, equals, value = word.partition("=")
            if not key:
                raise self.error("ARG names can not be blank", at=word)
            pairs.append((key, value if equals else None))
        return Arg(pairs=tuple(pairs), **self._common())

    def _workdir(self) -> Workdir:
        self._take_flags()
        return Workdir(path=self._rest, **self._common())

    def _user(self) -> User:
        self._take_flags()
        return User(user=self._rest, **self._common())

    def _stopsignal(self) -> Stopsignal:
        return Stopsignal(signal=self._rest, **self._common())

    def _expose(self) -> Expose:
        self._take_flags()
        return Expose(ports=tuple(sorted(split_blanks(self._rest))), **self._common())

    def _volume(self) -> Volume:
        self._take_flags()
        words = self._json()
        paths = [path.strip() for path in (split_blanks(self._rest) if words is None else words)]
        if not paths:
            raise self.error("VOLUME requires at least one argument")
        if not all(paths):
            raise self.error("VOLUME specified can not be an empty string")
        return Volume(paths=tuple(paths), **self._common())

    def _maintainer(self) -> Maintainer:
        self._take_flags()
        return Maintainer(name=self._rest, **self._common())

    def _onbuild(self) -> Onbuild:
        """The trigger as text with its heredocs; it is read where the image is a base."""
        self._take_flags()
        trigger = split_blanks(self._rest)[0].upper()
        if trigger == "ONBUILD":
            raise self.error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", at=self._rest)
        if trigger in ("FROM", "MAINTAINER"):
            raise self.error(f"{trigger} isn't allowed as an ONBUILD trigger", at=self._rest)
        bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in self._logical.heredocs)
        return Onbuild(text=self._rest + bodies, **self._common())
