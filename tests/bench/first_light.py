"""Pull, run of `true`, save to first log line and the app's first screen, beside a real Docker daemon in the same run.

    PEER_DOCKER_HOST=unix:///… sudo -E python tests/bench/first_light.py IMAGE

IMAGE is one that both can pull and that holds `python3` (python:3.11-slim). Prints medians in milliseconds and the ratio. Docker's figures include its command line's start, as a user meets it; for ours the command line is measured too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine.api import ContainerSpec, Replaced
from engine.local import LocalEngine, open_engine
from engine.project.discovery import discover
from engine.project.loop import InnerLoop

ROUNDS = 8
WORKBENCH = [sys.executable, "-m", "engine.cli.main"]
APP = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(0))\nprint({!r}, flush=True)\ntime.sleep(1000)\n"


def docker(*words: str) -> str:
    env = {**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"]}
    return subprocess.run(["docker", *words], env=env, capture_output=True, text=True, check=True).stdout


async def ours_save(engine: LocalEngine, folder: Path, root: Path) -> list[float]:
    project = discover(folder)
    loop = InnerLoop(engine, project, root / "projects")
    log = Path(loop.log_path(project.services[0]))  # one stream for all generations
    events, times = loop.events(), []
    async for event in events:
        if getattr(event, "phase", "") == "running":
            break
    await asyncio.sleep(1)
    for number in range(ROUNDS):
        await asyncio.sleep(0.3)
        word = f"ours {number} {time.time_ns()}"
        started = time.monotonic()
        (folder / "app.py").write_text(APP.format(word))
        while word.encode() not in log.read_bytes():
            await asyncio.sleep(0.001)
        times.append(time.monotonic() - started)
        async for event in events:
            if isinstance(event, Replaced):
                break
    await loop.close()
    await engine.remove("bench-app-1", force=True)
    return times


def docker_save(folder: Path) -> list[float]:
    times = []
    for number in range(ROUNDS + 1):
        word = f"docker {number} {time.time_ns()}"
        started = time.monotonic()
        (folder / "app.py").write_text(APP.format(word))
        docker("build", "-q", "-t", "bench", str(folder))
        subprocess.run(
            ["docker", "rm", "-f", "bench"],
            env={**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"]},
            capture_output=True,
            check=False,
        )
        docker("run", "-d", "--name", "bench", "bench")  # on its bridge, as ours
        while word not in docker("logs", "bench"):
            pass
        times.append(time.monotonic() - started)
    docker("rm", "-f", "bench")
    return times[1:]


async def ours_true(engine: LocalEngine, image: str) -> list[float]:
    times = []
    for _ in range(ROUNDS + 1):
        started = time.monotonic()
        name = await engine.create(ContainerSpec(image, command=("true",)))
        await engine.start(name)
        await engine.wait(name)
        await engine.remove(name)
        times.append(time.monotonic() - started)
    return times[1:]


def docker_true(image: str) -> list[float]:
    times = []
    for _ in range(ROUNDS + 1):
        started = time.monotonic()
        docker("run", "--rm", "--network", "host", image, "true")
        times.append(time.monotonic() - started)
    return times[1:]


def cli_true(root: Path, image: str) -> list[float]:
    times = []
    for _ in range(ROUNDS + 1):
        started = time.monotonic()
        subprocess.run([*WORKBENCH, "--root", root, "run", "--rm", "--network", "host", image, "true"], check=True)
        times.append(time.monotonic() - started)
    return times[1:]


def first_screen(root: Path, folder: Path) -> float:
    """From `workbench demo` to the frame with all panes."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "LINES": "24", "COLUMNS": "80"}
        os.execv(WORKBENCH[0], [*WORKBENCH, "--root", str(root), "demo", str(folder)])
    started, seen = time.monotonic(), b""
    while b"5 logs" not in seen:
        seen += os.read(terminal, 65536)
    took = time.monotonic() - started
    os.write(terminal, b"q")
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
    os.waitpid(pid, 0)
    return took


def show(name: str, ours: list[float], peer: list[float]) -> None:
    mine, theirs = statistics.median(ours) * 1000, statistics.median(peer) * 1000
    print(f"{name:<28} ours {mine:7.0f} ms   docker {theirs:7.0f} ms   ratio 1/{theirs / mine:.1f}")


async def main(image: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root, folder = Path(temporary) / "root", Path(temporary) / "bench"
        folder.mkdir()
        (folder / "Dockerfile").write_text(f'FROM {image}\nCOPY app.py /app.py\nCMD ["python3", "-u", "/app.py"]\n')
        (folder / "app.py").write_text(APP.format("first"))
        engine = await open_engine(root)
        started = time.monotonic()
        async for _ in engine.pull(image):
            pass
        pulled = time.monotonic() - started
        subprocess.run(
            ["docker", "rmi", "-f", image],
            env={**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"]},
            capture_output=True,
            check=False,
        )
        started = time.monotonic()
        docker("pull", "-q", image)
        show("pull", [pulled], [time.monotonic() - started])
        show("create start wait remove", await ours_true(engine, image), docker_true(image))
        show("workbench run --rm (process)", cli_true(root, image), docker_true(image))
        show("save to first log line", await ours_save(engine, folder, root), docker_save(folder))
        await engine.close()
        print(f"{'demo to first screen':<28} ours {first_screen(root, Path(temporary) / 'demo') * 1000:7.0f} ms")
        subprocess.run([*WORKBENCH, "--root", root, "rm", "-f", "demo-web-1"], capture_output=True, check=False)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
