"""Quitting and losing the terminal while something is under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from engine.api import PullProgress, ServiceState
from tests.workbench.fake_engine import FakeEngine, until
from tests.workbench.test_actions import an_engine, fill, lines, running
from workbench.screens.dialogs import Confirm


class Slow(FakeEngine):
    """Pulls and stops take until `done` is set."""

    done: asyncio.Event

    async def pull(self, reference: str, **more: Any) -> AsyncIterator[PullProgress]:
        yield PullProgress(reference, "a", "downloading", 1, 2)
        await self.done.wait()
        self.calls.append(("pulled", reference))

    async def stop(self, name: str, **more: Any) -> bool:
        self.calls.append(("stopping", name))
        await self.done.wait()
        self.calls.append(("stopped", name))
        return False


def slow() -> Slow:
    plain = an_engine()
    engine = Slow()
    engine.__dict__.update(plain.__dict__)
    engine.done = asyncio.Event()
    return engine


async def pulling(pilot: Any, app: Any) -> None:
    await pilot.press("3", "u")
    await fill(pilot, app, name="busybox")
    await until(pilot, lambda: app.jobs.running)


async def test_quitting_names_what_is_under_way() -> None:
    async with running(slow()) as (app, pilot, loop):
        await pulling(pilot, app)
        loop.report(ServiceState("web", "building", "shop-web-1", "", 2))
        await until(pilot, lambda: app.leaving.under_way() == ["pull busybox", "web: building"])
        await pilot.press("escape", "q")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert app.focused is app.screen.query_one("#no")
        question = str(app.screen.query_one(".question").render())  # type: ignore[attr-defined]
        assert "pull busybox" in question
        assert "web: building" in question
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert app.is_running


async def lost_with(app: Any, pilot: Any, end: Callable[[], Awaitable[None]]) -> None:
    app.leaving.hung_up()
    assert app.leaving.terminal_lost
    assert app._exit is False
    await end()
    await until(pilot, lambda: app._exit)


async def test_a_lost_terminal_ends_the_app_once_all_is_done() -> None:
    engine = slow()
    async with running(engine) as (app, pilot, loop):
        await pulling(pilot, app)
        loop.report(ServiceState("web", "building", "shop-web-1", "", 2))
        await until(pilot, lambda: len(app.leaving.under_way()) == 2)

        async def end() -> None:
            engine.done.set()
            await until(pilot, lambda: ("pulled", "busybox") in engine.calls and not app.jobs.running)
            assert app._exit is False, "a service is still being built"
            loop.report(ServiceState("web", "running", "shop-web-1", "", 3))

        await lost_with(app, pilot, end)


async def test_a_lost_terminal_with_nothing_under_way_and_a_second_signal() -> None:
    async with running(slow()) as (app, _, _loop):
        app.leaving.hung_up()
        assert app._exit
    async with running(slow()) as (app, pilot, _loop):
        await pulling(pilot, app)
        app.leaving.hung_up()
        assert app._exit is False
        app.leaving.hung_up()
        assert app._exit


async def test_many_are_stopped_side_by_side_and_a_line_says_so() -> None:
    engine = slow()
    async with running(engine) as (app, pilot, _):
        await pilot.press("2", "g", "space", "j", "space", "s")
        await until(pilot, lambda: sum(call[0] == "stopping" for call in engine.calls) == 2)
        await until(pilot, lambda: "stop" in str(app.jobs.render()))
        assert "cancels" not in str(app.jobs.render())
        assert app.leaving.under_way() == [], "the engine ends it without the app"
        engine.done.set()
        await until(pilot, lambda: not app.jobs.running)
        assert len([line for line in lines(app) if line.startswith("workbench stop ")]) == 2
        assert not app.jobs.display
