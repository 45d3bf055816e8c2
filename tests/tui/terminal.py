"""A real terminal for the app: a tmux of its own, read from the outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.patience import PATIENCE as SECONDS


class Terminal:
    def __init__(self, columns: int, rows: int, command: str, env: dict[str, str], folder: Path) -> None:
        self._socket = str(folder / "tmux")
        words = [
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            str(columns),
            "-y",
            str(rows),
            "-c",
            str(folder),
            command,
        ]
        subprocess.run(["tmux", "-S", self._socket, *words], env={**os.environ, **env}, check=True)

    def _tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=False).stdout

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def keys(self, *names: str) -> None:
        self._tmux("send-keys", *names)

    def until(self, ready: Callable[[str], bool]) -> str:
        """The screen, once `ready` says so."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            screen = self.screen()
            if ready(screen):
                return screen
            subprocess.run(["tmux", "-S", self._socket, "wait-for", "-S", "tick"], check=False)
        raise AssertionError(f"not within {SECONDS} s; the screen was:\n{self.screen()}")

    def buffer(self) -> str:
        """What was copied last."""
        return self._tmux("show-buffer")

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        self._tmux("kill-server")
