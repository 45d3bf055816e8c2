"""Story A in a real terminal: `workbench demo`, a file saved, the rule in the log, `q`, and the container goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.terminal import Terminal

pytestmark = [pytest.mark.root, pytest.mark.peer("tmux")]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=[(80, 24), (160, 45)], ids=["80x24", "160x45"])
def terminal(request: pytest.FixtureRequest, data_root: Path, tmp_path: Path) -> Iterator[Terminal]:
    env = {"WORKBENCH_ROOT": str(data_root), "PYTHONPATH": str(REPOSITORY)}
    made = Terminal(*request.param, f"{sys.executable} -m engine.cli.main demo shop; exec sh", env, tmp_path)
    yield made
    made.close()
    command(data_root, "rm", "-f", "shop-web-1")


def command(root: Path, *args: str) -> str:
    env = {**os.environ, "WORKBENCH_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *args], capture_output=True, text=True, check=False, env=env
    ).stdout


def test_save_a_file_see_the_new_container(terminal: Terminal, data_root: Path, tmp_path: Path) -> None:
    saved = f"Saved {tmp_path.name[-1]} in"  # content of its own: an image built before would run no step
    screen = terminal.until(lambda text: "Hello from the workbench" in text and "running" in text)
    assert "shop-web" in screen
    source = tmp_path / "shop/app.py"
    source.write_text(source.read_text().replace("Hello from", saved))
    screen = terminal.until(lambda text: "rebuilt" in text and f"{saved} the workbench" in text)
    assert "Hello from the workbench" in screen, "the log goes on in the same stream"
    terminal.keys("q")
    terminal.until(lambda text: "the containers go on" in text)
    assert "shop-web-1" in command(data_root, "ps")
    log = command(data_root, "logs", "shop-web-1").splitlines()
    assert log[0].startswith("Hello from the workbench")
    assert "app.py → step" in log[1]
    assert log[2].startswith(f"{saved} the workbench")
