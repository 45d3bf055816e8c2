"""Instructions that change the image's config alone (pure). Each gives the text of its history entry, as BuildKit writes it."""

from __future__ import annotations

import signal

from engine.build import gotext
from engine.build.dockerfile.ast import (
    Cmd,
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
    Stopsignal,
    User,
    Volume,
)
from engine.build.dockerfile.lexer import heredoc_word
from engine.build.dockerfile.words import expand, expand_words
from engine.build.ports import parse_expose
from engine.build.state import DEFAULT_SHELL, State
from engine.errors import InvalidInput, Unsupported

_SIGNALS = {name.removeprefix("SIG") for name in signal.Signals.__members__} | {"RTMIN", "RTMAX"}
_REALTIME = 15  # SIGRTMIN+1 … SIGRTMIN+15, and SIGRTMAX-1 … SIGRTMAX-14


def apply(state: State, instruction: Instruction, escape: str) -> str | None:
    """Changes the state's config and variables. Returns the history entry's text; None for none (ONBUILD).

    Raises `InvalidInput`.
    """
    scope = dict(state.variables)  # one instruction sees one set of values: `ENV abc=bye def=$abc` gives the old abc

    def word(text: str) -> str:
        return expand(text, scope, escape)

    config = state.config
    match instruction:
        case Env():
            pairs = [(word(key), word(value)) for key, value in instruction.pairs]
            for key, value in pairs:
                if not key:
                    raise InvalidInput("ENV names can not be blank")
                state.set_env(key, value)
            return "ENV " + " ".join(f"{key}={value}" for key, value in pairs)
        case Label():
            pairs = [(word(key), word(value)) for key, value in instruction.pairs]
            state.config = config.with_config(Labels={**config.labels, **dict(pairs)})
            return "LABEL " + " ".join(f"{key}={value}" for key, value in pairs)
        case User():
            user = word(instruction.user)
            state.config = config.with_config(User=user or None)
            return f"USER {user}"
        case Expose():
            words = [found for text in instruction.ports for found in expand_words(text, scope, escape)]
            ports = [port for text in words for port in parse_expose(text).ports]
            state.config = config.with_config(ExposedPorts={port: {} for port in (*config.exposed_ports, *ports)})
            return f"EXPOSE {gotext.plain_list(ports)}"
        case Volume():
            paths = [word(path) for path in instruction.paths]
            if not all(paths):
                raise InvalidInput("VOLUME specified can not be an empty string")
            state.config = config.with_config(Volumes={path: {} for path in (*config.volumes, *paths)})
            return f"VOLUME {gotext.plain_list(paths)}"
        case Stopsignal():
            name = word(instruction.signal)
            check_signal(name)
            state.config = config.with_config(StopSignal=name)
            return f"STOPSIGNAL {name}"
        case Shell():
            state.config = config.with_config(Shell=list(instruction.args))
            return f"SHELL {gotext.plain_list(instruction.args)}"
        case Cmd():
            args = _command(state, instruction)
            state.own_cmd = True
            state.config = config.with_config(Cmd=args or None, ArgsEscaped=True)
            return f"CMD {gotext.quoted_list(args)}"
        case Entrypoint():
            args = _command(state, instruction)
            state.config = config.with_config(Entrypoint=args or None)
            if not state.own_cmd:  # a CMD of the base image goes
                state.config = state.config.with_config(Cmd=None)
            return f"ENTRYPOINT {gotext.quoted_list(args)}"
        case Healthcheck():
            check = instruction.to_config()
            state.config = config.with_config(Healthcheck=check)
            return f"HEALTHCHECK {gotext.healthcheck(check)}"
        case Onbuild():
            state.config = config.with_config(OnBuild=[*config.on_build, instruction.text])
            return None
        case Maintainer():
            state.config = config.with_author(instruction.name)
            return f"MAINTAINER {instruction.name}"
    raise Unsupported(f"{type(instruction).__name__.upper()} is not supported here")


def _command(state: State, instruction: Cmd | Entrypoint) -> list[str]:
    if not instruction.shell:
        return list(instruction.args)
    return [*(state.config.shell or DEFAULT_SHELL), *instruction.args]


def check_signal(name: str) -> None:
    """`TERM`, `SIGTERM`, `15`, `RTMIN+3`. Raises `InvalidInput`."""
    text = name.upper().removeprefix("SIG")
    if text.isascii() and text.isdigit():
        if int(text[:9]) > 0:
            return
    elif text in _SIGNALS:
        return
    elif text.startswith(("RTMIN+", "RTMAX-")):
        offset = text[6:]
        if offset.isascii() and offset.isdigit() and 0 < int(offset[:4]) <= _REALTIME - (text[3] == "A"):
            return
    raise InvalidInput(f"invalid signal: {name}", hint="write a name (SIGTERM, TERM) or a number")


def run_words(state: State, run: Run) -> tuple[tuple[str, ...], str]:
    """The argv of a RUN, and the script that it needs as a file when a heredoc names its own `#!` interpreter.

    With a script the last word is its path, under /dev/pipes as in BuildKit.
    """
    if not run.shell:
        return run.args, ""
    shell = state.config.shell or DEFAULT_SHELL
    text = run.args[0]
    if run.heredocs:
        first = run.heredocs[0]
        if _is_heredoc_alone(text):
            if first.text.startswith("#!"):
                # BuildKit puts the path behind SHELL, whose -c runs it.
                return (*shell, f"/dev/pipes/{first.name}"), first.text
            return (*shell, first.text), ""
        text += "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in run.heredocs)
    return (*shell, text), ""


def _is_heredoc_alone(text: str) -> bool:
    try:
        return heredoc_word(text) is not None
    except InvalidInput:
        return False


def run_history(state: State, args: tuple[str, ...]) -> str:
    """`RUN |1 VERSION=2 /bin/sh -c make # buildkit`: the build arguments so far, each once, with the value in force."""
    given: dict[str, str] = {}
    for name, value in state.build_args:
        given[name] = state.variables.get(name, value or "")
    prefix = [f"|{len(given)}", *(f"{name}={value}" for name, value in given.items())] if given else []
    return f"RUN {' '.join([*prefix, *args])} # buildkit"


def arg_history(pairs: list[tuple[str, str | None]]) -> str:
    return "ARG " + " ".join(name if value is None else f"{name}={value}" for name, value in pairs)
