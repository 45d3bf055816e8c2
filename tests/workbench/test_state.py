"""What panes show of hostile or odd records."""

from __future__ import annotations

import pytest

from engine.api import ContainerSummary, LayerInfo
from workbench.state import container_row, layer_row, neutral


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
    assert container_row(running, now=61) == ("● web", "up about a minute", "80/tcp")
    ended = ContainerSummary("i", "web", "img", "sha", "cmd", "exited", 0, exit_code=None)
    assert container_row(ended)[1] == "exit ?"
    layer = LayerInfo(
        1, "COPY . .", "COPY . . # buildkit", "sha256:x", 1_000_000, 0, False, cached=False, seconds=0.041
    )
    assert layer_row(layer) == ("1MB", "built", "41 ms", "COPY . .")
