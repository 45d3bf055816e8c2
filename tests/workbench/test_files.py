"""The layers and files panes on a scripted engine, and the widgets of rows and lines by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.api import FileDifference
from engine.errors import Unsupported
from tests.workbench.fake_engine import FakeEngine, a_file, an_image, until
from workbench.app import WorkbenchApp
from workbench.highlight import diff_lines, file_lines, hex_lines, language
from workbench.panes.explorer import ExplorerPane
from workbench.panes.layers import LayersPane
from workbench.screens.reading import ReadingScreen
from workbench.widgets.file_view import FileView
from workbench.widgets.lines_view import LinesView, TextLine, fitting


def screen_text(app: WorkbenchApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def opened(app: WorkbenchApp, pilot: object) -> ExplorerPane:
    """The files of the selected image's topmost layer."""
    await until(pilot, lambda: app.lists.images)
    await pilot.press("3")  # type: ignore[attr-defined]
    layers = app.panes["layers"]
    await until(pilot, lambda: layers.subject is not None)
    await pilot.press("4", "enter")  # type: ignore[attr-defined]
    pane = app.panes["files"]
    assert isinstance(pane, ExplorerPane)
    await until(pilot, lambda: pane.view.selected is not None)
    return pane


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_layers_say_what_they_waste_and_enter_shows_their_files(size: tuple[int, int]) -> None:
    engine = FakeEngine(images=[an_image("shop-web")])
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        pane = await opened(app, pilot)
        layers = app.panes["layers"]
        assert isinstance(layers, LayersPane)
        await until(pilot, lambda: "wasted" in str(layers.border_subtitle))
        row = pane.view.selected
        assert row is not None
        assert row.path == "/app"
        await until(pilot, lambda: "made by #3 COPY app.py . (line 5)" in str(pane.detail.render()))
        assert "+ " in screen_text(app)
        assert engine.called("open_files")[-1][0].endswith("#4")


async def test_a_large_layer_shows_its_upper_folders_while_the_rest_is_read() -> None:
    engine = FakeEngine(images=[an_image("shop-web")])
    engine.files = [
        a_file("/a", "dir", 1),
        a_file("/b", "dir", 40, "A"),
        a_file("/b/c", "dir", 40),
        a_file("/b/c/d", "file", 40),
    ]
    engine.reading = asyncio.Event()
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await opened(app, pilot)
        await until(pilot, lambda: "reading the rest: 12,345 so far" in str(pane.border_subtitle))
        await pilot.press("j")
        await until(pilot, lambda: pane.view.count == 3)  # the next level
        assert pane.view.selected is not None
        assert pane.view.selected.path == "/b"
        engine.reading.set()
        await until(pilot, lambda: pane.view.count == 4)
        assert "reading" not in str(pane.border_subtitle)
        assert pane.view.selected.path == "/b"
        assert [depth for _, depth in engine.called("open_files")] == [0, 1, 2]


async def test_marks_order_filter_and_folds() -> None:
    engine = FakeEngine(images=[an_image("shop-web")])
    engine.files = [
        a_file("/app", "dir", 40, "A"),
        a_file("/app/app.py", "file", 40, "A"),
        a_file("/etc/motd", "file", 9),
    ]
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await opened(app, pilot)
        view = pane.view
        assert view.count == 3
        await pilot.press("enter")  # closes the folder
        await until(pilot, lambda: view.count == 2)
        await pilot.press("right")
        await until(pilot, lambda: view.count == 3)
        await pilot.press("t")  # the layer alone
        await until(pilot, lambda: view.count == 2)
        assert "layer" in str(pane.border_subtitle)
        await pilot.press("t", "o")
        await until(pilot, lambda: "by name" in str(pane.border_subtitle))
        await pilot.press("slash", *"motd", "enter")
        await until(pilot, lambda: view.count == 1)
        assert "1 match 'motd'" in str(pane.border_subtitle)
        await pilot.press("escape")
        await until(pilot, lambda: view.count == 3)
        await pilot.press("A")
        await until(pilot, lambda: view.count == 1)
        assert " aMDU " in str(pane.border_subtitle)


async def test_a_file_is_viewed_searched_and_compared(tmp_path: Path) -> None:
    engine = FakeEngine(images=[an_image("shop-web")])
    engine.contents["/app/app.py"] = b"import os\n# hello\nprint('hello')\n"
    engine.differences = [FileDifference("/app/app.py", "changed", 10, 40, "content")]
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(100, 30)) as pilot:
        pane = await opened(app, pilot)
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        reading = app.screen
        assert isinstance(reading, ReadingScreen)
        assert [line.text for line in reading.view.lines] == ["import os", "# hello", "print('hello')"]
        await pilot.press("slash", *"hello", "enter", "n")
        assert reading.view.hit_words == "2 of 2 hits"
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is not reading)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert engine.called("file_diff")[-1][0].endswith("#1")  # the layers below the topmost
        await pilot.press("escape")
        await pilot.press("k", "B", "d")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert engine.called("image_diff")[-1][0] == "shop-web#4"
        await pilot.press("enter")
        await until(pilot, lambda: len(engine.called("file_diff")) == 2)
        await pilot.press("escape", "w")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen) and "waste" in app.screen._title)
        assert "/etc/motd" in app.screen.view.lines[-1].text  # type: ignore[attr-defined]
        await pilot.press("escape", "j")
        pane.work(pane._save, str(tmp_path / "out.py"), group="save")
        await until(pilot, lambda: (tmp_path / "out.py").exists() and engine.called("save_file"))
        await until(pilot, lambda: (tmp_path / "out.py").read_bytes() == engine.contents["/app/app.py"])


async def test_an_engine_without_layers_says_so() -> None:
    engine = FakeEngine(images=[an_image("shop-web")])
    engine.fails["open_files"] = Unsupported("not possible on another engine", hint="bring it here")
    engine.fails["image_waste"] = Unsupported("not possible on another engine")
    app = WorkbenchApp(engine)  # type: ignore[arg-type]
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.lists.images)
        await pilot.press("3")
        await until(pilot, lambda: app.panes["layers"].subject is not None)
        await pilot.press("4", "enter")
        await until(pilot, lambda: "bring it here" in screen_text(app))


async def test_a_million_rows_ask_for_what_is_seen_alone() -> None:
    from textual.app import App, ComposeResult
    from textual.containers import Vertical

    asked: list[tuple[int, int]] = []

    class Holder(Vertical):
        def compose(self) -> ComposeResult:
            yield FileView(id="files")

        def on_file_view_wanted(self, message: FileView.Wanted) -> None:
            asked.append((message.first, message.count))
            view = self.query_one(FileView)
            view.supply(message.first, [a_file(f"/f{n}") for n in range(message.first, message.first + message.count)])

    class Host(App[None]):
        def compose(self) -> ComposeResult:
            yield Holder()

    app = Host()
    async with app.run_test(size=(60, 20)) as pilot:
        view = app.query_one(FileView)
        view.focus()
        view.show(1_000_000)
        await pilot.press("G")
        await until(pilot, lambda: view.selected is not None)
        row = view.selected
        assert row is not None
        assert row.path == "/f999999"
        await pilot.press("pageup", "k")
        assert "f999979" in view.render_line(0).text
        assert sum(count for _, count in asked) < 2000


def test_text_in_colour_and_bytes() -> None:
    assert language("/app/Dockerfile.dev") == "docker"
    assert language("/bin/tool", "#!/usr/bin/env python3") == "python"
    lines = file_lines("x.py", "def f():\n    return 'a'  # why\n")
    assert [(line.gutter, [line.text[a:b] for a, b, _ in line.spans]) for line in lines] == [
        ("1", ["def"]),
        ("2", ["return", "'a'", "# why"]),
    ]
    assert [line.style for line in diff_lines(["--- a", "+++ b", "@@ 1 @@", "-x", "+y", " z"])] == [
        "bold", "bold", "accent", "error", "success", "",
    ]  # fmt: skip
    assert hex_lines(b"\x7fELF")[0].text.endswith("7f 45 4c 46".ljust(47) + "  .ELF")
    assert fitting("äöü", 2) == 2
    assert fitting("日本語", 4) == 2


async def test_long_lines_go_on_below_or_to_the_right() -> None:
    from textual.app import App, ComposeResult

    class Host(App[None]):
        def compose(self) -> ComposeResult:
            yield LinesView(id="lines")

    app = Host()
    async with app.run_test(size=(20, 6)) as pilot:
        view = app.query_one(LinesView)
        view.focus()
        view.set([TextLine("0123456789" * 4, gutter="1"), TextLine("end", gutter="2")])
        assert [view.render_line(y).text.rstrip() for y in range(4)] == [
            "1 012345678901234567", "  890123456789012345", "  6789", "2 end",
        ]  # fmt: skip
        await pilot.press("W", "right")
        assert view.render_line(0).text == "1 890123456789012345"
        await pilot.press("j")
        assert view.line is not None
        assert view.line.text == "end"
