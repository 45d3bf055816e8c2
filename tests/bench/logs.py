"""The log pane through a real pseudo-terminal, while a container writes 100,000 lines a second.

    sudo python tests/bench/logs.py [flood] [million]

flood    key press to screen, in a list beside the log that is followed and in the log itself; then whether a line was lost
million  a log of a million lines: until it is open, until a filter over all of it shows, until its first line shows; memory
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.local import open_engine

RATE, SECONDS = 100_000, 12
FLOOD = f"""
import sys, time
time.sleep(6)
begin, n, tail = time.time(), 0, ' GET /index.html 200 in 12 ms, as lines of a web server go' + chr(10)
while n < {RATE * SECONDS}:
    sys.stdout.write(''.join('line %07d' % i + tail for i in range(n, n + 1000)))
    sys.stdout.flush()
    n += 1000
    time.sleep(max(0, begin + n / {RATE} - time.time()))
sys.stdout.write('all %d written in %.1f s' % (n, time.time() - begin) + chr(10))
sys.stdout.flush()
time.sleep(100000)
"""


def _app() -> Any:
    spec = importlib.util.spec_from_file_location("app", Path(__file__).with_name("app.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


app = _app()


def run(env: dict[str, str], name: str, program: str) -> None:
    words = app.workbench("run", "-d", "--network", "none", "--name", name, "workbench/base", "python3", "-c", program)
    subprocess.run(words, env={**os.environ, **env}, check=True, capture_output=True)


def say(what: str, took: list[float]) -> None:
    took.sort()
    print(
        f"{what}: {len(took)} presses, median {statistics.median(took):.1f} ms, "
        f"99th percentile {took[int(len(took) * 0.99) - 1]:.1f} ms, longest {took[-1]:.1f} ms"
    )


def press(terminal: Any, key: str, pattern: str, pause: float) -> float:
    """Milliseconds until `pattern` is on the screen. Between two presses what comes is read."""
    end = time.monotonic() + pause
    while (left := end - time.monotonic()) > 0:
        terminal.read(left)
    terminal.tail = b""
    begin = time.perf_counter()
    terminal.press(key)
    return float(terminal.until(pattern, 5) - begin) * 1000


def flood() -> None:
    with app.project() as (env, folder):
        for number in range(6):
            run(env, f"quiet-{number}", "import time; time.sleep(100000)")
        run(env, "a-loud", FLOOD)
        terminal = app.Terminal(app.workbench("."), env, folder)
        try:
            terminal.until("quiet-5")
            choose(terminal, "a-loud")
            terminal.until(r"line 0\d\d\d\d\d\d")
            before = terminal.memory()
            took = [press(terminal, "j" if n % 10 < 5 else "k", "▸", 0.02 + n % 7 * 0.009) for n in range(60)]
            say(f"{RATE} lines a second, keys in a list", took)
            choose(terminal, "a-loud")
            terminal.press("6")
            app_quiet(terminal, 0.3)
            took = []
            for n in range(50):  # on is seen by its flag in the border; off only makes room for the next
                took.append(press(terminal, "t", "times", 0.03 + n % 5 * 0.007))
                terminal.press("t")
            say(f"{RATE} lines a second, keys in the log", took)
            terminal.until(r"all \d+ written", 60)
            print(f"memory: {before / 1e6:.0f} MB at the first line, {terminal.memory() / 1e6:.0f} MB after the last")
            terminal.press("g")
            terminal.until(r"line 0000000")
        finally:
            terminal.close()
        asyncio.run(count(env["WORKBENCH_ROOT"], "a-loud"))


def choose(terminal: Any, name: str) -> None:
    """The container in the list, so that its log is the one that shows; then all of the list again."""
    for keys in ("2", "/", name, "\r", "\x1b"):
        terminal.press(keys)
        app_quiet(terminal, 0.4)


def app_quiet(terminal: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        terminal.read(left)


async def count(root: str, name: str) -> None:
    engine = await open_engine(Path(root))
    book = await engine.open_logs([name])
    while (extent := await book.advance()).share < 1:
        pass
    at, wrong = 0, 0
    while rows := await book.rows(at, 10_000):
        wrong += sum(row.text[5:12] != f"{at + n:07d}" for n, row in enumerate(rows) if at + n < RATE * SECONDS)
        at += len(rows)
    last = (await book.rows(extent.end - 1, 1))[0].text
    print(f"of {RATE * SECONDS} lines {extent.total - 1} are there, {wrong} of them not in their place; {last}")
    await book.close()
    await engine.close()


def million() -> None:
    with app.project() as (env, folder):
        program = "import sys\nfor n in range(1000000): sys.stdout.write('request %07d GET /page/%d 200' % (n, n % 97) + chr(10))\nprint('written', flush=True)\nimport time; time.sleep(100000)"
        run(env, "a-million", program)
        full = {**os.environ, **env}
        while (
            b"written"
            not in subprocess.run(
                app.workbench("logs", "--tail", "1", "a-million"), env=full, capture_output=True
            ).stdout
        ):
            time.sleep(0.2)
        terminal = app.Terminal(app.workbench("."), env, folder)
        try:
            terminal.until("a-million")
            choose(terminal, "a-million")
            terminal.press("6")
            opened = terminal.until("written")
            app_quiet(terminal, 1)
            memory = terminal.memory()
            print(
                f"a million lines: start of the first row {press(terminal, 'g', 'request 0000000', 0.5):.0f} ms", end=""
            )
            print(f", their end again {press(terminal, 'G', 'written', 0.5):.0f} ms", end="")
            terminal.press("&")
            terminal.until("words, !without")
            print(f", a filter that keeps one {press(terminal, '0765432', 'request 0765432', 0.5):.0f} ms", end="")
            print(f"; {memory / 1e6:.0f} MB before, {terminal.memory() / 1e6:.0f} MB after")
            assert opened
        finally:
            terminal.close()


if __name__ == "__main__":
    for each in sys.argv[1:] or ["flood", "million"]:
        {"flood": flood, "million": million}[each]()
