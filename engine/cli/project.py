"""`demo`, and the app on a project."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.cli.app_flags import APP_FLAGS
from engine.cli.common import read
from engine.cli.flags import Flag
from engine.cli.project_flags import Choice
from engine.cli.project_up import up


def cmd_demo(root: Path, args: list[str]) -> int:
    parsed = read(
        args,
        "demo [OPTIONS] [PATH]",
        "Make a small sample project in PATH (default: ./workbench-demo), build it, run it, open the app on it",
        [Flag("no-app", "Only write, build and start it"), *APP_FLAGS],
        maximum=1,
    )
    if parsed is None:
        return 0
    from engine.project.demo import write_demo

    folder = Path(parsed.args[0] if parsed.args else "workbench-demo").absolute()
    written = write_demo(folder)
    print(f"the demo project is in {folder}" + ("" if written else " (it was there already)"), file=sys.stderr)
    if parsed.on("no-app"):
        return up(root, ["--once"], Choice(root, folder))
    from engine.cli.app import run_app

    return run_app(root, folder, parsed)
