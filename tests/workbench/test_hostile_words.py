"""What a container and its build print, in the real app: none of it may reach the terminal as anything but text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.local import open_engine
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from tests.patience import PATIENCE
from workbench.app import WorkbenchApp
from workbench.panes.build import BuildPane
from workbench.panes.logs import LogsPane

# The clipboard (OSC 52), the title, a cleared screen (C0 and C1 forms), a mode, a device's status asked for, text reordered.
HOSTILE = "\x1b]52;c;aGk=\x07\x1b]0;title\x1b\\\x1b[2J\x9b2J\x1b[?1049h\x1b[6n\u202e\x07\x0e"
SAY = f"import time\nprint({HOSTILE!r} + 'spoken', flush=True)\n"


@pytest.mark.root
async def test_rt21_nothing_of_a_container_drives_the_terminal(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "say.py").write_text(SAY)
    label = HOSTILE.replace("\x1b\\", "").replace("\x9b", "")
    (folder / "Dockerfile").write_text(
        f"FROM workbench/base\nLABEL words='{label}'\nCOPY say.py /\nRUN python3 /say.py\n"
        'CMD ["sh", "-c", "python3 /say.py; sleep 1000"]\n'
    )
    engine = await open_engine(data_root)
    await engine.ensure_base()
    loop = InnerLoop(engine, discover(folder), data_root / "projects")
    app = WorkbenchApp(engine, loop, title="hostile")
    try:
        async with app.run_test(size=(160, 45)) as pilot:
            async with asyncio.timeout(PATIENCE):
                logs, build = app.panes["logs"], app.panes["build"]
                assert isinstance(logs, LogsPane)
                assert isinstance(build, BuildPane)
                view = logs.view
                while not any("spoken" in view.render_line(y).text for y in range(view.page if view.is_mounted else 0)):
                    await pilot.pause(0.05)
                app.action_pane("build")
                while not any("spoken" in repr(line) for line in build.view.lines):  # the step that said it
                    await pilot.press("k")
                    await pilot.pause(0.05)
            await pilot.pause(0.2)
            drawn = [segment.text for strip in app.screen._compositor.render_strips() for segment in strip]
    finally:
        await loop.close()
        for container in await engine.containers(all=True):
            await engine.remove(container.id, force=True)
        await engine.close()
    assert any("spoken" in text for text in drawn)
    driving = [text for text in drawn if any(not one.isprintable() and one != "\n" for one in text)]
    assert not driving, driving[:3]
