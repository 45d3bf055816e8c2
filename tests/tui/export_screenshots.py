"""Writes screenshots/*.svg from the real app on the demo project: `sudo python tests/tui/export_screenshots.py`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from engine.local import open_engine
from engine.project.demo import write_demo
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from workbench.app import WorkbenchApp
from workbench.widgets.log_view import LogView

TARGET = Path(__file__).parents[2] / "screenshots"
SIZES = ((80, 24), (160, 45))


async def export(size: tuple[int, int], folder: Path, root: Path) -> None:
    write_demo(folder)
    source = folder / "app.py"
    engine = await open_engine(root)
    project = discover(folder)
    loop = InnerLoop(engine, project, root / "projects")
    app = WorkbenchApp(engine, loop, title=project.name)
    name = f"{size[0]}x{size[1]}"

    async def shows(text: str) -> None:
        async with asyncio.timeout(60):
            while not any(
                text in line.text
                for pane in ("logs", "build")
                for line in app.query_one(f"#{pane}-view", LogView).lines
            ):
                await pilot.pause(0.05)
        await pilot.pause(0.5)

    async with app.run_test(size=size) as pilot:
        await shows("http://localhost")
        await pilot.pause(1)  # the watcher takes its first look
        source.write_text(source.read_text().replace("Hello from", "Saved in"))
        await shows("Saved in")
        app.save_screenshot(f"overview-{name}.svg", str(TARGET))
        await pilot.press("question_mark")
        await pilot.pause(0.2)
        app.save_screenshot(f"help-{name}.svg", str(TARGET))
        await pilot.press("escape")
        dockerfile = folder / "Dockerfile"
        good = dockerfile.read_text()
        dockerfile.write_text(good.replace("COPY", "RUN python3 -c 'import flask'\nCOPY"))
        await shows("exit code")
        app.save_screenshot(f"failed-{name}.svg", str(TARGET))
        dockerfile.write_text(good)
    await loop.close()
    await engine.remove(f"{project.name}-web-1", force=True)
    await engine.close()


def main() -> None:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(export(size, Path(folder) / "shop", Path(folder) / "root"))


if __name__ == "__main__":
    main()
