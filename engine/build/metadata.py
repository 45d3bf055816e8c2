"""Instructions that change the image's config alone, and the small rules around a step (pure, but for reading the Dockerfile)."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

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
    Stopsignal,
    User,
    Volume,
)
from engine.build.dockerfile.parser import parse
from engine.build.dockerfile.words import expand
from engine.errors import InvalidInput, NotFound, Unsupported, from_os_error
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform

if TYPE_CHECKING:
    from engine.build.copy import CopyItem
    from engine.build.solver import State
    from engine.build.source import Source

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
MAX_DOCKERFILE = 4 << 20
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def read_dockerfile(path: Path) -> Dockerfile:
    """Parses the file at `path`. Raises `NotFound`, `DockerfileError`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_DOCKERFILE + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no Dockerfile at {path}", hint="create one, or name it with -f FILE") from None
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error
    if len(data) > MAX_DOCKERFILE:
        raise InvalidInput(f"{path} is larger than {MAX_DOCKERFILE} bytes: not a Dockerfile")
    return parse(data.decode("utf-8", errors="replace"), str(path))


def platform_args(host: Platform) -> dict[str, str]:
    """TARGET* and BUILD*: both are this host, for it builds for itself."""
    text = "/".join(filter(None, (host.os, host.architecture, host.variant)))
    values = {"PLATFORM": text, "OS": host.os, "ARCH": host.architecture, "VARIANT": host.variant}
    return {side + name: value for side in ("TARGET", "BUILD") for name, value in values.items()}


def env_map(entries: Sequence[str]) -> dict[str, str]:
    """`K=V` entries as a mapping. An entry without `=` is empty, never the engine's own variable (CVE-2026-57231)."""
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, _, value in pairs if name}


def run_args(state: State, run: Run) -> tuple[str, ...]:
    """The argv of a RUN: exec form as it is, shell form behind SHELL, a heredoc as the shell's text."""
    if not run.shell:
        return run.args
    shell = state.config.shell or DEFAULT_SHELL
    text = run.args[0]
    if run.heredocs:
        only = run.heredocs[0]
        if len(run.heredocs) == 1 and text.strip().lstrip("<").lstrip("-").strip("'\"") == only.name:
            if only.content.startswith("#!"):
                raise Unsupported(
                    "a heredoc with its own #! interpreter is not supported yet",
                    hint="name the interpreter: RUN python3 <<EOF",
                )
            return (*shell, only.content)
        bodies = "".join(f"{doc.content}{doc.name}\n" for doc in run.heredocs)
        text = f"{text}\n{bodies}"
    return (*shell, text)


def run_history(state: State, args: Sequence[str]) -> str:
    """`RUN |1 VERSION=2 /bin/sh -c make # buildkit`, as BuildKit writes it."""
    given = [f"{name}={value}" for name, value in state.args.items()]
    prefix = f"|{len(given)} {' '.join(given)} " if given else ""
    return f"RUN {prefix}{' '.join(args)} # buildkit"


def apply(state: State, instruction: Instruction, escape: str) -> ImageConfig:
    """The config after an instruction that makes no layer. Updates the state's variables where the instruction sets them."""
    config, scope = state.config, state.scope()

    def word(text: str) -> str:
        return expand(text, scope, escape)

    match instruction:
        case Env():
            # One instruction sees one set of values: `ENV abc=bye def=$abc` gives the old abc.
            state.env |= {word(key): word(value) for key, value in instruction.pairs}
            return config.with_config(Env=[f"{key}={value}" for key, value in state.env.items()])
        case Label():
            return config.with_config(
                Labels={**config.labels, **{word(key): word(value) for key, value in instruction.pairs}}
            )
        case User():
            return config.with_config(User=word(instruction.user))
        case Expose():
            ports = [port for text in instruction.ports for port in _ports(word(text))]
            return config.with_config(ExposedPorts={port: {} for port in (*config.exposed_ports, *ports)})
        case Volume():
            paths = [word(path) for path in instruction.paths]
            return config.with_config(Volumes={path: {} for path in (*config.volumes, *paths)})
        case Stopsignal():
            return config.with_config(StopSignal=word(instruction.signal))
        case Shell():
            return config.with_config(Shell=list(instruction.args))
        case Cmd():
            state.own_cmd = True
            return config.with_config(Cmd=_command(config, instruction), ArgsEscaped=None)
        case Entrypoint():
            # ENTRYPOINT resets a CMD that came from the base image.
            keep = {} if state.own_cmd else {"Cmd": None}
            return config.with_config(Entrypoint=_command(config, instruction), **cast("dict[str, Any]", keep))
        case Healthcheck():
            return config.with_config(Healthcheck=instruction.to_config())
        case Onbuild():
            return config.with_config(OnBuild=[*config.on_build, instruction.text])
        case Maintainer():
            return config.with_author(instruction.name)
        case Arg():
            return config
    raise Unsupported(f"{type(instruction).__name__.upper()} is not supported here")


def _command(config: ImageConfig, instruction: Cmd | Entrypoint) -> list[str]:
    return [*(config.shell or DEFAULT_SHELL), *instruction.args] if instruction.shell else list(instruction.args)


def _ports(text: str) -> list[str]:
    """`8000`, `53/udp`, `7000-7002/tcp` as `port/protocol` entries."""
    ports, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    first, _, last = ports.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise InvalidInput(f"{text!r} is not a port", hint="write 8000, 8000/tcp or 7000-7002/udp") from None
    if not 0 < low <= high < 65536 or protocol not in ("tcp", "udp", "sctp"):
        raise InvalidInput(f"{text!r} is not a port", hint="ports go from 1 to 65535; protocols are tcp, udp and sctp")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def refuse_unsupported_copy(copy: Copy | Add) -> None:
    """What COPY and ADD cannot do yet, said before anything is done."""
    name = type(copy).__name__.upper()
    if copy.heredocs:
        raise Unsupported(f"{name} of a heredoc is not supported yet", hint="put the text into a file of the context")
    for flag in ("parents", "exclude"):
        if getattr(copy, flag, None):
            raise Unsupported(f"{name} --{flag} is not supported yet", hint="it comes with the builder issue")
    if isinstance(copy, Add):
        for source in copy.sources:
            if "://" in source or source.startswith("git@"):
                raise Unsupported(
                    f"ADD of {source!r} is not supported yet", hint="fetch it in a RUN step, or put it into the context"
                )


def refuse_archives(source: Source, items: Sequence[CopyItem]) -> None:
    """ADD unpacks a local archive; until it does here, copying one unopened would be a different image."""
    import os

    for item in items:
        if stat.S_ISREG(item.node.status.st_mode):
            fd = source.open(item.node)
            try:
                head = os.read(fd, 262 + 8)
            finally:
                os.close(fd)
            if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
                raise Unsupported(
                    f"ADD of the archive {item.node.path} is not supported yet",
                    hint="use COPY and unpack it in a RUN step",
                )


class LineSplitter:
    """Bytes of two streams in, whole decoded lines out. A long line without an end goes out in parts of 64 KiB."""

    def __init__(self, emit: Callable[[Literal["stdout", "stderr"], str], None]) -> None:
        self._emit = emit
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._rest = {"stdout": "", "stderr": ""}

    def feed(self, stream: str, data: bytes) -> None:
        text = self._rest[stream] + self._decoders[stream].decode(data)
        whole, newline, rest = text.rpartition("\n")
        if len(rest) > 65536:
            whole, newline, rest = text, "\n", ""
        self._rest[stream] = rest
        if newline:
            self._emit(cast("Literal['stdout', 'stderr']", stream), whole)

    def flush(self) -> None:
        for stream, rest in self._rest.items():
            if rest:
                self._emit(cast("Literal['stdout', 'stderr']", stream), rest)
                self._rest[stream] = ""
