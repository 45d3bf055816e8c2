"""The one door from the command line to the Textual app."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from engine.errors import Unsupported

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.project.loop import InnerLoop


async def run_app(engine: Engine, loop: InnerLoop | None, title: str) -> int:
    """Raises `Unsupported` without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Unsupported(
            "the app needs a terminal", hint="over ssh use `ssh -t`; without one, `workbench up` does the same in lines"
        )
    from workbench.app import WorkbenchApp

    app = WorkbenchApp(engine, loop, title=title)
    try:
        await app.run_async()
    finally:
        if loop is not None:
            await loop.close()
    print("the containers go on; `workbench ps` shows them", file=sys.stderr)
    return app.return_code or 0
