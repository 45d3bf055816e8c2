"""The log pane on a scripted engine, with keys."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.api import LogLine, ServiceState
from tests.workbench.fake_engine import NOW, FakeEngine, FakeLoop, a_container, until
from workbench.app import WorkbenchApp
from workbench.panes.log_query import parse_query
from workbench.panes.logs import LogsPane
from workbench.subjects import Subject

SIZE = (160, 45)


def an_engine(count: int = 300) -> FakeEngine:
    engine = FakeEngine(containers=[a_container("web"), a_container("db")])
    engine.logs_of["web"] = [
        LogLine(f"line {n}" + (" ERROR" if n % 100 == 50 else ""), "stderr" if n % 100 == 50 else "stdout", NOW + n, n)
        for n in range(count)
    ]
    engine.logs_of["db"] = [LogLine(f"ready {n}", "stdout", NOW + 10 * n, n) for n in range(3)]
    return engine


@contextlib.asynccontextmanager
async def running(engine: FakeEngine, loop: FakeLoop | None = None) -> AsyncIterator[tuple[Any, LogsPane]]:
    app = WorkbenchApp(engine, loop or FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        pane = app.panes["logs"]
        assert isinstance(pane, LogsPane)
        await until(pilot, lambda: pane.view.extent[1] >= 3)
        await pilot.press("6")
        yield pilot, pane


def shown(pane: LogsPane) -> list[str]:
    return [pane.view.render_line(y).text.strip() for y in range(pane.view.page)]


def subtitle(pane: LogsPane) -> str:
    return str(pane.border_subtitle)


async def test_a_filter_that_takes_too_long_is_dropped_and_said() -> None:
    engine = an_engine(3)
    engine.log("web", "a" * 60 + "b")
    async with running(engine) as (pilot, pane):
        for open_key in ("ampersand", "slash"):
            await pilot.press(open_key, *"~(a|aa)+$", "enter")
            await until(pilot, lambda: "takes too long" in str(pilot.app.query_one("#trouble").content))
            await until(pilot, lambda: "a" * 60 + "b" in shown(pane))
            assert pane.reader.kept is None
            assert pane.reader.search is None
            pilot.app.trouble("")
        engine.log("web", "it goes on")
        await until(pilot, lambda: "it goes on" in shown(pane))


async def test_it_follows_until_somebody_scrolls_and_again_from_the_end() -> None:
    engine = an_engine()
    async with running(engine) as (pilot, pane):
        await until(pilot, lambda: shown(pane)[-1] == "line 299")
        assert "following" in subtitle(pane)
        await pilot.press("k")
        for n in range(7):
            engine.log("web", f"more {n}")
        await until(pilot, lambda: "+7 lines" in subtitle(pane))
        assert shown(pane)[-1] == "line 299"
        await pilot.press("G")
        await until(pilot, lambda: shown(pane)[-1] == "more 6")
        assert "following" in subtitle(pane)
        await pilot.press("g")
        await until(pilot, lambda: shown(pane)[0] == "line 0")
        await pilot.press("end")
        await until(pilot, lambda: shown(pane)[-1] == "more 6")


async def test_search_counts_and_goes_round() -> None:
    async with running(an_engine()) as (pilot, pane):
        await pilot.press("slash", *"error", "enter")
        await until(pilot, lambda: "3/3 error" in subtitle(pane))
        assert pane.view.cursor == 250
        await pilot.press("N")
        await until(pilot, lambda: "2/3" in subtitle(pane))
        await until(pilot, lambda: any("line 150 ERROR" in line for line in shown(pane)))
        await pilot.press("n", "n")
        await until(pilot, lambda: "1/3" in subtitle(pane))
        await pilot.press("escape")
        await until(pilot, lambda: "error" not in subtitle(pane))


async def test_filter_inverse_and_a_hit_in_its_context() -> None:
    async with running(an_engine()) as (pilot, pane):
        await pilot.press("ampersand", *"/line 1[0-9]0$/", "enter")
        await until(pilot, lambda: shown(pane)[:2] == ["line 100", "line 110"])
        assert "filter /line 1" in subtitle(pane)
        await pilot.press("g", "j", "j")
        await until(pilot, lambda: pane.view.cursor == 2)
        await pilot.press("enter")
        await until(pilot, lambda: "line 121" in shown(pane))
        assert pane.view.row(pane.view.cursor).text == "line 120"  # type: ignore[union-attr]
        await pilot.press("ampersand", *"!line", "enter")
        await until(pilot, lambda: pane.view.extent == (0, 0))
        await pilot.press("escape")
        await until(pilot, lambda: pane.view.extent == (0, 300))


async def test_all_merged_with_their_names() -> None:
    async with running(an_engine()) as (pilot, pane):
        await pilot.press("a")
        await until(pilot, lambda: pane.view.extent[1] == 303)
        await pilot.press("g")
        await until(pilot, lambda: shown(pane)[0].startswith("web"))
        assert any(line.startswith("db  │ ready 1") for line in shown(pane))
        await pilot.press("a")
        await until(pilot, lambda: pane.view.extent[1] == 300)


async def test_a_new_generation_goes_on_in_the_same_stream() -> None:
    engine, loop = an_engine(3), FakeLoop()
    async with running(engine, loop) as (pilot, pane):
        opened = len(engine.called("open_logs"))
        engine.log("web", "── rebuilt 14:02:11 a1b2→c3d4 ──", "workbench")
        engine.log("web", "new")
        loop.report(ServiceState("web", "running", "web", "", 2))
        await until(pilot, lambda: "new" in shown(pane))
        lines = shown(pane)
        assert lines[2:5] == ["line 2", lines[3], "new"]
        assert lines[3].startswith("── rebuilt 14:02:11 a1b2→c3d4 ───")
        assert len(engine.called("open_logs")) == opened, "the log is the same"


async def test_a_container_replaced_by_hand_goes_on_in_the_same_stream_and_the_cursor_stays_on_its_name() -> None:
    engine = an_engine(3)
    async with running(engine) as (pilot, pane):
        await until(pilot, lambda: "web" in subtitle(pane))
        await pilot.press("2", "g", "6", "k", "k", "space")
        await until(pilot, lambda: pane.view.marks)
        await engine.remove("web", force=True)
        await until(pilot, lambda: "web (removed)" in subtitle(pane))
        assert "line 2" in shown(pane), "its last words stay"
        engine.logs_of["web"] = []
        engine.containers_["web"] = replace(a_container("web"), id="2" * 64)
        engine.happened("container", "create", "2" * 64, name="web")
        engine.happened("container", "start", "2" * 64, name="web")
        await until(pilot, lambda: any("another container of this name" in line for line in shown(pane)))
        await pilot.press("G")
        engine.log("web", "born again")
        await until(pilot, lambda: "born again" in shown(pane))
        assert "removed" not in subtitle(pane)
        assert len(pane.view.marks) == 1
        assert pilot.app.panes["containers"].subject.name == "web"
        assert len(engine.called("open_logs")) == 1
        await pilot.press("2", "d", "tab", "enter")
        await until(pilot, lambda: "db" in subtitle(pane))  # what was removed here is let go


async def test_what_was_selected_last_stays() -> None:
    engine, loop = an_engine(3), FakeLoop()
    async with running(engine, loop) as (pilot, pane):
        loop.report(ServiceState("web", "running", "web", "", 1))
        await until(pilot, lambda: pilot.app.lists.services and "service" in pane._last)
        db = next(Subject("container", each.id, each.name) for each in pilot.app.lists.containers if each.name == "db")
        pane.show(db)
        await until(pilot, lambda: "db" in subtitle(pane))
        pane.show(Subject("service", "web", "web", ServiceState("web", "running", "web", "", 2)))
        await pilot.pause()
        assert "db" in subtitle(pane), "only the record of the service has changed"
        pane.show(Subject("service", "other", "other", ServiceState("other", "running", "web", "", 1)))
        await until(pilot, lambda: "web" in subtitle(pane))


async def test_windows_of_time() -> None:
    async with running(an_engine()) as (pilot, pane):
        await pilot.press("T", "1")
        await until(pilot, lambda: shown(pane)[0] == "line 0")
        await pilot.press("T", "2")
        await until(pilot, lambda: pane.view.extent == (0, 0))
        assert "minute" in subtitle(pane)
        await pilot.press("T", "0")
        await until(pilot, lambda: shown(pane)[-1] == "line 299")


async def test_digits_are_windows_in_the_log_for_fingers_that_know_k9s() -> None:
    app = WorkbenchApp(an_engine(), FakeLoop(), keymap="k9s")  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        pane = app.panes["logs"]
        assert isinstance(pane, LogsPane)
        await until(pilot, lambda: pane.view.extent[1] == 300)
        app.action_pane("logs")
        await pilot.pause()
        await pilot.press("3")
        await until(pilot, lambda: "5 minutes" in subtitle(pane))
        assert app.pane is pane


async def test_marks_times_wrap_json() -> None:
    engine = an_engine(3)
    engine.log("web", '{"time":"x","level":"warn","msg":"disk is full","free":3}')
    engine.log("web", "w" * 300)
    async with running(engine) as (pilot, pane):
        await until(pilot, lambda: any("WARN  disk is full  free=3" in line for line in shown(pane)))
        assert sum("wwww" in line for line in shown(pane)) > 2
        await pilot.press("w", "J", "t", "k", "space")
        await until(pilot, lambda: sum("wwww" in line for line in shown(pane)) == 1)
        assert any('{"time":"x"' in line for line in shown(pane))
        assert any(line.startswith("◆") and "level" in line for line in shown(pane))
        assert "times · no wrap · raw · ◆1" in subtitle(pane)
        await pilot.press("G", "apostrophe")
        await until(pilot, lambda: pane.view.cursor == 3)


async def test_copy_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    copied = tmp_path / "workbench/clipboard.txt"
    async with running(an_engine()) as (pilot, pane):
        await pilot.press("k", "v", "k", "k", "y")
        await until(pilot, copied.exists)
        assert copied.read_text() == "line 296\nline 297\nline 298"
        await pilot.press("V", "right", "right", "k", "ctrl+right", "y")
        await until(pilot, lambda: copied.read_text() == "295\nl")
        await pilot.press("ampersand", *"error", "enter")
        await until(pilot, lambda: pane.view.extent[1] == 3)
        await pilot.press("ctrl+s")
        pane.prompt._box.value = str(tmp_path / "saved.log")
        await pilot.press("enter")
        await until(pilot, lambda: (tmp_path / "saved.log").exists())
        await until(pilot, lambda: (tmp_path / "saved.log").read_text().count("\n") == 3)


async def test_a_field_of_a_json_line() -> None:
    engine = an_engine(3)
    engine.log("web", '{"msg":"hello","user":{"id":7}}')
    async with running(engine) as (pilot, pane):
        await until(pilot, lambda: pane.view.extent[1] == 4)
        await pilot.press("enter")
        await until(pilot, lambda: type(pilot.app.screen).__name__ == "RowDetail")
        assert ("user", '{"id": 7}') in pilot.app.screen._fields
        await pilot.press("escape")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a", ("a", False, False)),
        ("!a", ("a", False, True)),
        ("/a+/", ("a+", True, False)),
        ("!/a/", ("a", True, True)),
        ("/", ("/", False, False)),
        ("!", ("!", False, False)),
        ("~a+", ("a+", True, False)),
        ("!~a", ("a", True, True)),
        ("~", ("~", False, False)),
    ],
)
def test_what_is_typed(typed: str, expected: tuple[str, bool, bool]) -> None:
    query = parse_query(typed)
    assert query is not None
    assert (query.text, query.regex, query.inverse) == expected
