"""Every action, by its key, on the scripted engine: what it asks, what it calls, what it notes as a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.widgets import Button, Input

from engine.api import Pruned, PullProgress, ServiceState
from engine.cli.app import CommandDesk
from engine.errors import Conflict, StartFailed
from tests.workbench.fake_engine import FakeEngine, FakeLoop, until
from tests.workbench.test_app import an_engine
from workbench import commands
from workbench.app import WorkbenchApp
from workbench.screens.dialogs import Choose, Confirm, Form
from workbench.screens.inspect import Inspect
from workbench.screens.palette import Palette, score
from workbench.screens.prune import PruneScreen
from workbench.screens.reading import ReadingScreen
from workbench.screens.texts import CommandLog, HelpScreen
from workbench.transfers import Progress
from workbench.widgets.tick import Tick


class Desk(CommandDesk):
    """Reads words as the command line does; the engine is the test's."""

    def __init__(self, engine: FakeEngine, loop: FakeLoop) -> None:
        self.engine, self.loop = engine, loop

    title, place = "shop", ""

    async def open(self, *, read_only: bool = False) -> Any:
        return self.engine, self.loop

    async def close(self) -> None: ...


@asynccontextmanager
async def running(engine: FakeEngine, **more: Any) -> AsyncIterator[tuple[WorkbenchApp, Any, FakeLoop]]:
    loop = FakeLoop()
    loop.report(ServiceState("web", "running", "shop-web-1", "", 2))
    app = WorkbenchApp(desk=Desk(engine, loop), **more)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.lists.containers and app.lists.services)
        yield app, pilot, loop


def lines(app: WorkbenchApp) -> list[str]:
    return [entry.line for entry in app.journal.entries]


def trouble(app: WorkbenchApp) -> str:
    return str(app._trouble.render())


@pytest.mark.parametrize(
    ("key", "call", "line"),
    [
        ("s", "stop", "workbench stop shop-web-1"),
        ("S", "start", "workbench start shop-web-1"),
        ("R", "restart", "workbench restart shop-web-1"),
        ("p", "pause", "workbench pause shop-web-1"),
    ],
)
async def test_acts_at_once(key: str, call: str, line: str) -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("2", "g", key)
        await until(pilot, lambda: engine.called(call))
        assert engine.called(call) == [("shop-web-1",)]
        assert lines(app) == [line]


async def test_paused_goes_on() -> None:
    engine = an_engine()
    found = engine.containers_["shop-web-1"]
    engine.containers_["shop-web-1"] = dataclasses.replace(found, status="paused")
    async with running(engine) as (_app, pilot, _):
        await pilot.press("2", "g", "p")
        await until(pilot, lambda: engine.called("unpause"))


@pytest.mark.parametrize(
    ("keys", "call", "names", "line"),
    [
        (("2", "g", "ctrl+k"), "kill", ["shop-web-1"], "workbench kill shop-web-1"),
        (
            ("2", "g", "space", "space", "d"),
            "remove",
            ["shop-web-1", "shop-db-1"],
            "workbench rm -f shop-web-1 shop-db-1",
        ),
        (("3", "G", "d"), "remove_image", ["postgres:16"], "workbench rmi postgres:16"),
        (("7", "d"), "remove_volume", ["data"], "workbench volume rm data"),
        (("8", "d"), "remove_network", ["bridge"], "workbench network rm bridge"),
    ],
)
async def test_destructive_only_through_a_dialog_that_names_all_and_has_cancel_focused(
    keys: tuple[str, ...], call: str, names: list[str], line: str
) -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        for answer in ("enter", "escape"):  # Cancel has the focus
            await pilot.press(*keys)
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            shown = "\n".join(str(part.render()) for part in app.screen.query("Label"))
            assert all(name in shown for name in names)
            assert f"$ {line}" in shown
            assert app.focused is app.screen.query_one("#no")
            await pilot.press(answer)
            await until(pilot, lambda: not isinstance(app.screen, Confirm))
            assert not engine.called(call)
            app.pane.clear_filter()
        await pilot.press(*keys)
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: len(engine.called(call)) == len(names))
        assert [name for (name,) in engine.called(call)] == names


async def test_one_failure_of_many_is_told_and_the_others_are_done() -> None:
    engine = an_engine()
    engine.fails["stop"] = [Conflict("shop-web-1 hangs", hint="kill it")]
    async with running(engine) as (app, pilot, _):
        await pilot.press("2", "asterisk", "s")
        await until(pilot, lambda: len(engine.called("stop")) == 2)
        await until(pilot, lambda: "hangs" in trouble(app))
        assert "kill it" in trouble(app)
        assert sorted(entry.state for entry in app.journal.entries) == ["done", "shop-web-1 hangs"]


async def fill(pilot: Any, app: WorkbenchApp, **values: str) -> str:
    """Types into a form and submits it; returns the command line that it showed."""
    await until(pilot, lambda: isinstance(app.screen, Form))
    for name, value in values.items():
        app.screen.query_one(f"#f-{name}", Input).value = value
    await pilot.pause()
    line = str(app.screen.query_one(".command").render())
    app.screen.query_one("#yes", Button).press()
    await until(pilot, lambda: not isinstance(app.screen, Form))
    return line.removeprefix("$ ")


async def test_run_by_a_form_means_what_its_command_line_says() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("3", "g", "x")
        line = await fill(
            pilot,
            app,
            name="try",
            ports="8080:80 5353:53/udp",
            env="A=1 'B=two words'",
            volumes="data:/data",
            command="sh -c 'echo hi'",
        )
        await until(pilot, lambda: engine.called("start"))
        (spec,) = engine.called("create")[0]
        assert (spec.image, spec.name, spec.env, spec.command) == (
            "shop-web:latest",
            "try",
            ("A=1", "B=two words"),
            ("sh", "-c", "echo hi"),
        )
        assert set(spec.port_bindings) == {"80/tcp", "53/udp"}
        assert (
            line
            == "workbench run -d --name try -p 8080:80 -p 5353:53/udp -v data:/data -e A=1 -e 'B=two words' shop-web:latest sh -c 'echo hi'"
        )
        await until(
            pilot, lambda: app.pane.NAME == "containers" and app.pane.subject and app.pane.subject.name == "try"
        )


async def test_a_form_that_fails_stays_with_what_was_typed() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("3", "g", "x")
        await until(pilot, lambda: isinstance(app.screen, Form))

        async def submit(name: str, value: str, problem: str) -> None:
            app.screen.query_one(f"#f-{name}", Input).value = value
            app.screen.query_one("#yes", Button).press()
            await until(pilot, lambda: problem in str(app.screen.query_one(".problem").render()))

        app.screen.query_one("#f-name", Input).value = "mine"
        await submit("ports", "no-port", "no-port")
        assert not engine.called("create")
        engine.fails["start"] = [StartFailed("port 80 is in use")]
        await submit("ports", "80:80", "port 80 is in use")
        assert len(engine.called("remove")) == 1, "the name is free for another try"
        assert app.screen.query_one("#f-name", Input).value == "mine"
        await fill(pilot, app, ports="81:80")
        await until(pilot, lambda: len(engine.called("start")) == 2)
        box = app.screen
        await pilot.press("3", "g", "x")
        await until(pilot, lambda: app.screen is not box)
        tick = app.screen.query_one("#f-rm", Tick)
        assert str(tick.render()).startswith("[ ]")
        tick.toggle()
        assert str(tick.render()).startswith("[x]"), "told without a colour"


async def test_forms_of_names() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("2", "g", "f2")
        assert await fill(pilot, app, name="shop-old") == "workbench rename shop-web-1 shop-old"
        await until(pilot, lambda: engine.called("rename") == [("shop-web-1", "shop-old")])
        await pilot.press("3", "g", "t")
        assert await fill(pilot, app, target="shop:2") == "workbench tag shop-web:latest shop:2"
        await until(pilot, lambda: engine.called("tag") == [("shop-web:latest", "shop:2")])
        await pilot.press("7", "A")
        assert await fill(pilot, app, name="more") == "workbench volume create more"
        await until(pilot, lambda: engine.called("create_volume") == [("more",)])
        await pilot.press("8", "A")
        assert await fill(pilot, app, name="back") == "workbench network create back"
        await until(pilot, lambda: engine.called("create_network"))
        await pilot.press("2", "G", "c")
        assert "workbench commit -m why" in await fill(pilot, app, reference="saved:1", comment="why")
        await until(pilot, lambda: engine.called("commit"))


async def test_pull_shows_how_far_it_is_and_push() -> None:
    engine = an_engine()
    engine.pulls["busybox"] = [
        PullProgress("busybox", "a", "done", 50, 50),
        PullProgress("busybox", "b", "downloading", 25_000_000, 100_000_000, rate=25_000_000.0),
    ]
    async with running(engine) as (app, pilot, _):
        await pilot.press("3", "u")
        assert await fill(pilot, app, name="busybox") == "workbench pull busybox"
        await until(pilot, lambda: engine.called("pull") and app.lists.image("busybox:latest"))
        await pilot.press("g", "P")
        await until(pilot, lambda: engine.called("push") == [("shop-web:latest",)])
        assert "workbench push shop-web:latest" in lines(app)
        assert not app.jobs.running


async def test_each_name_of_an_image_is_a_row_and_what_is_done_is_done_to_that_name() -> None:
    engine = an_engine()
    await engine.tag("shop-web:latest", "registry.example/shop-web:2")
    async with running(engine) as (app, pilot, _):
        await pilot.press("3", "g")
        assert [subject.name for subject in app.panes["images"]._subjects.values()][:2] == [
            "shop-web:latest", "registry.example/shop-web:2"
        ]  # fmt: skip
        await pilot.press("j", "P")
        await until(pilot, lambda: engine.called("push") == [("registry.example/shop-web:2",)])
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: engine.called("remove_image") == [("registry.example/shop-web:2",)])
        await until(pilot, lambda: app.lists.image("shop-web:latest").tags == ("shop-web:latest",))


def test_progress_line() -> None:
    progress = Progress()
    progress.add(PullProgress("x", "", "resolving"))
    assert progress.line() == "resolving"
    progress.add(PullProgress("x", "a", "exists", 0, 30_000_000))
    progress.add(PullProgress("x", "b", "downloading", 20_000_000, 70_000_000, rate=10_000_000.0))
    assert progress.line() == "1 of 2 layers · 50MB of 100MB · 10MB/s, 5.0 s left"


async def test_prune_shows_what_goes_before_it_goes() -> None:
    engine = an_engine()
    engine.pruned = Pruned(
        (engine.containers_["shop-db-1"].id,), ("untagged: old:1", "deleted: sha256:1"), (), ("a", "b"), 120_000_000
    )
    async with running(engine) as (app, pilot, _):
        await pilot.press("D")
        await until(pilot, lambda: engine.called("prune_system"))
        assert engine.called("prune_system") == [(True, {"all": False, "volumes": False})]
        assert isinstance(app.screen, PruneScreen)
        await until(pilot, lambda: "frees 120MB" in str(app.screen.query_one("#preview").render()))
        shown = str(app.screen.query_one("#preview").render())
        assert "shop-db-1" in shown
        assert "shop-db-1  (postgres:16, exited)" in shown, "by its name, though the engine says its id"
        assert "  old:1" in shown
        assert "sha256:1" not in shown, "an image is named once"
        assert app.focused is app.screen.query_one("#no")
        app.screen.query_one("#all").toggle()  # type: ignore[attr-defined]
        await until(pilot, lambda: (True, {"all": True, "volumes": False}) in engine.called("prune_system"))
        app.screen.query_one("#yes", Button).press()
        await until(pilot, lambda: (False, {"all": True, "volumes": False}) in engine.called("prune_system"))
        assert lines(app) == ["workbench system prune --all"]


async def test_rebuild_and_rollback_of_a_service_and_of_its_container() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, loop):
        await pilot.press("1", "r")
        await until(pilot, lambda: loop.rebuilt == ["web"])
        await pilot.press("2", "g", "r")
        await until(pilot, lambda: loop.rebuilt == ["web", "web"])
        await pilot.press("G", "r")
        await until(pilot, lambda: "no service" in trouble(app))
        await pilot.press("1", "B")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: loop.rolled_back == [("web", 1)])
        assert "workbench rollback web 1" in lines(app)
        await pilot.press("2", "g", "equals_sign")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert "workbench generations web 1 2" in lines(app)
        assert engine.called("image_diff")


async def test_inspect_as_tree_and_as_json_and_copy() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        copied: list[str] = []

        async def copy(text: str, what: str) -> None:
            copied.append(text)

        app.copy = copy  # type: ignore[method-assign]
        for key in ("1", "2", "3", "7", "8"):
            await pilot.press(key, "g", "i")
            await until(pilot, lambda: isinstance(app.screen, Inspect))
            await pilot.press("r", "y", "escape")
            await until(pilot, lambda: not isinstance(app.screen, Inspect))
        assert '"Status": "running"' in copied[1]
        copied.clear()
        await pilot.press("2", "g", "y", "Y", "ctrl+y")
        await until(pilot, lambda: len(copied) == 3)
        assert copied[0] == "shop-web-1"
        assert copied[1] == engine.containers_["shop-web-1"].id
        assert copied[2].startswith("workbench run -d --name shop-web-1")


async def test_read_only_says_so_and_does_nothing() -> None:
    engine = an_engine()
    async with running(engine, read_only=True) as (app, pilot, loop):
        for keys in (("2", "g", "s"), ("d",), ("3", "d"), ("D",), ("1", "r")):
            await pilot.press(*keys)
            await until(pilot, lambda: "--read-only" in trouble(app))
            app.trouble("")
        await pilot.press("2", "i")
        await until(pilot, lambda: isinstance(app.screen, Inspect))
        assert not loop.rebuilt
        assert not [call for call in engine.calls if call[0] in ("stop", "remove", "remove_image", "prune_system")]
        assert "read-only" in str(app._status.render())


async def test_palette_finds_actions_and_objects() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("colon", *"stop shop-d")
        await until(pilot, lambda: isinstance(app.screen, Palette))
        await pilot.press("enter")
        await until(pilot, lambda: engine.called("stop") == [("shop-db-1",)])
        await pilot.press("ctrl+p", *"postgr", "enter")
        await until(
            pilot, lambda: app.pane.NAME == "images" and app.pane.subject and "postgres" in app.pane.subject.name
        )
        await pilot.press("colon", *"themelight", "enter")
        await until(pilot, lambda: app.theme == "light")


def test_fuzzy_order() -> None:
    texts = ["Stop shop-web-1", "Restart shop-web-1", "shop-web", "go to stats"]
    ranked = sorted(
        (text for text in texts if score("sw", text) is not None), key=lambda text: -(score("sw", text) or 0)
    )
    assert ranked[0] == "shop-web"
    assert score("xyz", texts[0]) is None
    assert (score("stop", texts[0]) or 0) > (score("stop", "vol stop") or 0)


async def test_help_and_command_log() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("2", "g", "s", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        shown = str(app.screen.query_one("Static").render())
        for command in commands.for_kind("container"):
            assert command.help in shown
        await pilot.press("escape", "C")
        await until(pilot, lambda: isinstance(app.screen, CommandLog))
        assert len(app.screen.query_one("#commands").keys) == 1  # type: ignore[attr-defined]


async def test_filter_marks_and_order_of_a_list() -> None:
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("2", "slash", *"db", "enter")
        rows = app.panes["containers"].list  # type: ignore[attr-defined]
        await until(pilot, lambda: len(rows.keys) == 1)
        assert "1 of 2 match 'db'" in str(app.pane.border_subtitle)
        await pilot.press("q")  # clears the filter, and does not leave
        await until(pilot, lambda: len(rows.keys) == 2)
        assert app.is_running
        await pilot.press("o", "O")
        names = [rows._all[key][1] for key in rows.keys]
        assert names == sorted(names, reverse=True)
        await pilot.press("g", "space")
        assert "1 marked" in str(app.pane.border_subtitle)
        await pilot.press("escape")
        assert not rows.marked


async def test_events_are_a_list_like_the_others() -> None:
    """Newest first, with filter, marks, order and all that an event says."""
    engine = an_engine()
    async with running(engine) as (app, pilot, _):
        await pilot.press("0")
        pane = app.panes["events"]
        engine.happened("container", "start", "a" * 64, name="web")
        engine.happened("container", "die", "a" * 64, name="web", exitCode="137")
        engine.happened("image", "pull", "sha256:" + "b" * 64)
        await until(pilot, lambda: len(pane.list.keys) == 3)
        assert pane.subject.name == "b" * 12
        engine.happened("volume", "create", "data", name="data")
        await until(pilot, lambda: len(pane.list.keys) == 4)
        assert pane.subject.name == "data"  # the newest is followed
        await pilot.press("j", "j")
        engine.happened("network", "create", "c" * 64, name="net")
        await until(pilot, lambda: len(pane.list.keys) == 5)
        assert pane.subject.record.action == "die"  # and any other one stays under the cursor
        await pilot.press("enter")
        await until(pilot, lambda: "exitCode=137" in str([line.text for line in getattr(app.screen, "_lines", ())]))
        await pilot.press("escape", "slash", *"container", "enter")
        await until(pilot, lambda: len(pane.list.keys) == 2)
        await pilot.press("escape", "asterisk")
        assert len(pane.subjects) > 1
