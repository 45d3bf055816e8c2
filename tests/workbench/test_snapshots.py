"""The lists and dialogs as they are drawn, against what a person has looked at: snapshots/*.txt and *.svg.

UPDATE_SNAPSHOTS=1 writes them anew. Pictures are compared where Textual and Rich are those that drew them: others draw the same in
other words.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

import pytest
from textual.widgets import Input

from engine.api import ServiceState
from tests.workbench.fake_engine import FakeEngine, FakeLoop, a_container, a_network, a_volume, an_image, until
from tests.workbench.test_actions import Desk
from workbench.app import WorkbenchApp
from workbench.settings import Settings

FOLDER = Path(__file__).with_name("snapshots")


def an_engine() -> FakeEngine:
    return FakeEngine(
        containers=[
            a_container("shop-web-1", health="healthy", labels={"workbench.generation": "12"}),
            a_container("shop-worker-with-a-name-that-is-long-1", "paused", restart_count=3),
            a_container("shop-db-1", "exited", "postgres:16", exit_code=137, oom_killed=True),
            a_container("日本語", "restarting", health="unhealthy"),
        ],
        images=[an_image("shop-web", used_by=("shop-web-1",)), an_image("postgres:16", 400_000_000), an_image("")],
        volumes=[a_volume("data", used_by=("shop-db-1",))],
        networks=[a_network("bridge"), a_network("shop_default")],
    )


def drawn(app: WorkbenchApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


sizes = pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 45)], ids=["80x24", "120x40", "160x45"])
VERSIONS = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("textual", "rich"))
PICTURES = {
    "overview": (),
    "help": ("question_mark",),
    "palette": ("escape", "colon", "p", "r", "u"),
    "remove": ("escape", "2", "g", "d"),
    "inspect": ("escape", "i"),
}


@sizes
async def test_screens_are_drawn_as_they_were(size: tuple[int, int]) -> None:
    loop = FakeLoop()
    loop.report(ServiceState("web", "running", "shop-web-1", "", 12), ServiceState("db", "failed", "shop-db-1"))
    app = WorkbenchApp(desk=Desk(an_engine(), loop), title="shop", settings=Settings(stats=False))
    made = FOLDER / "versions"
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: len(app.lists.services) == 2 and app.lists.containers)
        for name, keys in PICTURES.items():
            await pilot.press(*keys)
            for field in app.screen.query(Input):
                field.cursor_blink = False
            await pilot.pause(0.3)
            # Rich numbers its classes by what is drawn: each line would change with every picture.
            picture = re.sub(r"terminal-\d+", "terminal", app.export_screenshot(title="shop"))
            file = FOLDER / f"{name}-{size[0]}x{size[1]}.svg"
            if os.environ.get("UPDATE_SNAPSHOTS"):
                file.write_text(picture)
                made.write_text(VERSIONS)
            if made.read_text() != VERSIONS:
                pytest.skip(f"the pictures were drawn by {made.read_text()}, and here is {VERSIONS}")
            assert picture == file.read_text(), f"{file.name}: look at it, then UPDATE_SNAPSHOTS=1"


@sizes
async def test_lists_and_dialogs_look_as_they_did(size: tuple[int, int]) -> None:
    loop = FakeLoop()
    loop.report(ServiceState("web", "running", "shop-web-1", "", 12), ServiceState("db", "failed", "shop-db-1"))
    app = WorkbenchApp(an_engine(), loop, title="shop", settings=Settings(stats=False))  # type: ignore[arg-type]
    shots = []
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: len(app.lists.services) == 2 and app.lists.containers)
        app.grid.set_zoom("full")
        for keys in (["1"], ["2", "g"], ["3", "g"], ["7"], ["8"], ["2", "asterisk", "d"]):
            await pilot.press(*keys)
            await pilot.pause(0.3)
            shots.append(f"== {' '.join(keys)}\n{drawn(app)}")
    file = FOLDER / f"lists-{size[0]}x{size[1]}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text("".join(shots))
    assert "".join(shots) == file.read_text(), f"{file.name}: look at it, then UPDATE_SNAPSHOTS=1"
