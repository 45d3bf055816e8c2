"""What panes show of hostile or odd records."""

from __future__ import annotations

import pytest

from engine.api import ContainerSummary, LayerInfo
from workbench.layer_rows import layer_row
from workbench.layout import plan
from workbench.rows import CONTAINERS, brief_bytes, brief_percent, container_row
from workbench.state import brief_port, brief_when, neutral
from workbench.table import Matcher, fit, natural_key, set_text
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
    running = ContainerSummary(
        "i", "web", "img", "sha", "cmd", "running", 0, started=10**9, ports=("0.0.0.0:80->80/tcp",)
    )
    assert container_row(running, now=61)[:5] == ("●", "web", "running", "", "80")
    ended = ContainerSummary("i", "web", "img", "sha", "cmd", "exited", 0, exit_code=None)
    assert container_row(ended)[2] == "exit ?"
    layer = LayerInfo(
        1, "COPY . .", "COPY . . # buildkit", "sha256:x", 1_000_000, 0, False, cached=False, seconds=0.041
    )
    assert layer_row(layer) == ("1", "COPY . .", "", "built", "1MB", "", "41 ms", "")


@pytest.mark.parametrize("width", [1, 10, 20, 36, 49, 50, 80, 150])
def test_columns_fit_their_pane_and_name_and_state_stay(width: int) -> None:
    natural = [1, 20, 9, 9, 20, 6, 6, 2, 3, 5, 30]
    widths = fit(natural, CONTAINERS, width, 2 if width >= 50 else 1)
    used = [size for size in widths if size]
    assert sum(used) + (2 if width >= 50 else 1) * (len(used) - 1) <= max(width, 13)
    if width >= 36:
        assert widths[1] >= 16
        assert widths[2] == 9
    if width >= 150:
        assert all(widths)


def test_memory_and_since_stay_beside_a_healthy_container_at_160_columns() -> None:
    row = container_row(
        ContainerSummary(
            "i", "shop-web-1", "shop-web", "sha", "cmd", "running", 0, started=10**9, health="healthy",
            ports=("0.0.0.0:8080->80/tcp", "0.0.0.0:5432->5432/tcp"), labels={"workbench.generation": "12"},
        ),
        now=61,
    )  # fmt: skip
    pane = next(slot for slot in plan(160, 43, ["containers"]) if slot.shown == "containers")
    natural = [max(len(cell), column.least) for cell, column in zip(row, CONTAINERS, strict=True)]
    natural = [max(size, len(column.title)) if size else 0 for size, column in zip(natural, CONTAINERS, strict=True)]
    widths = fit(natural, CONTAINERS, pane.width - 4, 1)
    shown = [column.title for column, size in zip(CONTAINERS, widths, strict=True) if size]
    assert shown == ["", "CONTAINER", "STATE", "HEALTH", "PORTS", "CPU", "MEMORY", "GEN", "SINCE"]
    assert widths[4] >= 6


def test_cells_are_cut_or_padded() -> None:
    assert set_text("web", 5) == "web  "
    assert set_text("web", 5, right=True) == "  web"
    assert set_text("日本語の名前", 5) == "日本…"
    assert set_text("web", 0) == ""


def test_filters() -> None:
    cells = ("shop-web-1", "running", "8000→80")
    assert Matcher("WEB run")(cells)
    assert not Matcher("web exited")(cells)
    assert Matcher("!exited")(cells)
    assert not Matcher("!web")(cells)
    assert Matcher("~web-[0-9]")(cells)
    assert not Matcher("~(")(cells)
    assert not Matcher("~(a|aa)+$")(["a" * 60 + "b"])  # it would never end
    assert sorted(["web-10", "web-2"], key=natural_key) == ["web-2", "web-10"]


def test_short_words() -> None:
    assert brief_when(0) == ""
    assert brief_when(10**18, 10**9 + 40 * 86400.0) == "9 Sep"
    assert brief_when(10**18, 10**9 + 400 * 86400.0) == "2001-09"
    assert [brief_percent(value) for value in (0.2, 1.25, 99.6)] == ["0 %", "1.2 %", "100 %"]
    assert [brief_bytes(size) for size in (3, 999, 9_100_000, 19_960_000, 10**12)] == [
        "3B",
        "999B",
        "9.1MB",
        "20MB",
        "1.0TB",
    ]
    assert [brief_port(port) for port in ("8000/tcp", "0.0.0.0:8080->80/tcp", "53/udp", "[::]:80->80/tcp")] == [
        "(8000)",
        "8080→80",
        "(53/udp)",
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
