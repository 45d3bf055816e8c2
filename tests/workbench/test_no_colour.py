"""NO_COLOR: not one colour is sent, and the cursor and the focus show all the same."""

from __future__ import annotations

import pytest
from rich.style import Style

from tests.workbench.fake_engine import FakeLoop, until
from tests.workbench.test_app import an_engine
from workbench import themes
from workbench.app import WorkbenchApp


def styles(app: WorkbenchApp) -> list[Style]:
    strips = app.screen._compositor.render_strips()
    return [segment.style for strip in strips for segment in strip if segment.style is not None]


@pytest.mark.parametrize("theme", themes.NAMES)
async def test_no_colour_is_sent(theme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = WorkbenchApp(an_engine(), FakeLoop(), theme=theme)  # type: ignore[arg-type]
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.keys.map is not None and app.lists.containers)
        await pilot.press("2", "g")
        for keys in ((), ("d",), ("escape", "colon"), ("escape", "question_mark"), ("escape", "3", "x")):
            await pilot.press(*keys)
            await pilot.pause()
            assert not [one for one in styles(app) if one.color is not None or one.bgcolor is not None]
            if "question_mark" not in keys:  # nothing has the focus there
                await until(pilot, lambda: any(one.reverse for one in styles(app)))
