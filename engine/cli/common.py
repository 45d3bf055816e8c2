"""What the verbs share: an engine for the length of one command, and printing."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.lazy import lazy
from engine.cli import refused
from engine.cli.flags import Flag, UsageError, help_text, parse
from engine.errors import EngineError, InvalidInput, Unsupported

if TYPE_CHECKING:
    import asyncio

    from engine.api import Engine
    from engine.cli.flags import Parsed
else:
    asyncio = lazy("asyncio")

HELP = Flag("help", "Print this help", "")
# What a terminal acts on: C0 but tab and newline, DEL, C1. A name or message from an image must not drive the user's terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    return _CONTROL.sub("?", text)


def output_lines(text: str) -> list[str]:
    """A program's output as lines to show: of a line that it wrote over with carriage returns, the last state."""
    return [clean(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in text.removesuffix("\n").split("\n")]


def read(
    args: Sequence[str],
    usage: str,
    summary: str,
    flags: Sequence[Flag],
    *,
    minimum: int = 0,
    maximum: int | None = None,
    stop_at_argument: bool = False,
) -> Parsed | None:
    """Parses a verb's words; prints help and returns None for --help. Raises `UsageError`."""
    verb = usage.split()[0]
    known = [*flags, HELP]
    more = refused.flags(usage, known)
    try:
        parsed = parse(args, [*known, *more], verb, stop_at_argument=stop_at_argument)
    except InvalidInput as error:
        raise UsageError(error.message, usage, 125) from error
    if parsed.on("help"):
        from engine.cli import examples

        print(help_text(usage, summary, known) + examples.text(usage))
        return None
    refused.check(usage, parsed)
    count = len(parsed.args)
    if maximum == 0 and count:
        raise UsageError(f"{verb} accepts no arguments", usage, 1)
    if count < minimum or (maximum is not None and count > maximum):
        bound = "" if minimum == maximum else "at least " if count < minimum else "at most "
        number = minimum if count < minimum else maximum
        raise UsageError(f"{verb} requires {bound}{number} argument{'s' if number != 1 else ''}", usage, 1)
    return parsed


@contextlib.asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Engine]:
    """The engine that this command is for: the one on `root`, or the one of `--host`, whose `root` holds notes about it alone."""
    from engine import opening

    host = os.environ.get("WORKBENCH_HOST", "")
    async with opening.opened(host, root=None if host else root) as engine:
        yield engine


def here(what: str) -> None:
    """For verbs that are about this machine's own engine. Raises `Unsupported` with `--host`."""
    if host := os.environ.get("WORKBENCH_HOST"):
        raise Unsupported(
            f"{what} is about this machine's own engine, not the one at {host}",
            hint=f"run `workbench {what}` on that host",
        )


def run(root: Path, work: Callable[[Engine], Awaitable[int]], *, plain: bool = False) -> int:
    """Opens the engine, does `work`, returns its exit status. `plain`: it does one thing after the other, so that on this machine's own
    engine nothing needs a loop, which takes longer to load than `ps` to answer."""

    async def main() -> int:
        async with opened(root) as engine:
            return await work(engine)

    async def here() -> int:
        from engine.local import LocalEngine

        engine = LocalEngine(root.absolute())
        engine.inline = True
        try:
            return await work(engine)
        finally:
            await engine.close()

    if not plain or os.environ.get("WORKBENCH_HOST") or sys.platform != "linux":
        return asyncio.run(main())
    try:
        here().send(None)
    except StopIteration as done:
        return int(done.value)
    raise AssertionError("a plain command waited for a loop")


async def each(names: Sequence[str], act: Callable[[str], Awaitable[object]]) -> int:
    """Docker's habit: act on every name, print each that worked, tell each that did not, fail if any did not."""
    status = 0
    for name in names:
        try:
            await act(name)
        except EngineError as error:
            print(f"workbench: {error}", file=sys.stderr)
            if error.hint:
                print(f"  hint: {error.hint}", file=sys.stderr)
            status = 1
        else:
            print(name)
    return status
