"""`demo`, and the app on a project."""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path

from engine.cli.common import opened, read
from engine.cli.flags import Flag
from engine.cli.project_flags import Choice, state_dir
from engine.cli.project_up import up
from engine.errors import NotFound
from engine.project.discovery import discover
from engine.project.loop import InnerLoop


def cmd_demo(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "demo [OPTIONS] [PATH]",
        "Make a small sample project in PATH (default: ./workbench-demo), build it, run it, open the app on it",
        [Flag("no-app", "Only write, build and start it")],
        maximum=1,
    )
    if parsed is None:
        return 0
    from engine.project.demo import write_demo

    folder = Path(parsed.args[0] if parsed.args else "workbench-demo").absolute()
    written = write_demo(folder)
    print(f"the demo project is in {folder}" + ("" if written else " (it was there already)"), file=sys.stderr)
    if parsed.on("no-app"):
        return up(root, ["--once"], Choice(folder))
    return open_app(root, folder)


def open_app(root: Path, folder: Path) -> int:
    """The Textual app on the project in `folder`; without a project there, on the engine alone."""
    from engine.cli.app import run_app

    try:
        project = discover(folder)
    except NotFound:
        project = None

    async def main() -> int:
        async with opened(root) as engine:
            again = functools.partial(discover, folder)
            loop = InnerLoop(engine, project, state_dir(root), reload=again) if project else None
            return await run_app(engine, loop, project.name if project else "")

    return asyncio.run(main())
