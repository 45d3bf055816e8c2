"""In a real terminal, on a real container: its log, a shell in it, and programs that use all that a terminal can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.terminal import Terminal

pytestmark = [pytest.mark.root, pytest.mark.peer("tmux"), pytest.mark.peer("vim"), pytest.mark.peer("less")]
REPOSITORY = Path(__file__).parents[2]
NAME = "workshop"
SAY = "for i in $(seq 1 3000); do echo said $i; done; echo oops >&2; exec sleep 1000"


def command(root: Path, *args: str) -> str:
    env = {**os.environ, "WORKBENCH_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *args], capture_output=True, text=True, check=False, env=env
    ).stdout


@pytest.fixture
def terminal(data_root: Path, tmp_path: Path) -> Iterator[Terminal]:
    # With this machine's programs inside: vim and less with all that they need.
    host = ("-v", "/usr:/usr:ro", "-v", "/etc/alternatives:/etc/alternatives:ro")
    command(data_root, "run", "-d", "--network", "none", "--name", NAME, *host, "workbench/base", "sh", "-c", SAY)
    env = {"WORKBENCH_ROOT": str(data_root), "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(tmp_path)}
    made = Terminal(120, 40, f"{sys.executable} -m engine.cli.main; exec sh", env, tmp_path)
    yield made
    made.close()
    command(data_root, "rm", "-f", NAME)


def test_log_shell_vim_less_and_the_clipboard(terminal: Terminal, data_root: Path) -> None:
    terminal.until(lambda text: "said 3000" in text and "!oops" in text)
    terminal.keys("6")
    terminal.until(lambda text: "& filter" in text)
    terminal.keys("&")
    terminal.until(lambda text: "words, !without" in text)
    terminal.keys("~said 7[0-9]{2}$", "Enter")
    terminal.until(lambda text: "said 799" in text and "said 3000" not in text)
    terminal.keys("k", "v", "k", "y")
    terminal.until(lambda text: "copied 2 lines to tmux" in text)
    assert terminal.buffer() == "said 797\nsaid 798"
    terminal.keys("Escape")
    terminal.until(lambda text: "said 802" in text)

    terminal.keys("2")
    terminal.until(lambda text: "E shell" in text)
    terminal.keys("E")
    terminal.until(lambda text: "F12 leaves" in text and "# " in text)
    terminal.keys("vim -u NONE /tmp/note", "Enter")
    terminal.until(lambda text: "[New File]" in text)
    terminal.keys("i", "first 日本語", "Enter", "second", "Escape", ":wq", "Enter")
    terminal.until(lambda text: text.count("# ") >= 2 and "second" not in text)
    assert command(data_root, "exec", NAME, "cat", "/tmp/note") == "first 日本語\nsecond\n"
    terminal.keys("seq 100 | less", "Enter")
    terminal.until(lambda text: "│1 " in text and "│2 " in text)
    terminal.keys("G")
    terminal.until(lambda text: "(END)" in text and "│100 " in text)
    terminal.keys("q")
    terminal.until(lambda text: "(END)" not in text)

    terminal.keys("F12")
    terminal.until(lambda text: "enter types" in text)
    terminal.keys("F")
    terminal.until(lambda text: "╭" not in text)
    terminal.resize(100, 30)
    terminal.keys("stty size", "Enter")
    terminal.until(lambda text: "30 100" in text)
    terminal.keys("F12")
    terminal.until(lambda text: "F12 leaves" in text and "30 100" in text)
    terminal.keys("exit", "Enter")
    terminal.until(lambda text: "── ended ──" in text)
