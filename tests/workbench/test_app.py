"""The app on a scripted engine: what it shows, which panes, and where."""

from __future__ import annotations

import dataclasses

import pytest

from engine.api import ServiceState
from tests.workbench.fake_engine import FakeEngine, FakeLoop, a_build, a_container, a_network, a_volume, an_image, until
from workbench.app import WorkbenchApp
from workbench.layout import PANES, plan


def an_engine() -> FakeEngine:
    return FakeEngine(
        containers=[a_container("shop-web-1"), a_container("shop-db-1", "exited", "postgres:16")],
        images=[an_image("shop-web"), an_image("postgres:16", 400_000_000)],
        volumes=[a_volume("data")],
        networks=[a_network("bridge")],
        builds=[a_build(1), a_build(2, "failed")],
    )


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 45), (60, 80), (30, 8), (1, 1)])
async def test_every_pane_is_reached_at_every_size(size: tuple[int, int]) -> None:
    app = WorkbenchApp(an_engine(), FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.lists.containers)
        for name in PANES:
            app.action_pane(name)
            await pilot.pause()
            assert name == app.pane.NAME
            assert app.pane.on_screen
            assert app.focused is app.pane.main


@pytest.mark.parametrize("width", [1, 39, 80, 109, 110, 160, 300])
@pytest.mark.parametrize("height", [1, 5, 13, 14, 22, 43, 60])
@pytest.mark.parametrize("zoom", ["", "half", "full"])
def test_slots_fill_the_screen_and_hold_every_pane_once(width: int, height: int, zoom: str) -> None:
    for focus in PANES:
        slots = plan(width, height, [focus, "logs", "containers"], zoom)  # type: ignore[arg-type]
        assert sum(slot.width * slot.height for slot in slots) == width * height
        assert sorted(name for slot in slots for name in slot.panes) == sorted(PANES)
        assert [slot.shown for slot in slots if focus in slot.panes] == [focus]
        assert min(slot.height for slot in slots) >= min(3, height)


async def test_logs_and_layers_follow_the_selected_container_and_image() -> None:
    engine, loop = an_engine(), FakeLoop()
    for name in ("shop-web-1", "shop-db-1"):
        engine.log(name, f"{name} speaks")
    app = WorkbenchApp(engine, loop)  # type: ignore[arg-type]
    async with app.run_test(size=(160, 45)) as pilot:
        loop.report(ServiceState("web", "running", "shop-web-1", "", 2))
        await until(pilot, lambda: app.lists.services)
        await pilot.press("2", "g", "j")
        await until(pilot, lambda: ("logs", "shop-db-1") in engine.calls)
        await pilot.press("3", "G")
        await until(pilot, lambda: engine.called("image"))


async def test_the_cursor_stays_on_a_service_whose_container_is_replaced() -> None:
    engine = an_engine()
    app = WorkbenchApp(engine, FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(app.lists.containers) == 2)
        pane = app.panes["containers"]
        await pilot.press("2", "g")
        await until(pilot, lambda: pane.subject and pane.subject.name == "shop-web-1")
        old = engine.containers_.pop("shop-web-1")
        engine.containers_["shop-web-1-before-2"] = dataclasses.replace(old, name="shop-web-1-before-2")
        engine.put(dataclasses.replace(old, id="2" * 64))
        await until(pilot, lambda: pane.subject and pane.subject.id == "2" * 64)
        assert pane.subject
        assert pane.subject.name == "shop-web-1"
        await engine.remove("shop-web-1-before-2", force=True)
        await until(pilot, lambda: len(app.lists.containers) == 2)
        assert pane.subject.name == "shop-web-1"
