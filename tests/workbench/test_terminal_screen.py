"""The emulator: what a program writes, as cells."""

from __future__ import annotations

import random

import pytest

from workbench.terminal.grid import HISTORY
from workbench.terminal.keys import key_bytes, mouse_bytes, paste_bytes
from workbench.terminal.pen import PLAIN, Pen, sgr
from workbench.terminal.screen import Screen


def lines(screen: Screen) -> list[str]:
    return [row.text.rstrip() for row in screen.grid.lines]


def fed(text: str, rows: int = 4, columns: int = 10) -> Screen:
    screen = Screen(rows, columns)
    screen.feed(text.encode())
    return screen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\r\ntwo", ["one", "two", "", ""]),
        ("0123456789ab", ["0123456789", "ab", "", ""]),
        ("0123456789\r\nb", ["0123456789", "b", "", ""]),
        ("\x1b[?7l0123456789ab", ["012345678b", "", "", ""]),
        ("123456789日本", ["123456789", "日本", "", ""]),
        ("日本\x1b[2GX", [" X本", "", "", ""]),
        ("日本\x1b[1GX", ["X 本", "", "", ""]),
        ("e\u0301x", ["e\u0301x", "", "", ""]),
        ("a\tb", ["a       b", "", "", ""]),
        ("\x1b[3;5Hx\x1b[Ay\x1b[2Dz", ["", "    zy", "    x", ""]),
        ("abcdef\x1b[3G\x1b[2P", ["abef", "", "", ""]),
        ("abcdef\x1b[3G\x1b[2@", ["ab  cdef", "", "", ""]),
        ("abcdef\x1b[3G\x1b[2X", ["ab  ef", "", "", ""]),
        ("abcdef\x1b[3G\x1b[K", ["ab", "", "", ""]),
        ("abcdef\x1b[3G\x1b[1K", ["   def", "", "", ""]),
        ("abc\x1b[4hX\r\x1b[4hY", ["YabcX", "", "", ""]),
        ("a\x1b[4b", ["aaaaa", "", "", ""]),
        ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n", ["1", "3", "", "4"]),
        ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[2;1H\x1bM", ["1", "", "2", "4"]),
        ("1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[L", ["1", "", "2", "3"]),
        ("1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[M", ["1", "3", "4", ""]),
        ("1\r\n2\r\n3\r\n4\x1b[2S", ["3", "4", "", ""]),
        ("1\r\n2\r\n3\r\n4\x1b[2T", ["", "", "1", "2"]),
        ("\x1b[2;4r\x1b[?6h\x1b[1;1Hx", ["", "x", "", ""]),
        ("\x1b(0lqk\x1b(Bq", ["┌─┐q", "", "", ""]),
        ("\x1b)0\x0elq\x0fq", ["┌─q", "", "", ""]),
        ("ab\x1b7cd\x1b8X", ["abXd", "", "", ""]),
        ("abc\bX", ["abX", "", "", ""]),
        ("\x1b#8", ["EEEEEEEEEE"] * 4),
        ("1\r\n2\x1b[2J\x1b[Hx", ["x", "", "", ""]),
        ("1\r\n2\r\n3\x1b[2;1H\x1b[J", ["1", "", "", ""]),
        ("\x1b[>4;2m\x1b[2 qA\x1bP+q544e\x1b\\B\x1b_x\x1b\\C\x1b]8;;u\x1b\\D", ["ABCD", "", "", ""]),
        ("a\x1b[999999999999CX", ["a        X", "", "", ""]),
        ("\x1b[31\x1b[1mA", ["A", "", "", ""]),
    ],
)
def test_what_stands_where(text: str, expected: list[str]) -> None:
    assert lines(fed(text)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_in_any_pieces_it_is_the_same(seed: int) -> None:
    chance = random.Random(seed)
    parts = ["abc", "日本", "\x1b[31m", "\x1b[2;3H", "\r\n", "\x1b]0;t\x07", "x" * 25, "\x1b[?1049h", "\x1b[?1049l", "l\r\n" * 6,
             "\x1b[2J", "\x1b[1;3r", "\x1bM", "e\u0301", "\x1b[3P", "\x1b[L", "\t"]  # fmt: skip
    data = "".join(chance.choices(parts, k=60)).encode()
    whole, pieces = Screen(5, 12), Screen(5, 12)
    whole.feed(data)
    at = 0
    while at < len(data):
        step = chance.randrange(1, 7)
        pieces.feed(data[at : at + step])
        at += step
    assert lines(whole) == lines(pieces)
    assert [row.pens for row in whole.grid.lines] == [row.pens for row in pieces.grid.lines]
    assert [row.text for row in whole._main.history or ()] == [row.text for row in pieces._main.history or ()]
    assert all(len(row.chars) == len(row.pens) == 12 for row in whole.grid.lines)


def test_rubbish_never_raises_and_keeps_the_grid_whole() -> None:
    chance = random.Random(7)
    for _ in range(300):
        screen = Screen(6, 20)
        screen.feed(b"".join(chance.choice([b"\x1b[", b"\x1b", b";", b"?", b"\r\n", bytes([chance.randrange(256)]), b"5", b"m", b"H", b"r", "日".encode()]) for _ in range(200)))  # fmt: skip
        screen.resize(chance.randrange(1, 9), chance.randrange(1, 30))
        screen.feed(b"abc\r\n" * 9)
        assert len(screen.grid.lines) == screen.grid.rows
        assert all(len(row.chars) == len(row.pens) == screen.grid.columns for row in screen.grid.lines)
        assert 0 <= screen.grid.x < screen.grid.columns
        assert 0 <= screen.grid.y < screen.grid.rows


def test_the_alternate_screen_leaves_the_other_alone() -> None:
    screen = fed("shell$ vim\r\n")
    before = lines(screen), screen.grid.x, screen.grid.y
    screen.feed(b"\x1b[?1049h\x1b[2J\x1b[Hediting" + b"\r\nmore" * 20)
    assert screen.is_alternate
    assert screen.grid.history is None
    screen.feed(b"\x1b[?1049l")
    assert (lines(screen), screen.grid.x, screen.grid.y) == before
    assert not screen.grid.history


def test_history_and_floods() -> None:
    screen = Screen(4, 10)
    screen.feed("".join(f"{n}\r\n" for n in range(20_000)).encode())
    assert lines(screen) == ["19997", "19998", "19999", ""]
    history = screen.grid.history
    assert history is not None
    assert len(history) == HISTORY
    assert history[-1].text.strip() == "19996"
    assert screen.grid.gone == 20_000 - 3
    screen.feed(b"\x1b[3J")
    assert not screen.grid.history


def test_resizing_keeps_what_was_said() -> None:
    screen = fed("1\r\n2\r\n3\r\n4")
    screen.resize(2, 10)
    assert lines(screen) == ["3", "4"]
    assert [row.text.strip() for row in screen.grid.history or ()] == ["1", "2"]
    screen.resize(4, 3)
    assert lines(screen) == ["3", "4", "", ""]
    screen = fed("日本語")
    screen.resize(4, 3)
    assert lines(screen) == ["日", "", "", ""]


def test_what_is_answered() -> None:
    said: list[bytes] = []
    screen = Screen(10, 20, said.append)
    screen.feed(b"\x1b[3;7H\x1b[6n\x1b[5n\x1b[c\x1b[>c\x1b[?25$p\x1b[?2004$p\x1b]11;?\x07\x1b]52;c;?\x07")
    assert said == [b"\x1b[3;7R", b"\x1b[0n", b"\x1b[?62;22c", b"\x1b[>1;100;0c", b"\x1b[?25;1$y", b"\x1b[?2004;2$y"]


def test_title_modes_bell() -> None:
    screen = fed("\x1b]0;a\x1b\\\x1b]2;b\x07\x07\x1b[?1h\x1b[?1002h\x1b[?1006h\x1b[?25l")
    assert (screen.title, screen.bells, screen.mouse) == ("b", 1, "drag")
    assert {1, 1006} <= screen.modes
    assert 25 not in screen.modes
    screen.feed(b"\x1bc")
    assert screen.modes == {7, 25}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", PLAIN),
        ("1;31", Pen(fg=1, bold=True)),
        ("38;5;208;4", Pen(fg=208, underline=True)),
        ("48;2;1;2;3", Pen(bg=(1, 2, 3))),
        ("38:2::1:2:3", Pen(fg=(1, 2, 3))),
        ("38:5:9", Pen(fg=9)),
        ("4:3", Pen(underline=True)),
        ("4;4:0", PLAIN),
        ("97;100", Pen(fg=15, bg=8)),
        ("38;5", PLAIN),
        ("38;5;999", PLAIN),
        ("7;27;1;22", PLAIN),
    ],
)
def test_colours(parameters: str, expected: Pen) -> None:
    assert sgr(PLAIN, parameters) == expected


def test_erasing_takes_the_background() -> None:
    screen = fed("\x1b[44m\x1b[2J")
    assert screen.grid.lines[0].pens[3] == Pen(bg=4)


@pytest.mark.parametrize(
    ("key", "character", "expected"),
    [
        ("a", "a", b"a"),
        ("é", "é", "é".encode()),
        ("enter", "\r", b"\r"),
        ("ctrl+c", "\x03", b"\x03"),
        ("ctrl+q", None, b"\x11"),
        ("ctrl+right_square_bracket", None, b"\x1d"),
        ("ctrl+at", None, b"\0"),
        ("alt+b", None, b"\x1bb"),
        ("alt+colon", None, b"\x1b:"),
        ("alt+slash", None, b"\x1b/"),
        ("alt+at", None, b"\x1b@"),
        ("alt+less_than_sign", None, b"\x1b<"),
        ("alt+minus", None, b"\x1b-"),
        ("alt+shift+g", None, b"\x1bG"),
        ("alt+enter", None, b"\x1b\r"),
        ("up", None, b"\x1b[A"),
        ("ctrl+right", None, b"\x1b[1;5C"),
        ("shift+f5", None, b"\x1b[15;2~"),
        ("f1", None, b"\x1bOP"),
        ("pagedown", None, b"\x1b[6~"),
        ("shift+tab", None, b"\x1b[Z"),
        ("backspace", "\x7f", b"\x7f"),
        ("escape", "\x1b", b"\x1b"),
        ("tab", "\t", b"\t"),
        ("ctrl+f13", None, b"\x1b[25;5~"),
    ],
)
def test_keys(key: str, character: str | None, expected: bytes) -> None:
    assert key_bytes(key, character) == expected


def test_cursor_keys_have_another_form_where_it_is_wanted() -> None:
    assert key_bytes("up", None, application=True) == b"\x1bOA"
    assert key_bytes("shift+up", None, application=True) == b"\x1b[1;2A"


def test_pastes_and_the_mouse() -> None:
    assert paste_bytes("a\nb\x1b[201~c", bracketed=True) == b"\x1b[200~a\rb[201~c\x1b[201~"
    assert paste_bytes("a\r\nb", bracketed=False) == b"a\rb"
    assert mouse_bytes(0, 4, 2, pressed=True, sgr=True) == b"\x1b[<0;5;3M"
    assert mouse_bytes(0, 4, 2, pressed=False, sgr=True) == b"\x1b[<0;5;3m"
    assert mouse_bytes(0, 4, 2, pressed=True, sgr=False) == b"\x1b[M \x25\x23"
    assert mouse_bytes(0, 400, 2, pressed=True, sgr=False) == b""


def test_a_quick_escape_is_not_lost() -> None:
    from textual._xterm_parser import XTermParser

    from workbench.terminal.input import program_has_keys

    program_has_keys(True)
    try:
        parser = XTermParser()
        events = [*parser.feed("\x1b:w\r"), *parser.feed("")]
    finally:
        program_has_keys(False)
    assert b"".join(key_bytes(event.key, event.character) for event in events) == b"\x1b:w\r"  # type: ignore[attr-defined]
