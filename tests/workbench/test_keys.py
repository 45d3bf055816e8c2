"""Keys: nothing does two things, every action has a name and words, maps and the user's own file, and what clashes is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.binding import Binding
from textual.events import Key

from tests.workbench.fake_engine import FakeLoop, until
from tests.workbench.test_app import an_engine
from workbench import commands, keymaps
from workbench.actions import PERFORM
from workbench.app import WorkbenchApp
from workbench.settings import Left, Settings, read_left, read_settings, write_left


async def scopes_of(app: WorkbenchApp) -> dict[str, list[Binding]]:
    return {pane.TITLE: [b for scope in app.keys.scopes(pane) for b in scope] for pane in app.panes.values()}


@pytest.mark.parametrize("name", keymaps.NAMES)
async def test_no_key_does_two_things_in_any_pane(name: str) -> None:
    app = WorkbenchApp(an_engine(), FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "container.stop" in app.keys.native)
        found = keymaps.clashes(await scopes_of(app), keymaps.load(name))
        # A pane of output takes letters for itself that mean something else around it.
        assert not [each for each in found if "list." in each or "there is no action" in each or ".quit" in each], found


async def test_every_binding_has_an_id_and_says_what_it_does() -> None:
    app = WorkbenchApp(an_engine(), FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "container.stop" in app.keys.native)
        for bindings in (await scopes_of(app)).values():
            for binding in bindings:
                if binding.description and not binding.system:
                    assert binding.id, binding
                    assert binding.tooltip or binding.id.startswith("log."), binding


def test_every_command_can_be_performed_and_shown() -> None:
    assert set(PERFORM) == set(commands.BY_ID)
    assert len(commands.BY_ID) == len(commands.TABLE)
    for command in commands.TABLE:
        assert command.help


def test_users_keys_that_clash_or_name_nothing_are_told() -> None:
    scopes = {"containers": [Binding("s", "a", id="container.stop"), Binding("S", "b", id="container.start")]}
    assert keymaps.clashes(scopes, {}) == []
    assert "both container.start and container.stop" in keymaps.clashes(scopes, {"container.start": "s"})[0]
    assert keymaps.clashes(scopes, {"container.start": "s", "container.stop": "S"}) == []
    assert keymaps.clashes(scopes, {"nothing.at_all": "s"}) == ["there is no action 'nothing.at_all'"]


def test_settings_say_what_they_do_not_understand(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    assert read_settings(file) == Settings()
    file.write_text('theme = "light"\nkeymap = 3\ncolour = "red"\n[keys]\n"container.stop" = "f4"\n"app.quit" = 1\n')
    found = read_settings(file)
    assert (found.theme, found.keymap, dict(found.keys)) == ("light", "", {"container.stop": "f4"})
    assert len(found.problems) == 3
    file.write_text("theme = \n")
    assert "config.toml" in read_settings(file).problems[0]


def test_where_it_was_left_is_kept_by_place(tmp_path: Path) -> None:
    file = tmp_path / "state/app.json"
    left = Left(("logs", "images"), "full", "light", {"images": "sha256:x"})
    write_left(file, "/shop", left)
    write_left(file, "/other", Left(("build",)))
    assert read_left(file, "/shop") == left
    assert read_left(file, "/nowhere") == Left()
    file.write_text("{")
    assert read_left(file, "/shop") == Left()


def test_a_key_that_does_not_exist_is_told_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[keys]\n"container.stop" = "ctlr+s"\n"container.start" = "f4, return"\n'
        '"container.kill" = \'Q\'\n"container.pause" = ""\n'
    )
    found = read_settings(file)
    assert dict(found.keys) == {
        "container.start": "f4",
        "container.kill": "Q",
        "container.pause": "unbound-container.pause",
    }
    assert len(found.problems) == 2
    assert found.problems[0].startswith(f"{file}:2: container.stop: there is no key 'ctlr+s'")
    assert found.problems[1] == f"{file}:3: container.start: there is no key 'return', did you mean 'enter'?"
    for name in (
        "a",
        "A",
        "?",
        "f12",
        "ctrl+f5",
        "shift+tab",
        "question_mark",
        "space",
        "ctrl+backslash",
        "é",
        "section_sign",
    ):
        assert keymaps.is_key(name), name
    for name in ("", "f99", "Enter", "control+a", "ctrl+", "foo", "ctrl"):
        assert not keymaps.is_key(name), name


@pytest.mark.parametrize("name", keymaps.NAMES)
def test_maps_name_keys_that_exist(name: str) -> None:
    for keys in keymaps.load(name).values():
        assert all(keymaps.is_key(key) for key in keys.split(",")), keys


async def test_lazydocker_fingers() -> None:
    engine = an_engine()
    app = WorkbenchApp(engine, FakeLoop(), keymap="lazydocker")  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.keys.map and app.lists.containers)
        await pilot.press("3", "r")
        await until(pilot, lambda: engine.called("restart"))
        await pilot.press("4")
        assert app.pane.NAME == "images"
        await pilot.press("l")
        assert app.pane.NAME == "layers"
        titles = " ".join(str(pane.border_title) for pane in app.panes.values() if pane.on_screen)
        assert "3 containers" in titles, "the numbers are those of the key map"
        assert "4 images" in titles


async def test_what_is_typed_at_once_goes_where_each_key_puts_it() -> None:
    """As a paste, or a slow line: all keys are there before the first one is handled. `s` would stop a container."""
    engine = an_engine()
    app = WorkbenchApp(engine, FakeLoop())  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.keys.map is not None and app.lists.containers)
        for key in ("2", "slash", "s", "h", "o", "enter", "asterisk", "6", "slash", "s", "b"):
            app.post_message(Key(key, key if len(key) == 1 else None))
        await until(pilot, lambda: app.pane.NAME == "logs" and app.query_one("#logs Prompt Input").value == "sb")  # type: ignore[attr-defined]
        assert len(app.panes["containers"].subjects) > 1, "the asterisk was the list's again"
        assert not engine.called("stop")
        assert not engine.called("restart")


async def test_own_keys_over_the_map_and_a_clash_is_shown() -> None:
    engine = an_engine()
    settings = Settings(keys={"container.stop": "f4", "container.pause": "S"})
    app = WorkbenchApp(engine, FakeLoop(), settings=settings)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.keys.map and app.lists.containers)
        shown = str(app.query_one("#trouble").render())
        assert "container.pause" in shown
        assert "container.start" in shown
        await pilot.press("2", "f4")
        await until(pilot, lambda: engine.called("stop"))
