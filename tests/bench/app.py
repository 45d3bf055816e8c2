"""The app through a real pseudo-terminal: start, key presses under load, idle, long lists.

    sudo python tests/bench/app.py [start] [keys] [idle] [lists]

start   from exec to the first frame with panes, against a Textual app that shows one word (pairs, medians)
keys    `j`/`k` in a list until the row is drawn, while the app builds, pulls, and a container logs 50,000 lines a second (app_load.py)
idle    60 s with 20 containers: the CPU of the app and the bytes it sends, with stats shown and without
lists   500 containers and 1,000 images: a frame to scroll, to filter; memory
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EMPTY = """
from textual.app import App
from textual.widgets import Static
class Empty(App):
    def compose(self):
        yield Static("containers")
Empty().run()
"""
ROWS, COLUMNS = 45, 160
_TICKS = os.sysconf("SC_CLK_TCK")


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, words: list[str], env: dict[str, str], folder: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **env})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.set_blocking(self.fd, False)
        self.sent = 0
        self.tail = b""

    def read(self, seconds: float) -> bytes:
        """What comes within that time, at least one piece of it."""
        if not select.select([self.fd], [], [], max(0.0, seconds))[0]:
            return b""
        try:
            data = os.read(self.fd, 1 << 16)
        except (BlockingIOError, OSError):
            return b""
        self.sent += len(data)
        self.tail = (self.tail + data)[-400_000:]
        return data

    def read_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def until(self, pattern: str, seconds: float = 60) -> float:
        """The time at which `pattern` had come."""
        wanted, end = re.compile(pattern.encode()), time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(end - time.monotonic())
            if wanted.search(self.tail):
                return time.perf_counter()
        raise SystemExit(f"{pattern!r} did not come within {seconds} s: {self.tail[-200:]!r}")

    def quiet(self, seconds: float) -> None:
        """Reads until nothing has come for so long."""
        last = time.monotonic()
        while time.monotonic() - last < seconds:
            if self.read(seconds):
                last = time.monotonic()

    def press(self, key: str) -> None:
        os.write(self.fd, key.encode())

    def cpu(self) -> float:
        """Seconds of CPU that the program has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Bytes that are the program's own (PSS would share Python's pages with others)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        return 0

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def workbench(*words: str) -> list[str]:
    return [sys.executable, "-m", "engine.cli.main", *words]


@contextlib.contextmanager
def project() -> Iterator[tuple[dict[str, str], str]]:
    """A data root with the demo built and running, and the demo's folder."""
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "WORKBENCH_ROOT": f"{folder}/root",
            "PYTHONPATH": str(REPOSITORY),
            "XDG_STATE_HOME": f"{folder}/state",
            "XDG_CONFIG_HOME": f"{folder}/config",
        }
        full = {**os.environ, **env}
        subprocess.run(workbench("demo", "--no-app", f"{folder}/shop"), env=full, check=True, capture_output=True)
        try:
            yield env, f"{folder}/shop"
        finally:
            names = subprocess.run(workbench("ps", "-aq"), env=full, capture_output=True, text=True).stdout.split()
            if names:
                subprocess.run(workbench("rm", "-f", *names), env=full, capture_output=True)


def start(rounds: int = 9) -> None:
    empty, ours, listed = [], [], []
    with project() as (env, folder):
        for _ in range(rounds):
            for words, pattern, found in (
                ([sys.executable, "-c", EMPTY], "containers", empty),
                (workbench("."), r"2 containers", ours),
            ):
                begin = time.perf_counter()
                terminal = Terminal(words, env, folder)
                try:
                    found.append(terminal.until(pattern) - begin)
                    if found is ours:
                        listed.append(terminal.until("shop-web-1") - begin)
                        terminal.quiet(0.5)
                finally:
                    terminal.close()
    one, other = statistics.median(empty), statistics.median(ours)
    print(
        f"start: empty Textual app {one * 1000:.0f} ms, the app's panes {other * 1000:.0f} ms ({other / one:.2f} times)"
    )
    print(f"       with the containers in them {statistics.median(listed) * 1000:.0f} ms")


def idle(containers: int = 20, seconds: int = int(os.environ.get("SECONDS", "60"))) -> None:
    with project() as (env, folder):
        full = {**os.environ, **env}
        for number in range(containers - 1):
            words = workbench("run", "-d", "--name", f"idle-{number}", "workbench/base", "sleep", "100000")
            subprocess.run(words, env=full, check=True, capture_output=True)
        for shown, config in (("with stats", ""), ("without", "stats = false\n")):
            Path(env["XDG_CONFIG_HOME"], "workbench").mkdir(parents=True, exist_ok=True)
            Path(env["XDG_CONFIG_HOME"], "workbench/config.toml").write_text(config)
            terminal = Terminal(workbench("."), env, folder)
            try:
                terminal.until(r"idle-1\d")
                terminal.quiet(3)
                terminal.read_for(12)  # the first readings are in
                cpu, sent = terminal.cpu(), terminal.sent
                terminal.read_for(seconds)
                used, bytes_ = terminal.cpu() - cpu, terminal.sent - sent
                print(
                    f"idle {seconds} s, {containers} containers, {shown}: {used / seconds:.2%} of a core, {bytes_ / seconds:.1f} bytes/s"
                )
            finally:
                terminal.close()


def lists() -> None:
    """The lists alone, with rows made up: no host has 500 containers to spare."""
    words = [sys.executable, str(Path(__file__).with_name("long_lists.py"))]
    env = {"PYTHONPATH": str(REPOSITORY)}
    terminal = Terminal(words, env, str(REPOSITORY))
    try:
        terminal.until("c-0001")
        terminal.quiet(1)
        took: dict[str, list[float]] = {"scroll": [], "filter": []}
        for kind, presses in (("scroll", "jjjjjjjjjj"), ("filter", "/c499")):
            for key in presses:
                terminal.tail = b""
                begin = time.perf_counter()
                terminal.press(key)
                terminal.until(".", 5)
                took[kind].append((time.perf_counter() - begin) * 1000)
                terminal.quiet(0.1)
        for kind, times in took.items():
            if "EACH" in os.environ:
                print(kind, *(f"{each:.1f}" for each in times))
            print(
                f"500 containers, {kind}: median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms a key"
            )
        print(f"500 containers and 1,000 images: {terminal.memory() / 1e6:.0f} MB resident")
    finally:
        terminal.close()


def keys() -> None:
    from app_load import keys as under_load

    under_load()


if __name__ == "__main__":
    sys.modules["app"] = sys.modules["__main__"]
    for name in sys.argv[1:] or ["start", "keys", "idle", "lists"]:
        {"start": start, "keys": keys, "idle": idle, "lists": lists}[name]()
