"""The terminal pane on a scripted engine, with keys."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import ContainerDetail, ContainerSpec, ServiceState
from engine.errors import NotFound
from tests.workbench.fake_engine import FakeEngine, FakeLoop, FakeStream, a_container, until
from workbench.app import WorkbenchApp
from workbench.panes.terminal import TerminalPane
from workbench.subjects import Subject


@contextlib.asynccontextmanager
async def running(engine: FakeEngine, keys: str = "E") -> AsyncIterator[tuple[Any, TerminalPane, FakeStream]]:
    app = WorkbenchApp(engine, FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        pane = app.panes["terminal"]
        assert isinstance(pane, TerminalPane)
        await until(pilot, lambda: app.lists.containers)
        await pilot.press("2")
        await pilot.press(keys)
        await until(pilot, lambda: pane.session is not None)
        await until(pilot, lambda: pane.view.inside)
        yield pilot, pane, engine.streams[-1]


def an_engine() -> FakeEngine:
    return FakeEngine(containers=[a_container("web")])


def shown(pane: TerminalPane) -> list[str]:
    return [pane.view.render_line(y).text.rstrip() for y in range(pane.view.size.height)]


async def test_every_key_goes_inside_and_f12_leaves() -> None:
    async with running(an_engine()) as (pilot, pane, stream):
        stream.say(b"root@web:/# ")
        await until(pilot, lambda: "root@web:/#" in shown(pane)[0])
        assert "F12 leaves" in str(pane.border_subtitle)
        hints = pilot.app.keys.line._hints
        assert [hint.key for hint in hints] == ["F12"], "no key is offered that goes to the program"
        keys = ["l", "s", "enter", "tab", "q", "question_mark", "ctrl+c", "ctrl+q", "ctrl+p", "escape", "1", "up"]
        await pilot.press(*keys)
        await until(pilot, lambda: stream.said == b"ls\r\tq?\x03\x11\x10\x1b1\x1b[A")
        offered = {key: each.enabled for key, each in pilot.app.screen.active_bindings.items()}
        assert not {"enter", "y", "F", "X", "q"} & {key for key, enabled in offered.items() if enabled}
        await pilot.press("f12")
        await until(pilot, lambda: not pane.view.inside)
        await pilot.pause()
        assert {"enter", "y", "F", "X", "q"} <= set(pilot.app.screen.active_bindings)
        await pilot.press("2")
        assert pilot.app.pane.NAME == "containers"
        await pilot.press("E")
        await until(pilot, lambda: pane.view.inside)
        assert len(pane.sessions) == 1, "the open one is shown again"


async def test_its_size_is_told() -> None:
    async with running(an_engine()) as (pilot, pane, stream):
        spec = pilot.app.bridge.engine.called("exec")[0][1]
        assert spec.tty
        assert "TERM=xterm-256color" in spec.env
        size = (pane.view.size.height, pane.view.size.width)
        assert (pane.session.screen.grid.rows, pane.session.screen.grid.columns) == size  # type: ignore[union-attr]
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: stream.sizes and stream.sizes[-1] == (pane.view.size.height, pane.view.size.width))
        assert stream.sizes[-1] != size
        for width, height in ((60, 20), (100, 30)):  # each resize holds at once, whatever the other panes do
            await pilot.resize_terminal(width, height)
            await until(pilot, lambda width=width: pane.outer_size.width == width)  # type: ignore[misc]


async def test_what_was_scrolled_away_is_read_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with running(an_engine()) as (pilot, pane, stream):
        stream.say("".join(f"line {n}\r\n" for n in range(200)).encode())
        await until(pilot, lambda: "line 199" in shown(pane))
        await pilot.press("f12", "g")
        await until(pilot, lambda: shown(pane)[0] == "line 0")
        stream.say(b"more\r\n")
        await until(pilot, lambda: pane.session.screen.grid.gone > 200 - pane.view.size.height)  # type: ignore[union-attr]
        assert shown(pane)[0] == "line 0", "what is read stays where it is"
        await pilot.press("v", "j", "j", "y")
        await until(pilot, (tmp_path / "workbench/clipboard.txt").exists)
        assert (tmp_path / "workbench/clipboard.txt").read_text() == "line 0\nline 1\nline 2"
        await pilot.press("enter", "x")
        await until(pilot, lambda: stream.said == b"x")
        assert "more" in shown(pane)


async def test_pages_and_a_cursor_on_a_wide_character() -> None:
    async with running(an_engine()) as (pilot, pane, stream):
        stream.say(b"".join(b"line %d\r\n" % n for n in range(100)) + "日本".encode() + b"\r")
        await until(pilot, lambda: "日本" in shown(pane)[-1])
        last = pane.view.render_line(pane.view.size.height - 1)
        assert next(each.text for each in last if each.style and each.style.reverse) == "日", "not the half of it"
        await pilot.press("f12", "pageup")
        assert pane.view.above == pane.view.size.height - 1, "the lines move, not the cursor alone"
        assert "lines back" in str(pane.border_subtitle)
        await pilot.press("pagedown", "G", "k", "pageup", "pageup", "pageup", "pageup", "pageup", "pageup", "pageup")
        assert shown(pane)[0] == "line 0"
        assert pane.view.line == 0
        await pilot.press("G")
        assert pane.view.above == 0


async def test_the_end_is_said_and_closed() -> None:
    async with running(an_engine()) as (pilot, pane, stream):
        stream.say(b"exit\r\n")
        stream.end(3)
        await until(pilot, lambda: "── ended with 3 ──" in shown(pane))
        assert not pane.view.inside
        await pilot.press("X")
        await until(pilot, lambda: pane.session is None)


async def test_a_shell_is_of_the_container_that_serves_and_opens_again_in_the_next_one() -> None:
    engine = an_engine()
    engine.put(a_container("web-before-2"))
    loop = FakeLoop()
    loop.report(ServiceState("web", "running", "web", "", 2))
    app = WorkbenchApp(engine, loop)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        pane = app.panes["terminal"]
        await until(pilot, lambda: len(app.lists.containers) == 2 and app.lists.services)
        await pilot.press("2")
        old, web = (app.lists.container(name) for name in ("web-before-2", "web"))
        assert old
        assert web
        app.panes["containers"].choose(Subject("container", old.id, old.name, old))
        await pilot.press("E")
        await until(pilot, lambda: pane.view.inside)  # type: ignore[attr-defined]
        assert [call[0] for call in engine.called("exec")] == [web.id], "not of the one that goes"
        engine.put(dataclasses.replace(web, id="f" * 64))
        await until(pilot, lambda: app.lists.container("f" * 64))
        engine.streams[-1].end(137)
        await until(pilot, lambda: "another container has its place" in str(pane.border_subtitle))
        await pilot.press("enter")
        await until(pilot, lambda: pane.view.inside)  # type: ignore[attr-defined]
        assert [call[0] for call in engine.called("exec")] == [web.id, "f" * 64]
        assert len(pane.sessions) == 1  # type: ignore[attr-defined]


async def test_an_image_without_a_shell() -> None:
    engine = an_engine()
    engine.fails["exec"] = NotFound('exec: "/bin/sh": executable file not found in $PATH')
    app = WorkbenchApp(engine, FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        pane = app.panes["terminal"]
        await until(pilot, lambda: app.lists.containers)
        await pilot.press("2", "E")
        await until(pilot, lambda: "web has no shell" in str(pane._note.render()))


async def test_attach_to_a_program_without_a_terminal() -> None:
    async with running(an_engine(), "a") as (pilot, pane, stream):
        stream.say(b"one\ntwo\n")
        await until(pilot, lambda: "two" in shown(pane))
        assert shown(pane)[0].startswith("web has no terminal")
        await pilot.press("f12", "X")
        await until(pilot, lambda: stream.detached)


async def test_attach_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = an_engine()
    plain = engine.container

    async def container(name: str) -> ContainerDetail:
        return dataclasses.replace(await plain(name), spec=ContainerSpec(image="x", tty=True, open_stdin=True))

    monkeypatch.setattr(engine, "container", container)
    async with running(engine, "a") as (pilot, pane, stream):
        (less, _), (rows, _) = stream.sizes[:2]
        assert less == rows - 1, "so that it draws itself anew"
        await until(pilot, lambda: stream.sizes[-1] == (pane.view.size.height, pane.view.size.width))


async def test_the_mouse_of_a_program() -> None:
    async with running(an_engine()) as (pilot, pane, stream):
        stream.say(b"\x1b[?1000h\x1b[?1006h")
        await until(pilot, lambda: pane.session.screen.mouse)  # type: ignore[union-attr]
        await pilot.click("#terminal-view", offset=(4, 2))
        await until(pilot, lambda: stream.said == b"\x1b[<0;5;3M\x1b[<0;5;3m")
