"""A Dockerfile's text as typed instructions (Dockerfile reference; BuildKit frontend/dockerfile/instructions)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
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
from engine.build.dockerfile.lexer import Lexer, Logical
from engine.errors import DockerfileError

_STAGE_NAME = re.compile(r"^[a-z][a-z0-9-_.]*$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
KEYWORDS = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
]


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
        elif not stages:
            if parser.name != "ARG":
                if parser.name not in KEYWORDS:
                    raise parser.unknown()
                raise parser.error(
                    "no build stage in current context", hint="begin with FROM (only ARG may come before it)"
                )
            instruction = parser.instruction()
            assert isinstance(instruction, Arg)
            meta.append(instruction)
        else:
            bodies[-1].append(parser.instruction())
    if not stages:
        raise DockerfileError("the file has no instructions", file=file, line=1, hint="a Dockerfile begins with FROM")
    built = tuple(
        Stage(index, name, base, platform, logical.line, tuple(body))
        for index, ((logical, base, name, platform), body) in enumerate(zip(stages, bodies, strict=True))
    )
    return Dockerfile(built, tuple(meta), lexer.escape, lexer.directives, tuple(lexer.lines))


class _Parser:
    """One logical instruction on its way to a typed one."""

    def __init__(self, lexer: Lexer, logical: Logical) -> None:
        self._lexer, self._logical = lexer, logical
        self.name = logical.keyword.upper()
        self._rest = logical.rest
        self._flags: dict[str, list[str]] = {}

    def error(self, message: str, hint: str | None = None) -> DockerfileError:
        return self._lexer.error(message, self._logical.line, self._logical.column, hint)

    def unknown(self) -> DockerfileError:
        near = get_close_matches(self.name, KEYWORDS, 1, 0.6)
        return self.error(
            f"unknown instruction: {self._logical.keyword}", hint=f"did you mean {near[0]}?" if near else None
        )

    def _common(self) -> dict[str, Any]:
        text = re.sub(r"\s+", " ", self._logical.rest).strip()
        return {"line": self._logical.line, "end_line": self._logical.end_line, "source": f"{self.name} {text}".strip()}

    def _take_flags(self, *known: str) -> None:
        while match := re.match(r"--([a-zA-Z-]+)(?:=(\"[^\"]*\"|\S*))?(?:\s+|$)", self._rest):
            name, value = match[1], match[2]
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise self.error(f"unknown flag: --{name}", hint=f"did you mean --{near[0]}?" if near else None)
            if value is None and name not in ("link", "parents", "keep-git-dir", "unpack"):
                raise self.error(f"missing a value on flag: --{name}")
            self._flags.setdefault(name, []).append((value or "true").strip('"'))
            self._rest = self._rest[match.end() :]

    def _flag(self, name: str) -> str:
        return (self._flags.get(name) or [""])[-1]

    def _switch(self, name: str) -> bool:
        value = self._flag(name)
        if value not in ("", "true", "false"):
            raise self.error(f"expecting boolean value for flag {name}, not: {value}")
        return value == "true"

    def from_(self) -> tuple[str, str, str]:
        self._take_flags("platform")
        words = self._rest.split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
            raise self.error("FROM requires either one argument, or three: FROM <source> [AS <name>]")
        name = words[2].lower() if len(words) == 3 else ""
        if name and not _STAGE_NAME.match(name):
            raise self.error(
                f"invalid name for build stage: {words[2]!r}", hint="names begin with a letter and hold a-z 0-9 - _ ."
            )
        return words[0], name, self._flag("platform")

    def instruction(self) -> Instruction:
        make: Callable[[], Instruction] | None = (
            getattr(self, f"_{self.name.lower()}", None) if self.name in KEYWORDS else None
        )
        if make is None:
            raise self.unknown()
        if not self._rest.strip() and self.name not in ("CMD", "ENTRYPOINT"):
            raise self.error(f"{self.name} requires at least one argument")
        return make()

    # --- commands -------------------------------------------------------------------------------------

    def _json(self) -> list[str] | None:
        """The exec form; None when the text is not a JSON array of strings, and so the shell form."""
        text = self._rest.strip()
        if not text.startswith("["):
            return None
        try:
            value = json.loads(text)
        except ValueError:
            return None
        return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else None

    def _command(self) -> tuple[tuple[str, ...], bool]:
        words = self._json()
        if words is not None:
            return tuple(words), False
        text = self._rest.strip()
        return ((text,) if text else ()), True

    def _run(self) -> Run:
        self._take_flags("mount", "network", "security", "device")
        network = self._flag("network")
        if network not in ("", "default", "none", "host"):
            raise self.error(f"invalid network mode {network!r}", hint="default, none or host")
        args, shell = self._command()
        if not args:
            raise self.error("RUN requires at least one argument")
        heredocs = self._logical.heredocs if shell else ()
        return Run(
            args=args,
            shell=shell,
            heredocs=heredocs,
            mounts=tuple(self._flags.get("mount", ())),
            network=network,
            security=self._flag("security"),
            **self._common(),
        )

    def _cmd(self) -> Cmd:
        args, shell = self._command()
        return Cmd(args=args, shell=shell, **self._common())

    def _entrypoint(self) -> Entrypoint:
        args, shell = self._command()
        return Entrypoint(args=args, shell=shell, **self._common())

    def _shell(self) -> Shell:
        args = self._json()
        if not args:
            raise self.error("SHELL requires the arguments to be in JSON form", hint='SHELL ["/bin/bash", "-c"]')
        return Shell(args=tuple(args), **self._common())

    def _healthcheck(self) -> Healthcheck:
        self._take_flags("interval", "timeout", "start-period", "start-interval", "retries")
        kind, _, rest = self._rest.partition(" ")
        self._rest = rest
        if kind.upper() == "NONE":
            if rest.strip() or self._flags:
                raise self.error("HEALTHCHECK NONE takes no arguments")
            return Healthcheck(test=("NONE",), **self._common())
        if kind.upper() != "CMD":
            raise self.error(f"unknown type {kind!r} in HEALTHCHECK", hint="HEALTHCHECK CMD … or HEALTHCHECK NONE")
        args, shell = self._command()
        if not args:
            raise self.error("missing command after HEALTHCHECK CMD")
        retries = self._flag("retries") or "0"
        if not retries.isdigit():
            raise self.error(f"--retries {retries!r} is not a number")
        times = {name: self._duration(name) for name in ("interval", "timeout", "start-period", "start-interval")}
        return Healthcheck(
            test=("CMD-SHELL" if shell else "CMD", *args),
            interval=times["interval"],
            timeout=times["timeout"],
            start_period=times["start-period"],
            start_interval=times["start-interval"],
            retries=int(retries),
            **self._common(),
        )

    def _duration(self, name: str) -> int:
        text = self._flag(name)
        parts = _DURATION.findall(text)
        if text and (not parts or "".join(a + b for a, b in parts) != text):
            raise self.error(f"--{name} {text!r} is not a duration", hint="30s, 1m30s or 500ms")
        total = int(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))
        if text and 0 < total < 10**6:
            raise self.error(f"--{name} cannot be less than 1ms")
        return total

    # --- files ----------------------------------------------------------------------------------------

    def _paths(self) -> tuple[tuple[str, ...], str]:
        words = self._json()
        words = words if words is not None else self._rest.split()
        if len(words) < 2:
            raise self.error(
                f"{self.name} requires at least two arguments, but only {len(words)} was provided",
                hint=f"{self.name} SOURCE DESTINATION",
            )
        heredocs = {word for word in words if re.match(r"^\d*<<-?[^<]", word)} if self._logical.heredocs else set()
        return tuple(word for word in words[:-1] if word not in heredocs), words[-1]

    def _copy(self) -> Copy:
        self._take_flags("from", "chown", "chmod", "link", "parents", "exclude")
        sources, dest = self._paths()
        return Copy(
            sources=sources,
            dest=dest,
            from_=self._flag("from"),
            chown=self._flag("chown"),
            chmod=self._flag("chmod"),
            link=self._switch("link"),
            parents=self._switch("parents"),
            exclude=tuple(self._flags.get("exclude", ())),
            heredocs=self._logical.heredocs,
            **self._common(),
        )

    def _add(self) -> Add:
        self._take_flags("chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude")
        sources, dest = self._paths()
        return Add(
            sources=sources,
            dest=dest,
            chown=self._flag("chown"),
            chmod=self._flag("chmod"),
            link=self._switch("link"),
            checksum=self._flag("checksum"),
            keep_git_dir=self._switch("keep-git-dir"),
            unpack=self._switch("unpack") if "unpack" in self._flags else None,
            exclude=tuple(self._flags.get("exclude", ())),
            heredocs=self._logical.heredocs,
            **self._common(),
        )

    # --- values ---------------------------------------------------------------------------------------

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        """`k=v k2="v 2"`, or the old `k the rest`."""
        words = split_words(self._rest, self._lexer.escape)
        if "=" not in words[0]:
            key, _, value = self._rest.strip().partition(" ")
            if not value.strip():
                raise self.error(f"{self.name} must have two arguments", hint=f"{self.name} NAME=VALUE")
            return ((key, value.strip()),)
        pairs = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise self.error(f"syntax error - can't find = in {word!r}. Must be of the form: name=value")
            if not key:
                raise self.error(f"{self.name} names can not be blank")
            pairs.append((key, value))
        return tuple(pairs)

    def _env(self) -> Env:
        return Env(pairs=self._pairs(), **self._common())

    def _label(self) -> Label:
        return Label(pairs=self._pairs(), **self._common())

    def _arg(self) -> Arg:
        pairs: list[tuple[str, str | None]] = []
        for word in split_words(self._rest, self._lexer.escape):
            key, equals, value = word.partition("=")
            if not key:
                raise self.error("ARG names can not be blank")
            pairs.append((key, value if equals else None))
        return Arg(pairs=tuple(pairs), **self._common())

    def _one(self, words: Sequence[str]) -> str:
        if len(words) != 1:
            raise self.error(f"{self.name} requires exactly one argument")
        return words[0]

    def _workdir(self) -> Workdir:
        return Workdir(path=self._rest.strip(), **self._common())

    def _user(self) -> User:
        return User(user=self._rest.strip(), **self._common())

    def _stopsignal(self) -> Stopsignal:
        return Stopsignal(signal=self._one(self._rest.split()), **self._common())

    def _expose(self) -> Expose:
        return Expose(ports=tuple(self._rest.split()), **self._common())

    def _volume(self) -> Volume:
        words = self._json()
        paths = words if words is not None else self._rest.split()
        if not paths or not all(path.strip() for path in paths):
            raise self.error("VOLUME specified can not be an empty string")
        return Volume(paths=tuple(paths), **self._common())

    def _maintainer(self) -> Maintainer:
        return Maintainer(name=self._rest.strip(), **self._common())

    def _onbuild(self) -> Onbuild:
        trigger = self._rest.split()[0].upper()
        if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
            raise self.error(f"{trigger} isn't allowed as an ONBUILD trigger")
        return Onbuild(text=self._rest.strip(), **self._common())


def split_words(text: str, escape: str) -> list[str]:
    """Words split at blanks; quotes and escapes keep blanks together and stay in the word (BuildKit parseWords)."""
    words, word, quote, index = [], "", "", 0
    while index < len(text):
        char = text[index]
        if quote:
            word += char
            if char == escape and quote == '"' and index + 1 < len(text):
                index += 1
                word += text[index]
            elif char == quote:
                quote = ""
        elif char.isspace():
            if word:
                words.append(word)
                word = ""
        elif char == escape and index + 1 < len(text):
            index += 1
            word += char + text[index]
        else:
            if char in "\"'":
                quote = char
            word += char
        index += 1
    if word:
        words.append(word)
    return words
