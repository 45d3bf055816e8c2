"""The log view line by line: what is drawn, and where it stands."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult

from engine.api import LogRow
from tests.patience import PATIENCE
from workbench.widgets import log_format
from workbench.widgets.book_select import Spot, between
from workbench.widgets.book_view import BookView


def rows(texts: Sequence[str], stream: str = "stdout") -> list[LogRow]:
    return [LogRow(n, 0, stream, "2023-11-14T22:13:20.777000000Z", text) for n, text in enumerate(texts)]


class Host(App[None]):
    CSS = "BookView { scrollbar-size: 0 0; }"

    def __init__(self, texts: Sequence[str], stream: str = "stdout") -> None:
        super().__init__()
        self.view = BookView(empty="nothing yet")
        self.rows = rows(texts, stream)
        self.asked: list[tuple[int, int]] = []
        self.answer = True

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self.view.focus()
        self.view.grow(0, len(self.rows))

    def on_book_view_wanted(self, message: BookView.Wanted) -> None:
        self.asked.append((message.first, message.count))
        if self.answer:
            self.view.supply(message.first, self.rows[message.first : message.first + message.count])


@contextlib.asynccontextmanager
async def showing(
    texts: Sequence[str], size: tuple[int, int] = (40, 10), stream: str = "stdout"
) -> AsyncIterator[tuple[Any, Host]]:
    app = Host(texts, stream)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.pause()
        yield pilot, app


def drawn(app: Host) -> list[str]:
    return [app.view.render_line(y).text[2:].rstrip() for y in range(app.view.page)]


async def test_a_million_rows_ask_for_a_screenful() -> None:
    app = Host([])
    async with app.run_test(size=(40, 10)) as pilot:
        asked = app.asked
        app.view.grow(0, 1_000_000)
        await pilot.pause()
        app.answer = False
        await pilot.press("g")
        await pilot.pause()
        assert asked
        assert all(count <= 60 for _first, count in asked)
        assert asked[0][0] > 999_900
        assert asked[-1][0] == 0
        app.view.supply(0, rows([f"r{n}" for n in range(30)]))
        assert drawn(app)[0] == "r0"
        assert app.view.max_scroll_y == 1_000_000 - 10


async def test_every_line_has_the_width_of_the_pane() -> None:
    texts = [
        "",
        "日本語" * 20,
        "x" * 500,
        "\x1b[31mred",
        "a\tb",
        "👩‍👩‍👧 family",
        "e\u0301" * 50,
        '{"a":"日本語"}',
        "── rule",
    ]
    for width in (1, 2, 3, 7, 40):
        async with showing(texts, (width, 30)) as (pilot, app):
            for wrap in (True, False):
                app.view.look = replace(app.view.look, wrap=wrap, times=True, names=("web", "database"))
                await pilot.pause()
                for y in range(30):
                    assert app.view.render_line(y).cell_length == width, (width, wrap, y)


async def test_long_rows_wrap_and_scroll_by_line() -> None:
    texts = [f"{n} " + "abcdefghi " * 12 for n in range(5)]
    async with showing(texts) as (pilot, app):
        whole = "\n".join(drawn(app))
        assert whole.endswith("abcdefghi"), "the end is at the bottom"
        assert app.view.following
        lines = drawn(app)
        await pilot.press("k")
        assert not app.view.following
        assert app.view.cursor == 3
        await pilot.press("g")
        assert drawn(app)[0].startswith("0 abc")
        for _ in range(40):
            await pilot.press("j")
        assert drawn(app) == lines
        assert app.view.following


async def test_one_row_larger_than_the_screen_is_read_to_its_end() -> None:
    words = " ".join(str(n) for n in range(400))
    async with showing(["first", words, "last"]) as (pilot, app):
        await pilot.press("g")
        seen: list[str] = []
        for _ in range(80):
            seen += [word for line in drawn(app) for word in line.split() if word.isdigit()]
            await pilot.press("j")
        assert set(seen) >= {str(n) for n in range(400)}
        assert drawn(app)[-1] == "last"
        for _ in range(80):
            await pilot.press("k")
        assert drawn(app)[0] == "first"
        await pilot.press("pagedown", "pagedown", "pageup", "G")
        assert drawn(app)[-1] == "last"


async def test_pages_and_the_wheel_move_the_cursor_along() -> None:
    async with showing([f"r{n}" for n in range(100)]) as (pilot, app):
        await pilot.press("pageup")
        await pilot.pause()
        assert drawn(app)[0] == "r81"
        assert not app.view.following
        assert 81 <= app.view.cursor <= 90
        app.view._wheel(-3)
        assert drawn(app)[0] == "r78"
        for _ in range(9):
            app.view._wheel(3)
        assert app.view.following
        app.view.scroll_y = 20
        await pilot.pause()
        assert drawn(app)[0] == "r20"
        assert 20 <= app.view.cursor < 30


async def test_what_is_not_there_yet_is_a_dot_and_then_the_row() -> None:
    async with showing([f"r{n}" for n in range(1000)]) as (pilot, app):
        app.answer = False
        app.view.go_to(500)
        await pilot.pause()
        assert set(drawn(app)) == {"…"}
        first, count = app.asked[-1]
        app.view.supply(first, app.rows[first : first + count])
        assert "r500" in drawn(app)


async def test_rows_that_go_away_at_the_front() -> None:
    async with showing([f"r{n}" for n in range(100)]) as (pilot, app):
        await pilot.press("g")
        app.view.grow(40, 100)
        await pilot.pause()
        assert drawn(app)[0] == "r40"
        assert app.view.cursor == 40


async def test_stderr_and_marks_are_signs_not_only_colours() -> None:
    async with showing(["oops"], stream="stderr") as (_pilot, app):
        assert app.view.render_line(0).text.startswith(" !oops")
        app.view.marks.add(0)
        app.view.redraw(0)
        assert app.view.render_line(0).text.startswith("◆!oops")


async def test_an_empty_log_says_so() -> None:
    async with showing([]) as (_pilot, app):
        assert app.view.render_line(0).text.strip() == "nothing yet"


@pytest.mark.parametrize(
    ("hostile", "seen"),
    [
        ("\x1b]52;c;aGk=\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[10;10Hx\x1b[?1049h\x1b[6n", "x"),
        ("\x9b2Jx\x90q\x9c", "2Jxq"),
        ("ad\u202emin\u2066\u200b\u200f\ufeff", "admin"),
        ("10%\r20%\r", "10%␍20%"),
        ("z\u0335\u0336\u0337\u0338\u0339\u033a", "z\u0335\u0336\u0337"),
        ("bad \udcff byte", "bad \ufffd byte"),
        ("\x1bPq\x1b\\x", "x"),
        ("two\u2028lines", "twolines"),
        ("\x1b[8mhidden\x1b[0m", "hidden"),
    ],
)
async def test_hostile_rows(hostile: str, seen: str) -> None:
    async with showing([hostile]) as (_pilot, app):
        strip = app.view.render_line(0)
        assert strip.text.strip() == seen
        assert strip.text.isprintable()
        assert not any(segment.style and (segment.style.conceal or segment.style.blink) for segment in strip)
        strip.text.encode()


async def test_colours_stay() -> None:
    async with showing(["\x1b[31mred\x1b[0m \x1b[38;5;208m256\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[0m"]) as (_pilot, app):
        by_text = {segment.text: segment.style for segment in app.view.render_line(0) if segment.text.strip()}
        assert all(by_text[text] and by_text[text].color for text in ("red", "256", "true"))  # type: ignore[union-attr]


def test_a_line_of_colours_costs_little() -> None:
    import time

    start = time.perf_counter()
    text = log_format.styled("\x1b[31ma\x1b[32mb" * 1500)
    assert len(text.plain) == 3000
    assert time.perf_counter() - start < PATIENCE  # not the square of what it is


def test_readable_json() -> None:
    fields = log_format.parse_fields('{"ts":1,"level":"error","msg":"no\\nway","err":{"code":5},"n":null}')
    assert fields is not None
    assert log_format.readable(fields).plain == 'ERROR no⏎way  err={"code":5} n=null ts=1'
    assert log_format.readable({"level": 50, "msg": "pino"}).plain == "ERROR pino"
    for no in ("{}", "[1]", "{broken", "plain", '{"a":1} tail'):
        assert log_format.parse_fields(no) is None
    assert log_format.parse_fields('{"a":' * 100_000 + "1" + "}" * 100_000) is None


@pytest.mark.parametrize("width", [2, 5, 17])
def test_spans_hold_every_cell_once(width: int) -> None:
    for text in ("hello world and more", "日本語日本語", "x" * 50, "a日b本c語" * 4, "👩‍👩‍👧" * 5):
        found = log_format.spans(text, width)
        assert found[0][0] == 0
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))
        assert found[-1][1] >= cell_len(text)
        assert all(end - start <= width for start, end in found)


async def test_characters_are_selected_by_keys() -> None:
    async with showing(["first line", "日本語 wide", "", "last"]) as (pilot, app):
        view = app.view
        await pilot.press("g")
        view.begin_selection(by_character=True)
        await pilot.press("right", "right", "ctrl+right")
        assert view.span == (Spot(0, 0), Spot(0, 6))
        await pilot.press("dollar_sign", "right", "right")
        assert view.span == (Spot(0, 0), Spot(1, 1))
        assert between(*view.span, ["first line", "日本語 wide"], [True, True]) == "first line\n日本"
        await pilot.press("down", "down", "circumflex_accent", "ctrl+left", "left")
        assert view.span == (Spot(0, 0), Spot(1, 7))
        await pilot.press("G")
        view.grow(0, 5)
        assert not view.following
        assert view.span == (Spot(0, 0), Spot(3, 3))
        view.end_selection()
        assert view.span is None


async def test_characters_are_selected_by_the_mouse_also_over_wrapped_lines_and_wide_characters() -> None:
    async with showing(["x" * 30 + " tail", "日本語 wide", "", "path /etc/hosts end"], size=(22, 10)) as (pilot, app):
        view = app.view
        await pilot.press("g")
        lines = drawn(app)
        assert lines[:4] == ["x" * 20, "x" * 10 + " tail", "日本語 wide", ""]
        await pilot.mouse_down(view, offset=(4, 1))
        await pilot.hover(view, offset=(5, 2))
        await pilot.mouse_up(view, offset=(5, 2))
        assert view.span == (Spot(0, 22), Spot(1, 1))
        assert between(*view.span, [view.plain(0), view.plain(1)], [True, True]) == "x" * 8 + " tail\n日本"
        styles = [segment.style.bgcolor for segment in view.render_line(2) if segment.style and segment.text.strip()]
        assert len(set(styles)) > 1, "what is selected stands out"
        assert view.render_line(2).text[2:].rstrip() == "日本語 wide"
        await pilot.click(view, offset=(10, 4), times=2)
        first, last = view.span or (Spot(0, 0), Spot(0, 0))
        assert view.plain(first.row)[first.at : last.at + 1] == "/etc/hosts"
        await pilot.click(view, offset=(10, 4), times=3)
        assert view.span == (Spot(3, 0), Spot(3, 18))
        await pilot.click(view, offset=(3, 0))
        assert view.span is None
        assert view.cursor == 0
