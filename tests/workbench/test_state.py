"""What panes show of hostile or odd records."""

from __future__ import annotations

import pytest

from engine.api import ContainerSummary, LayerInfo
from workbench.state import CONTAINERS, LAYERS, brief_age, brief_port, container_row, lay_out, layer_row, neutral
from workbench.widgets.log_view import Line, _spans, rule


@pytest.mark.parametrize(
    "hostile",
    ["\x1b]52;c;aGk=\x07x", "\x1b[2Jx", "\x9b2Jx", "x\u202e", "\x1bPq\x1b\\x", "\x00x\x7f", "\x1b[31mx\x1b[0m"],
)
def test_nothing_drives_the_terminal(hostile: str) -> None:
    assert neutral(hostile).replace("2J", "") == "x"


def test_colours_are_kept_where_asked() -> None:
    assert neutral("\x1b[31mred\x1b[0m\x1b[2J", colours=True) == "\x1b[31mred\x1b[0m"


def test_rows() -> None:
    running = ContainerSummary("i", "web", "img", "sha", "cmd", "running", 0, started=10**9, ports=("80/tcp",))
    assert container_row(running, now=61) == ("●", "web", "up 1 min", "80")
    ended = ContainerSummary("i", "web", "img", "sha", "cmd", "exited", 0, exit_code=None)
    assert container_row(ended)[2] == "exit ?"
    layer = LayerInfo(
        1, "COPY . .", "COPY . . # buildkit", "sha256:x", 1_000_000, 0, False, cached=False, seconds=0.041
    )
    assert layer_row(layer) == ("COPY . .", "built", "1MB", "41 ms")


@pytest.mark.parametrize("width", [20, 36, 49, 50, 80])
def test_rows_fit_their_pane(width: int) -> None:
    rows = [
        ("COPY . .", "cached", "1.25kB", "4 ms"),
        ("RUN pip install -r requirements.txt # 日本語", "built", "15MB", "3.0 s"),
    ]
    lines = lay_out(rows, LAYERS, width)
    assert all(line.cell_len <= width for line in lines)
    words = lines[1].plain.split()
    assert words[0] == "RUN"
    if width >= 36:
        assert words[-3:] == ["15MB", "3.0", "s"]
        assert ("built" in words) == (width >= 50)
    assert lay_out([], CONTAINERS, width) == []


def test_short_words() -> None:
    assert [brief_age(seconds) for seconds in (0.4, 59, 60, 7300, 49 * 3600)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert [brief_port(port) for port in ("8000/tcp", "0.0.0.0:8080->80/tcp", "53/udp", "[::]:80->80/tcp")] == [
        "8000",
        "8080→80",
        "53/udp",
        "80",
    ]


def test_a_long_rule_keeps_the_time_it_took() -> None:
    text = "── rebuilt 14:02:11 a1b2→c3d4 · src/app.py → step 5/6 COPY --chown=1000:1000 . . · 41 ms ──"
    assert rule(text, 60).endswith("… · 41 ms ")
    assert len(rule(text, 60)) == 60
    assert rule("── up ──", 12) == "── up ──────"


def test_long_lines_go_on_in_the_next_row() -> None:
    assert _spans(Line("short"), 10) == [(0, 10)]
    assert _spans(Line("one two three four"), 10) == [(0, 8), (8, 18)]
    assert _spans(Line("x" * 25), 10) == [(0, 10), (10, 20), (20, 30)]
    assert len(_spans(Line("\x1b[31mred\x1b[0m"), 5)) == 1
