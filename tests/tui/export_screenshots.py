"""Writes screenshots/*.svg from the real app on the demo project: `sudo python -m tests.tui.export_screenshots`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from engine.local import open_engine
from engine.project.demo import write_demo
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from tests.patience import PATIENCE
from workbench.app import WorkbenchApp

TARGET = Path(__file__).parents[2] / "screenshots"
SIZES = ((80, 24), (160, 45))


def drawn(app: WorkbenchApp) -> str:
    """The screen as text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def shows(pilot: Any, text: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while text not in drawn(pilot.app):
                await pilot.pause(0.05)
    except TimeoutError:
        raise SystemExit(f"{text!r} did not come:\n{drawn(pilot.app)}") from None
    await pilot.pause(0.5)


async def tour(pilot: Any, folder: Path, name: str) -> None:
    app = pilot.app
    source, dockerfile = folder / "app.py", folder / "Dockerfile"

    async def take(what: str, *keys: str, until: str) -> None:
        await pilot.press(*keys)
        await shows(pilot, until)
        app.save_screenshot(f"{what}-{name}.svg", str(TARGET))

    await shows(pilot, "http://localhost")
    await pilot.pause(1.5)  # the watcher takes its first look
    source.write_text(source.read_text().replace("Hello from", "Saved in"))
    await shows(pilot, "Saved in")
    await take("overview", "2", until="Saved in")
    await take("stats", "9", until="memory")
    await pilot.press("4", "g", "j")
    await take("explorer", "enter", until="app.py")
    await pilot.press("2")
    await take("help", "question_mark", until="keys: containers")
    await pilot.press("escape")
    await take("palette", "colon", *"stop", until="Stop shop-web-1")
    await pilot.press("escape")
    await take("remove", "2", "d", until="workbench rm -f shop-web-1")
    await pilot.press("escape")
    await take("run", "3", "x", until="workbench run -d")
    await pilot.press("escape", "2", "escape")
    good = dockerfile.read_text()
    dockerfile.write_text(good.replace("COPY", "RUN python3 -c 'import flask'\nCOPY"))
    await shows(pilot, "— what ran")  # at 80 columns the rest is on the next line
    await take("failed", "5", until="import flask")
    dockerfile.write_text(good)


async def export(size: tuple[int, int], folder: Path, root: Path) -> None:
    write_demo(folder)
    engine = await open_engine(root)
    project = discover(folder)
    loop = InnerLoop(engine, project, root / "projects")
    app = WorkbenchApp(engine, loop, title=project.name)
    try:
        async with app.run_test(size=size) as pilot:
            await tour(pilot, folder, f"{size[0]}x{size[1]}")
    finally:
        await loop.close()
        for container in await engine.containers(all=True):
            await engine.remove(container.id, force=True)
        await engine.close()


def main() -> None:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(export(size, Path(folder) / "shop", Path(folder) / "root"))


if __name__ == "__main__":
    main()
