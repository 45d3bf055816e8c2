"""Copying: which way, and that it arrives in a real tmux and a real screen."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from workbench import clipboard

REPOSITORY = Path(__file__).parents[2]
TEXT = "grün\n日本語 and \x27quotes\x27"


@pytest.mark.parametrize(
    ("env", "way"),
    [
        ({"TERM": "xterm-256color"}, "terminal"),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x,1,0"}, "tmux"),
        ({"TERM": "screen", "STY": "1.a"}, "screen"),
        ({"TERM": "tmux-256color", "SSH_TTY": "/dev/pts/1"}, "nested"),
        ({"TERM": "linux"}, "file"),
        ({"TERM": "dumb"}, "file"),
        ({}, "file"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "file"),
    ],
)
def test_the_way_is_chosen_by_the_terminal(env: dict[str, str], way: str) -> None:
    assert clipboard.plan(TEXT, env).way == way


def test_sequences() -> None:
    encoded = base64.b64encode(TEXT.encode()).decode()
    assert clipboard.plan(TEXT, {"TERM": "xterm"}).sequence == f"\x1b]52;c;{encoded}\x07"
    assert clipboard.for_tmux("\x1b]52;c;YQ==\x07") == "\x1bPtmux;\x1b\x1b]52;c;YQ==\x07\x1b\\"
    long = clipboard.for_screen(clipboard.osc52(b"x" * 1000))
    pieces = long.split("\x1b\\")
    assert all(len(piece) <= 768 for piece in pieces)
    assert "".join(piece.removeprefix("\x1bP") for piece in pieces) == clipboard.osc52(b"x" * 1000)


async def test_what_is_too_long_goes_into_a_file(tmp_path: Path) -> None:
    written: list[str] = []
    env = {"TERM": "xterm", "XDG_STATE_HOME": str(tmp_path)}
    way = await clipboard.send("x" * (clipboard.LIMIT + 1), written.append, env)
    assert not written
    assert "74995 bytes are more than terminals take" in way
    file = tmp_path / "workbench/clipboard.txt"
    assert str(file) in way
    assert file.read_text() == "x" * (clipboard.LIMIT + 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "(OSC 52)" in await clipboard.send("short", written.append, env)
    assert written


SEND = f"""
import asyncio, os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from workbench import clipboard
def write(data):
    sys.stdout.write(data)
    sys.stdout.flush()
print(asyncio.run(clipboard.send({TEXT!r}, write, os.environ)), file=open(sys.argv[1], "w"))
open(sys.argv[1] + ".done", "w").close()
input()
"""


class Tmux:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = str(folder / "tmux")

    def __call__(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=False)
        return done.stdout

    def run(self, command: str, *options: str) -> None:
        self("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "sleep 1000")
        for option in options:
            self("set-option", "-g", *option.split())
        self("new-window", command)

    def until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < end, self("capture-pane", "-p")
            os.sched_yield()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    made = Tmux(tmp_path)
    (tmp_path / "send.py").write_text(SEND)
    yield made
    made("kill-server")


@pytest.mark.peer("tmux")
def test_in_tmux_it_arrives_in_the_buffer(tmux: Tmux) -> None:
    said = tmux.folder / "said"
    tmux.run(f"{sys.executable} {tmux.folder}/send.py {said}")
    tmux.until((tmux.folder / "said.done").exists)
    assert "to tmux's buffer" in said.read_text()
    assert tmux("show-buffer") == TEXT


@pytest.mark.peer("tmux")
def test_behind_ssh_in_tmux_it_arrives_where_set_clipboard_is_on(tmux: Tmux) -> None:
    """As over ssh: no $TMUX, and the tmux command would not help."""
    said = tmux.folder / "said"
    state = tmux.folder / "state"
    tmux.run(f"env -u TMUX XDG_STATE_HOME={state} {sys.executable} {tmux.folder}/send.py {said}", "set-clipboard on")
    tmux.until(lambda: tmux("show-buffer") == TEXT)
    tmux.until((tmux.folder / "said.done").exists)
    assert "tmux, if its set-clipboard" in said.read_text()
    assert (state / "workbench/clipboard.txt").read_text() == TEXT, "nobody says whether it came through"


@pytest.mark.peer("tmux")
def test_a_wrapped_one_passes_through_to_the_terminal_around(tmux: Tmux, tmp_path: Path) -> None:
    """The outer terminal is another tmux, which takes OSC 52; the inner one only hands on (`allow-passthrough`)."""
    inner = tmp_path / "inner"
    (tmp_path / "inner.sh").write_text(
        f"exec tmux -S {inner} -f /dev/null new-session 'tmux -S {inner} set-option -g allow-passthrough on; "
        f"tmux -S {inner} set-option -g set-clipboard off; exec env -u TMUX XDG_STATE_HOME={tmp_path} {sys.executable} {tmp_path}/send.py {tmp_path}/said'"
    )
    tmux.run(f"env -u TMUX sh {tmp_path}/inner.sh", "set-clipboard on")
    try:
        tmux.until(lambda: tmux("show-buffer") == TEXT)
    finally:
        subprocess.run(["tmux", "-S", str(inner), "kill-server"], check=False, capture_output=True)


@pytest.mark.peer("screen")
@pytest.mark.peer("tmux")
def test_in_screen_it_arrives_at_the_terminal_around(tmux: Tmux, tmp_path: Path) -> None:
    folder = tmp_path / "screens"
    folder.mkdir(mode=0o700)
    tmux.run(
        f"env -u TMUX SCREENDIR={folder} screen -c /dev/null -S copy {sys.executable} {tmp_path}/send.py {tmp_path}/said",
        "set-clipboard on",
    )
    try:
        tmux.until(lambda: tmux("show-buffer") == TEXT)
    finally:
        env = {**os.environ, "SCREENDIR": str(folder)}
        subprocess.run(["screen", "-S", "copy", "-X", "quit"], check=False, capture_output=True, env=env)
    assert "through screen" in (tmp_path / "said").read_text()
