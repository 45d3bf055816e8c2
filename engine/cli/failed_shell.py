"""`build --shell-on-error`: a shell where a RUN step failed, and what was done in it as a line for the Dockerfile."""

from __future__ import annotations

import asyncio
import io
import secrets
import sys
from pathlib import Path

from engine.base.failed_step import ENVIRONMENT, HISTORY, SHELL, as_run, commands
from engine.cli.common import clean, opened
from engine.cli.run import cmd_run
from engine.errors import BuildFailed, EngineError

SHOWN = 30  # changed paths that are listed


def open_shell(root: Path, error: BuildFailed) -> None:
    """Runs the shell on the kept image; afterwards says what changed, and offers the commands as a RUN line."""
    print(f"workbench: {error}", file=sys.stderr)
    print(
        "a shell in the failed step: its files, environment, user and directory (mounts and secrets of the step are not there). "
        "Leave it with `exit`.",
        file=sys.stderr,
    )
    name = f"failed-step-{secrets.token_hex(4)}"
    words = ["-it", "--name", name, *(word for each in ENVIRONMENT for word in ("-e", each))]
    try:
        cmd_run(root, [*words, "--entrypoint", "/bin/sh", error.image, "-c", SHELL])
        asyncio.run(_report(root, name))
    except EngineError as failure:
        print(f"workbench: {failure}", file=sys.stderr)


async def _report(root: Path, name: str) -> None:
    async with opened(root) as engine:
        try:
            changes = [change for change in await engine.changes(name) if change.path != HISTORY]
            data = io.BytesIO()
            typed: list[str] = []
            try:
                await engine.get_archive(name, HISTORY, data)
                typed = commands(data.getvalue())
            except EngineError:
                pass  # this shell keeps no history
        finally:
            await engine.remove(name, force=True)
    if not changes:
        print("nothing was changed in the shell", file=sys.stderr)
        return
    print(f"changed in the shell ({len(changes)}):", file=sys.stderr)
    for change in changes[:SHOWN]:
        print(f"  {clean(change.path)}", file=sys.stderr)
    if typed:
        print("as a line for the Dockerfile (what was typed, in order: take out what is not needed):", file=sys.stderr)
        print(as_run([clean(line) for line in typed]))
    else:
        print(
            "the image's shell keeps no history: write what you did as a RUN line above the failed one", file=sys.stderr
        )
