"""`start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `attach`, `rename`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.keys import DETACH_KEYS, parse_keys
from engine.cli.common import each, read, run
from engine.cli.flags import Flag
from engine.cli.session import Detached, converse
from engine.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from engine.api import Engine

_KEYS = Flag("detach-keys", "Override the key sequence for detaching a container", kind="str")
_PROXY = Flag("sig-proxy", "Proxy all received signals to the process (default true)")


def cmd_start(root: Path, args: list[str]) -> int:
    flags = [
        Flag("attach", "Attach STDOUT/STDERR and forward signals", "a"),
        Flag("interactive", "Attach container's STDIN", "i"),
        _KEYS,
    ]
    parsed = read(
        args, "start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", flags, minimum=1
    )
    if parsed is None:
        return 0
    if not (parsed.on("attach") or parsed.on("interactive")):
        return run(root, lambda engine: each(parsed.args, engine.start), plain=True)
    if len(parsed.args) > 1:
        raise InvalidInput("you cannot start and attach multiple containers at once")
    keys, name = parse_keys(parsed.text("detach-keys", DETACH_KEYS)), parsed.args[0]

    async def work(engine: Engine) -> int:
        return await _attached(engine, name, keys, stdin=parsed.on("interactive"), proxy=True, start=True)

    return run(root, work)


def cmd_attach(root: Path, args: list[str]) -> int:
    flags = [_KEYS, Flag("no-stdin", "Do not attach STDIN"), _PROXY]
    parsed = read(
        args,
        "attach [OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        flags,
        minimum=1,
        maximum=1,
    )
    if parsed is None:
        return 0
    keys, name = parse_keys(parsed.text("detach-keys", DETACH_KEYS)), parsed.args[0]
    proxy = not parsed.given("sig-proxy") or parsed.on("sig-proxy")

    async def work(engine: Engine) -> int:
        status = (await engine.container(name)).summary.status
        if status == "paused":
            raise Conflict("you cannot attach to a paused container, unpause it first")
        if status == "restarting":
            raise Conflict("you cannot attach to a restarting container, wait until it is running")
        return await _attached(engine, name, keys, stdin=not parsed.on("no-stdin"), proxy=proxy, start=False)

    return run(root, work)


async def _attached(engine: Engine, name: str, keys: bytes, *, stdin: bool, proxy: bool, start: bool) -> int:
    """Until the container ends: its exit code. Until the user detaches: 0 if it was started here, else 1."""
    spec = (await engine.container(name)).spec
    feeds = stdin and spec.open_stdin
    stream = await (engine.start_attached(name) if start else engine.attach(name, stdin=feeds))
    try:
        await converse(
            stream,
            tty=spec.tty,
            stdin=feeds,
            forward=(lambda signal: engine.kill(name, signal)) if proxy else None,
            keys=keys,
            end_stdin=False,
        )
        return await engine.wait(name)
    except Detached:
        return 0 if start else Detached.told()
    finally:
        await stream.close()


def _each(
    root: Path,
    args: list[str],
    usage: str,
    summary: str,
    act: Callable[[Engine], Callable[[str], Awaitable[None]]],
) -> int:
    parsed = read(args, f"{usage} CONTAINER [CONTAINER...]", summary, [], minimum=1)
    return 0 if parsed is None else run(root, lambda engine: each(parsed.args, act(engine)), plain=True)


def cmd_pause(root: Path, args: list[str]) -> int:
    summary = "Pause all processes within one or more containers"
    return _each(root, args, "pause", summary, lambda engine: engine.pause)


def cmd_unpause(root: Path, args: list[str]) -> int:
    summary = "Unpause all processes within one or more containers"
    return _each(root, args, "unpause", summary, lambda engine: engine.unpause)


_END_FLAGS = [
    Flag("signal", "Signal to send to the container", "s", kind="str"),
    Flag("timeout", "Seconds to wait before killing the container", "t", kind="int"),
    Flag("time", "Seconds to wait before killing the container (as --timeout)", kind="int"),
]


def _end(root: Path, args: list[str], verb: str, summary: str) -> int:
    parsed = read(args, f"{verb} [OPTIONS] CONTAINER [CONTAINER...]", summary, _END_FLAGS, minimum=1)
    if parsed is None:
        return 0
    given = [name for name in ("timeout", "time") if parsed.given(name)]
    if len(given) > 1:
        raise InvalidInput("conflicting options: cannot specify both --timeout and --time")
    timeout = parsed.number(given[0]) if given else None
    signal = parsed.text("signal")

    async def work(engine: Engine) -> int:
        act = engine.stop if verb == "stop" else engine.restart
        return await each(parsed.args, lambda name: act(name, timeout=timeout, signal=signal))

    return run(root, work, plain=True)


def cmd_stop(root: Path, args: list[str]) -> int:
    return _end(root, args, "stop", "Stop one or more running containers")


def cmd_restart(root: Path, args: list[str]) -> int:
    return _end(root, args, "restart", "Restart one or more containers")


def cmd_kill(root: Path, args: list[str]) -> int:
    flags = [Flag("signal", "Signal to send to the container", "s", kind="str")]
    parsed = read(
        args, "kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", flags, minimum=1
    )
    if parsed is None:
        return 0
    return run(
        root,
        lambda engine: each(parsed.args, lambda name: engine.kill(name, parsed.text("signal", "KILL"))),
        plain=True,
    )


def cmd_wait(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "wait CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes",
        [],
        minimum=1,
    )
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        for name in parsed.args:
            print(await engine.wait(name), flush=True)
        return 0

    return run(root, work, plain=True)


def cmd_rename(root: Path, args: list[str]) -> int:
    parsed = read(args, "rename CONTAINER NEW_NAME", "Rename a container", [], minimum=2, maximum=2)
    if parsed is None:
        return 0

    async def work(engine: Engine) -> int:
        await engine.rename(parsed.args[0], parsed.args[1])
        return 0

    return run(root, work, plain=True)
