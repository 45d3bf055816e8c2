"""`run` and `exec`: Docker's flags, a raw terminal where one was asked for, exit codes 125, 126, 127 and 128+n."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.base.keys import DETACH_KEYS, parse_keys
from engine.cli.common import read, run
from engine.cli.flags import BadFlag, Flag
from engine.cli.host_flags import HOST_FLAGS, host_values
from engine.cli.images import show_pull
from engine.cli.life_flags import LIFE_FLAGS, RUN_ONLY_FLAGS, attached, cidfile, life_fields
from engine.cli.network_flags import NETWORK_FLAGS, network_values
from engine.cli.session import Detached, converse, terminal_size
from engine.errors import InvalidInput, NotFound
from engine.model import ContainerSpec, ExecSpec
from engine.oci.reference import Reference
from engine.service.mount_specs import parse_mount_flag, parse_volume_flag

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.cli.flags import Parsed

T = TypeVar("T")

RUN_FLAGS = [
    Flag("detach", "Run container in background and print container ID", "d"),
    Flag("interactive", "Keep STDIN open even if not attached", "i"),
    Flag("tty", "Allocate a pseudo-TTY", "t"),
    Flag("rm", "Automatically remove the container when it exits"),
    Flag("name", "Assign a name to the container", kind="str"),
    Flag("env", "Set environment variables", "e", kind="list"),
    Flag("env-file", "Read in a file of environment variables", kind="list"),
    Flag("user", "Username or UID (format: <name|uid>[:<group|gid>])", "u", kind="str"),
    Flag("workdir", "Working directory inside the container", "w", kind="str"),
    Flag("entrypoint", "Overwrite the default ENTRYPOINT of the image", kind="str"),
    Flag("label", "Set meta data on a container", "l", kind="list"),
    Flag("label-file", "Read in a line delimited file of labels", kind="list"),
    Flag("volume", "Bind mount a volume or a host path: [SOURCE:]TARGET[:OPTIONS]", "v", kind="list"),
    Flag("mount", "Attach a filesystem mount to the container: type=volume,src=NAME,dst=PATH", kind="list"),
    Flag("volumes-from", "Mount volumes from the specified container(s)", kind="list"),
    Flag("volume-driver", "Volume driver for the container", kind="str"),
    Flag("platform", "Set platform if server is multi-platform capable", kind="str"),
    Flag("pull", "Pull image before running: always, missing, never", kind="str"),
    Flag("quiet", "Suppress the pull output", "q"),
    *NETWORK_FLAGS,
    *HOST_FLAGS,
    *LIFE_FLAGS,
    *RUN_ONLY_FLAGS,
]


def cmd_run(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        RUN_FLAGS,
        minimum=1,
        stop_at_argument=True,
    )
    return 0 if parsed is None else run(root, lambda engine: _run(engine, parsed))


def container_spec(parsed: Parsed) -> ContainerSpec:
    """The flags as a spec. Raises `InvalidInput` for what this engine cannot do."""
    entrypoint = parsed.text("entrypoint")
    volumes = [parse_volume_flag(text) for text in parsed.items("volume")]
    binds = [mount for mount in volumes if mount.source]
    return ContainerSpec(
        image=parsed.args[0],
        name=parsed.text("name"),
        platform=parsed.text("platform"),
        command=tuple(parsed.args[1:]) or None,
        entrypoint=((entrypoint,) if entrypoint else ()) if parsed.given("entrypoint") else None,
        env=tuple(environment(parsed)),
        user=parsed.text("user") or None,
        working_dir=parsed.text("workdir") or None,
        tty=parsed.on("tty"),
        open_stdin=parsed.on("interactive"),
        labels=_labels(parsed),
        mounts=(*binds, *(parse_mount_flag(text) for text in parsed.items("mount"))),
        volumes=tuple(mount.target for mount in volumes if not mount.source),
        volumes_from=tuple(parsed.items("volumes-from")),
        volume_driver=parsed.text("volume-driver"),
        auto_remove=parsed.on("rm"),
        runtime=parsed.text("runtime"),
        **network_values(parsed),
        **host_values(parsed),
        **life_fields(parsed, detached=parsed.on("detach")),
    )


def _labels(parsed: Parsed) -> dict[str, str]:
    """Those of the files first, so that `--label` has the last word."""
    lines = [line for path in parsed.items("label-file") for line in _lines(path, "label")]
    return dict(text.partition("=")[::2] for text in (*lines, *parsed.items("label")))


def _lines(path: str, what: str) -> Iterator[str]:
    """Of a file of `key=value` lines: no comments, no empty ones. Raises InvalidInput."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError:
        raise InvalidInput(f"{what} file {path} is no UTF-8 text") from None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.lstrip()
        if line and not line.startswith("#"):
            name = line.partition("=")[0]
            if not name or " " in name.rstrip() or "\t" in name.rstrip():
                raise InvalidInput(f"{what} file {path}, line {number}: {name!r} is no name of a variable or label")
            yield line


def environment(parsed: Parsed) -> Iterator[str]:
    for path in parsed.items("env-file"):
        for line in _lines(path, "env"):
            if "=" in line:
                yield line
            elif line in os.environ:
                yield f"{line}={os.environ[line]}"
    for text in parsed.items("env"):
        if not text:
            raise BadFlag("invalid environment variable: it is empty", hint="write NAME=VALUE or NAME")
        # `-e NAME` takes the value from the user's own shell, and nothing when it is not set there.
        if "=" in text:
            yield text
        elif text in os.environ:
            yield f"{text}={os.environ[text]}"


def pull_policy(parsed: Parsed) -> str:
    """Raises `InvalidInput` for one that there is not."""
    pull = parsed.text("pull", "missing")
    if pull not in ("always", "missing", "never", ""):
        raise InvalidInput(f'invalid pull option: \'{pull}\': must be one of "always", "missing" or "never"')
    return pull


async def _create(engine: Engine, parsed: Parsed, spec: ContainerSpec) -> str:
    """The id; the image is pulled if it is missing."""
    pull = pull_policy(parsed)
    if pull == "always":
        await show_pull(engine.pull(spec.image, platform=spec.platform), quiet=parsed.on("quiet"))
    try:
        return await engine.create(spec)
    except NotFound:
        if pull == "never" or pull == "always":
            raise
        if spec.image.split(":")[0] == "workbench/base":
            await engine.ensure_base()
        else:
            if not parsed.on("quiet"):
                name = Reference.parse(spec.image).with_default_tag().familiar
                print(f"Unable to find image '{name}' locally", file=sys.stderr, flush=True)
            await show_pull(engine.pull(spec.image, platform=spec.platform), quiet=parsed.on("quiet"))
    return await engine.create(spec)


async def _run(engine: Engine, parsed: Parsed) -> int:
    detach, interactive = parsed.on("detach"), parsed.on("interactive")
    streams = attached(parsed)
    keys = parse_keys(parsed.text("detach-keys", DETACH_KEYS))
    _need_terminal(parsed)
    spec = container_spec(parsed)
    with cidfile(parsed) as write:
        container_id = await _create(engine, parsed, spec)
        write(container_id)
    if detach:
        await _start(engine, container_id, spec, engine.start)
        await _warn(engine, container_id)
        print(container_id)
        return 0
    stream = await _start(engine, container_id, spec, engine.start_attached)
    await _warn(engine, container_id)
    proxy = not parsed.given("sig-proxy") or parsed.on("sig-proxy")
    try:
        await converse(
            stream,
            tty=spec.tty,
            stdin=spec.attach_stdin and interactive,
            forward=(lambda name: engine.kill(container_id, name)) if proxy else None,
            keys=keys,
            show=streams - {"stdin"} if streams else {"stdout", "stderr"},
        )
        return await engine.wait(container_id)
    except Detached:
        return 0
    finally:
        await stream.close()


async def _warn(engine: Engine, container_id: str) -> None:
    """Limits that were asked for and do not hold on this host."""
    with contextlib.suppress(NotFound):  # it ended, and was removed
        for text in (await engine.container(container_id)).summary.warnings:
            print(f"WARNING: {text}", file=sys.stderr)


async def _start(engine: Engine, container_id: str, spec: ContainerSpec, start: Callable[[str], Awaitable[T]]) -> T:
    try:
        return await start(container_id)
    except BaseException:
        if spec.auto_remove:
            with contextlib.suppress(NotFound):
                await engine.remove(container_id, force=True, volumes=True)
        raise


def cmd_create(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container, and do not start it",
        [flag for flag in RUN_FLAGS if flag.name not in ("detach", *(f.name for f in RUN_ONLY_FLAGS))],
        minimum=1,
        stop_at_argument=True,
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        with cidfile(parsed) as write:
            container_id = await _create(engine, parsed, container_spec(parsed))
            write(container_id)
        print(container_id)
        return 0

    return run(root, work)


def cmd_exec(root: Path, args: list[str]) -> int:
    flags = [
        Flag("detach", "Detached mode: run command in the background", "d"),
        Flag("detach-keys", "Override the key sequence for detaching a container", kind="str"),
        Flag("interactive", "Keep STDIN open even if not attached", "i"),
        Flag("tty", "Allocate a pseudo-TTY", "t"),
        Flag("env", "Set environment variables", "e", kind="list"),
        Flag("env-file", "Read in a file of environment variables", kind="list"),
        Flag("user", "Username or UID", "u", kind="str"),
        Flag("workdir", "Working directory inside the container", "w", kind="str"),
        Flag("privileged", "Give extended privileges to the command"),
    ]
    parsed = read(
        args,
        "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        flags,
        minimum=2,
        stop_at_argument=True,
    )
    if parsed is None:
        return 0
    detach, interactive = parsed.on("detach"), parsed.on("interactive")
    keys = parse_keys(parsed.text("detach-keys", DETACH_KEYS))
    _need_terminal(parsed)
    spec = ExecSpec(
        tuple(parsed.args[1:]),
        tuple(environment(parsed)),
        parsed.text("user") or None,
        parsed.text("workdir") or None,
        parsed.on("tty"),
        interactive and not detach,
        parsed.on("privileged"),
        detach=detach,
        tty_size=terminal_size(),
    )

    async def work(engine: Engine) -> int:
        stream = await engine.exec(parsed.args[0], spec)
        try:
            if detach:
                return 0
            await converse(stream, tty=spec.tty, stdin=interactive, forward=None, keys=keys)
            return await stream.wait()
        except Detached:
            return Detached.told()
        finally:
            await stream.close()

    return run(root, work)


def _need_terminal(parsed: Parsed) -> None:
    if parsed.on("tty") and parsed.on("interactive") and not parsed.on("detach") and not sys.stdin.isatty():
        raise BadFlag("the input device is not a TTY", exit_status=1)
