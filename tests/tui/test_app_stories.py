"""In a real terminal: a build that fails and is mended, marked rows, and an SSH connection that is lost while the app is open."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.other_host import Other, other
from tests.tui.terminal import SECONDS, Terminal

__all__ = ["other"]
pytestmark = [pytest.mark.root, pytest.mark.peer("tmux")]
REPOSITORY = Path(__file__).parents[2]


def command(root: Path, *args: str) -> str:
    env = {**os.environ, "WORKBENCH_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *args], capture_output=True, text=True, check=False, env=env
    ).stdout


@pytest.fixture
def terminal(data_root: Path, tmp_path: Path) -> Iterator[Terminal]:
    env = {
        "WORKBENCH_ROOT": str(data_root),
        "PYTHONPATH": str(REPOSITORY),
        "XDG_STATE_HOME": f"{tmp_path}/state",
        "XDG_CONFIG_HOME": f"{tmp_path}/config",
    }
    made = Terminal(80, 24, f"{sys.executable} -m engine.cli.main demo story; exec sh", env, tmp_path)
    yield made
    made.close()
    command(data_root, "rm", "-f", "story-web-1")


def test_a_failed_build_is_mended_and_a_container_is_stopped_and_removed(
    terminal: Terminal, data_root: Path, tmp_path: Path
) -> None:
    terminal.until(lambda text: "Hello from the workbench" in text and "web running" in text)
    dockerfile = tmp_path / "story/Dockerfile"
    good = dockerfile.read_text()
    dockerfile.write_text(good.replace("COPY", "RUN python3 -c 'import nothing_of_the_kind'\nCOPY"))
    terminal.until(lambda text: "what ran before goes on" in " ".join(text.split()))
    assert "story-web-1" in command(data_root, "ps")
    terminal.keys("5")
    terminal.until(lambda text: "import nothing_of_the_kind" in text)
    dockerfile.write_text(good.replace("COPY", "RUN echo mended > /mended\nCOPY"))
    terminal.until(lambda text: "web running, generation 2" in text and "goes on" not in text)

    terminal.keys("2")
    row = re.compile(r"story-web-1 +running .* 2 +\d\d:\d\d")  # of the second generation, alone
    terminal.until(lambda text: bool(row.search(text)) and len(re.findall("story-web-1", text)) == 1)
    terminal.keys("s")
    terminal.until(lambda text: bool(re.search(r"story-web-1 +exit \d", text)))
    terminal.keys("S")
    terminal.until(lambda text: "● story-web-1" in " ".join(text.split()))
    terminal.keys("d")
    terminal.until(lambda text: "$ workbench rm -f story-web-1" in text)
    terminal.keys("Enter")  # Cancel has the focus
    terminal.until(lambda text: "$ workbench rm -f" not in text)
    assert "story-web-1" in command(data_root, "ps")
    terminal.keys("C")
    terminal.until(lambda text: "workbench stop story-web-1" in text and "workbench start story-web-1" in text)
    terminal.keys("q", "q")
    terminal.until(lambda text: "the containers go on" in text)


def work_over_ssh(terminal: Terminal, project: Path) -> None:
    """A save, a build that fails and is mended, a shell inside, and a window that changes its size as fast as a mouse drags it."""
    program, dockerfile = project / "app.py", project / "Dockerfile"
    program.write_text(program.read_text().replace("Hello from the workbench", "Hello over ssh"))
    terminal.until(lambda text: "── rebuilt" in text and "Hello over ssh" in text)
    good = dockerfile.read_text()
    dockerfile.write_text(good.replace("COPY", "RUN exit 3\nCOPY"))
    terminal.until(lambda text: "what ran before goes on" in " ".join(text.split()))
    dockerfile.write_text(good.replace("COPY", "RUN true\nCOPY"))
    terminal.until(lambda text: "web running, generation 3" in text and "goes on" not in text)
    terminal.keys("2")
    terminal.until(lambda text: bool(re.search(r"far-web-1 +running .* 3 +\d\d:\d\d", text)) and "before" not in text)
    terminal.keys("E")
    terminal.until(lambda text: "F12" in text)
    terminal.keys("echo in $((6*7)) $PWD", "Enter")
    terminal.until(lambda text: "in 42 /app" in text)
    for columns, rows in ((40, 12), (160, 45), (80, 24), (200, 50), (20, 6), (100, 30)):
        terminal.resize(columns, rows)
    terminal.until(lambda text: "in 42 /app" in text and "F12" in text and max(map(len, text.splitlines())) > 90)
    terminal.keys("exit", "Enter")
    terminal.until(lambda text: "F12" not in text)
    terminal.keys("6")
    terminal.until(lambda text: "Hello over ssh" in text)


@pytest.mark.peer("sshd")
def test_a_lost_connection_loses_nothing_and_the_app_opens_where_it_was(other: Other, tmp_path: Path) -> None:
    place, pid = other.folder / "work", other.folder / "pid"
    place.mkdir()
    inside = f"cd {place}; echo $$ > {pid}; XDG_STATE_HOME={place}/state exec workbench demo far"
    port = other.url.rpartition(":")[2]
    words = f"{os.environ['WORKBENCH_SSH']} -tt -p {port} root@127.0.0.1 {shlex.quote(inside)}"
    first = Terminal(100, 30, words, {}, tmp_path)
    try:
        first.until(lambda text: "Hello from the workbench" in text and "web running" in text)
        work_over_ssh(first, place / "far")
        first.keys("3")
        first.until(lambda text: "x run" in text)
        state = place / "state/workbench/app.json"
        end = time.monotonic() + SECONDS
        while not (state.exists() and '"images"' in state.read_text()) and time.monotonic() < end:
            first.screen()
    finally:
        first.close()  # and with it the ssh client
    process = int(pid.read_text())
    end = time.monotonic() + SECONDS
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < end, "the app went on without its terminal"
        other.workbench("version")
    assert "far-web-1" in other.workbench("ps")

    second_place = tmp_path / "second"
    second_place.mkdir()
    second = Terminal(100, 30, words, {}, second_place)
    try:
        screen = second.until(lambda text: "x run" in text and "far-web" in text and "Hello over ssh" in text)
        assert "s stop" not in screen, "the images had the focus, and have it again"
        second.until(lambda text: "web running" in text)  # else it asks whether to break the build off
        second.keys("q")
        second.until(lambda text: "x run" not in text)
    finally:
        second.close()
        other.workbench("rm", "-f", "far-web-1")
