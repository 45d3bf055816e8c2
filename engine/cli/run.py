"""`run` and `exec`: Docker's flags, a raw terminal where one was asked for, exit codes 125, 126, 127 and 128+n."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.cli.common import read, run
from engine.cli.flags import Flag, Parsed
from engine.cli.host_flags import HOST_FLAGS, host_values
from engine.cli.images import show_pull
from engine.errors import EngineError, InvalidInput, NotFound
from engine.model import ContainerSpec, ExecSpec
from engine.oci.reference import Reference
from engine.service.mount_specs import parse_mount_flag, parse_volume_flag

if TYPE_CHECKING:
    from engine.api import Stream
    from engine.local import LocalEngine

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
    Flag("hostname", "Container host name", kind="str"),
    Flag("entrypoint", "Overwrite the default ENTRYPOINT of the image", kind="str"),
    Flag("label", "Set meta data on a container", "l", kind="list"),
    Flag("volume", "Bind mount a volume or a host path: [SOURCE:]TARGET[:OPTIONS]", "v", kind="list"),
    Flag("mount", "Attach a filesystem mount to the container: type=volume,src=NAME,dst=PATH", kind="list"),
    Flag("volumes-from", "Mount volumes from the specified container(s)", kind="list"),
    Flag("volume-driver", "Volume driver for the container", kind="str"),
    Flag("publish", "Publish a port; host network: the same port on both sides", "p", kind="list"),
    Flag("stop-signal", "Signal to stop the container", kind="str"),
    Flag("stop-timeout", "Timeout (in seconds) to stop a container", kind="int"),
    Flag("pull", "Pull image before running: always, missing, never", kind="str"),
    Flag("network", "host is what there is so far", kind="str"),
    Flag("quiet", "Suppress the pull output", "q"),
    *HOST_FLAGS,
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
    if parsed.text("network", "host") not in ("host", "default"):
        raise InvalidInput(
            f"--network {parsed.text('network')} is not supported yet",
            hint="containers share the host's network for now",
        )
    entrypoint = parsed.text("entrypoint")
    volumes = [parse_volume_flag(text) for text in parsed.items("volume")]
    binds = [mount for mount in volumes if mount.source]
    return ContainerSpec(
        image=parsed.args[0],
        name=parsed.text("name"),
        command=tuple(parsed.args[1:]) or None,
        entrypoint=((entrypoint,) if entrypoint else ()) if parsed.given("entrypoint") else None,
        env=tuple(environment(parsed)),
        user=parsed.text("user") or None,
        working_dir=parsed.text("workdir") or None,
        hostname=parsed.text("hostname"),
        tty=parsed.on("tty"),
        open_stdin=parsed.on("interactive"),
        labels=dict(text.partition("=")[::2] for text in parsed.items("label")),
        mounts=(*binds, *(parse_mount_flag(text) for text in parsed.items("mount"))),
        volumes=tuple(mount.target for mount in volumes if not mount.source),
        volumes_from=tuple(parsed.items("volumes-from")),
        volume_driver=parsed.text("volume-driver"),
        ports=tuple(_port(text) for text in parsed.items("publish")),
        stop_signal=parsed.text("stop-signal"),
        stop_timeout=parsed.number("stop-timeout") if parsed.given("stop-timeout") else None,
        auto_remove=parsed.on("rm"),
        runtime=parsed.text("runtime"),
        **host_values(parsed),
    )


def environment(parsed: Parsed) -> Iterator[str]:
    for path in parsed.items("env-file"):
        for line in Path(path).read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                yield line if "=" in line else f"{line}={os.environ.get(line, '')}"
    for text in parsed.items("env"):
        # `-e NAME` takes the value from the user's own shell, and nothing when it is not set there.
        if "=" in text:
            yield text
        elif text in os.environ:
            yield f"{text}={os.environ[text]}"


def _port(text: str) -> str:
    ports, _, protocol = text.partition("/")
    parts = ports.split(":")
    if len(parts) > 2 or (len(parts) == 2 and parts[0] != parts[1]) or not parts[-1].isdigit():
        raise InvalidInput(
            f"-p {text}: containers share the host's network for now, so a port is published as it is",
            hint=f"write -p {parts[-1]}:{parts[-1]}",
        )
    return f"{parts[-1]}/{protocol or 'tcp'}"


async def _run(engine: LocalEngine, parsed: Parsed) -> int:
    spec = container_spec(parsed)
    pull = parsed.text("pull", "missing")
    if pull == "always":
        await show_pull(engine.pull(spec.image), quiet=parsed.on("quiet"))
    try:
        container_id = await engine.create(spec)
    except NotFound:
        if pull == "never" or pull == "always":
            raise
        if spec.image.split(":")[0] == "workbench/base":
            await engine.ensure_base()
        else:
            if not parsed.on("quiet"):
                name = Reference.parse(spec.image).with_default_tag().familiar
                print(f"Unable to find image '{name}' locally", file=sys.stderr, flush=True)
            await show_pull(engine.pull(spec.image), quiet=parsed.on("quiet"))
        container_id = await engine.create(spec)
    if parsed.on("detach"):
        await _start(engine, container_id, spec, engine.start)
        await _warn(engine, container_id)
        print(container_id)
        return 0
    stream = await _start(engine, container_id, spec, engine.start_attached)
    await _warn(engine, container_id)
    try:
        await converse(
            stream, tty=spec.tty, stdin=spec.open_stdin, forward=lambda name: engine.kill(container_id, name)
        )
        return await engine.wait(container_id)
    finally:
        await stream.close()


async def _warn(engine: LocalEngine, container_id: str) -> None:
    """Limits that were asked for and do not hold on this host."""
    with contextlib.suppress(NotFound):  # it ended, and was removed
        for text in (await engine.container(container_id)).summary.warnings:
            print(f"WARNING: {text}", file=sys.stderr)


async def _start(
    engine: LocalEngine, container_id: str, spec: ContainerSpec, start: Callable[[str], Awaitable[T]]
) -> T:
    try:
        return await start(container_id)
    except BaseException:
        if spec.auto_remove:
            with contextlib.suppress(NotFound):
                await engine.remove(container_id, force=True, volumes=True)
        raise


def cmd_exec(root: Path, args: list[str]) -> int:
    flags = [
        Flag("interactive", "Keep STDIN open even if not attached", "i"),
        Flag("tty", "Allocate a pseudo-TTY", "t"),
        Flag("env", "Set environment variables", "e", kind="list"),
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
    spec = ExecSpec(
        tuple(parsed.args[1:]),
        tuple(environment(parsed)),
        parsed.text("user") or None,
        parsed.text("workdir") or None,
        parsed.on("tty"),
        parsed.on("interactive"),
        parsed.on("privileged"),
    )

    async def work(engine: LocalEngine) -> int:
        stream = await engine.exec(parsed.args[0], spec)
        try:
            await converse(stream, tty=spec.tty, stdin=parsed.on("interactive"), forward=None)
            return await stream.wait()
        finally:
            await stream.close()

    return run(root, work)


async def converse(
    stream: Stream, *, tty: bool, stdin: bool, forward: Callable[[str], Coroutine[object, object, None]] | None
) -> None:
    """Bytes between this terminal and the container until its output ends."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def tried(coroutine: Coroutine[object, object, None]) -> None:
        with contextlib.suppress(EngineError):  # it ended in between; the exit code tells
            await coroutine

    def later(coroutine: Coroutine[object, object, None]) -> None:
        task = loop.create_task(tried(coroutine))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with _raw(tty and stdin), contextlib.ExitStack() as undo:
        if stdin:
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            loop.add_reader(0, lambda: queue.put_nowait(os.read(0, 65536)))
            undo.callback(loop.remove_reader, 0)
            later(_feed(stream, queue, loop))
        else:
            await stream.close_stdin()
        if tty and sys.stdout.isatty():

            def resized() -> None:
                size = shutil.get_terminal_size()
                later(stream.resize(size.lines, size.columns))

            resized()
            loop.add_signal_handler(signal.SIGWINCH, resized)
            undo.callback(loop.remove_signal_handler, signal.SIGWINCH)
        if forward is not None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, lambda number=number: later(forward(number.name)))  # type: ignore[misc]
                undo.callback(loop.remove_signal_handler, number)
        while chunk := await stream.read():
            name, data = chunk
            out = sys.stderr.buffer if name == "stderr" else sys.stdout.buffer
            out.write(data)
            out.flush()
        for task in list(tasks):
            task.cancel()


async def _feed(stream: Stream, queue: asyncio.Queue[bytes], loop: asyncio.AbstractEventLoop) -> None:
    while True:
        data = await queue.get()
        if not data:
            loop.remove_reader(0)
            await stream.close_stdin()
            return
        await stream.write(data)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """The terminal in raw mode, so that keys reach the container as they are; restored whatever happens."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
