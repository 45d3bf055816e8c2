"""Builds beside dockerd's BuildKit in the same run, through an engine that is already running, with a task that ticks meanwhile.

    PEER_DOCKER_HOST=unix:///… sudo -E python tests/bench/builds.py IMAGE [--large]

IMAGE is one that both have (a small one with a shell: busybox). Prints medians, the ratio, and how long the event loop stood still. DOCKER names
the peer's client (default: docker). `--large` also builds a layer of 2 GB and prints the memory that it took.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.api import BuildRequest
from engine.local import LocalEngine, open_engine

ROUNDS = 7
TICK = 0.005


def peer(folder: Path, *words: str) -> float:
    """Seconds of a build by the peer."""
    env = {**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"], "DOCKER_BUILDKIT": "1"}
    started = time.perf_counter()
    command = [os.environ.get("DOCKER", "docker"), "build", "-q", *words, str(folder)]
    subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return time.perf_counter() - started


class Ticking:
    """How late a task that wants to run every few milliseconds ran: what the event loop was kept from."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - before - TICK)

    def stop(self) -> float:
        self._task.cancel()
        return self.worst


async def ours(engine: LocalEngine, folder: Path, **more: object) -> float:
    started = time.perf_counter()
    async for _ in engine.build(BuildRequest(folder, tags=("bench",), **more)):  # type: ignore[arg-type]
        pass
    return time.perf_counter() - started


def files(folder: Path, count: int, size: int) -> None:
    for number in range(count):
        place = folder / f"d{number // 1000}" / f"s{number // 100}"
        if number % 100 == 0:
            place.mkdir(parents=True)
        (place / f"f{number}").write_bytes(os.urandom(size))


async def compare(
    name: str, engine: LocalEngine, folder: Path, rounds: int, change: Callable[[int], object], *, warm: int = 3
) -> None:
    mine, theirs = [], []
    for number in range(warm):
        change(number)
        await ours(engine, folder)
        await asyncio.to_thread(peer, folder)
    ticking = Ticking()
    for number in range(rounds):
        change(100 + 2 * number)
        mine.append(await ours(engine, folder))
        change(101 + 2 * number)
        theirs.append(await asyncio.to_thread(peer, folder))
    show(name, mine, theirs, ticking.stop())


def show(name: str, mine: list[float], theirs: list[float], worst: float) -> None:
    a, b = statistics.median(mine) * 1000, statistics.median(theirs) * 1000
    print(
        f"{name:<34} ours {a:8.1f} ms   BuildKit {b:8.1f} ms   1/{b / a:5.1f}   loop at most {worst * 1000:.0f} ms late",
        flush=True,
    )


async def unchanged(engine: LocalEngine, work: Path, image: str, count: int, size: int) -> None:
    folder = work / f"files{count}"
    files(folder / "src", count, size)
    (folder / "Dockerfile").write_text(f"FROM {image}\nCOPY src /src\n")
    if count > 1000:
        ticking = Ticking()
        mine = await ours(engine, folder)
        show(f"COPY of {count} files, cold", [mine], [await asyncio.to_thread(peer, folder)], ticking.stop())
    await compare(f"nothing changed, {count} files", engine, folder, ROUNDS, lambda number: None)


async def one_changed(engine: LocalEngine, work: Path, image: str) -> None:
    folder = work / "one"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {image}\nRUN echo heavy > /heavy\nCOPY app.py /app.py\n")
    await compare("one small file changed", engine, folder, ROUNDS, lambda n: (folder / "app.py").write_text(str(n)))


async def twelve(engine: LocalEngine, work: Path, image: str) -> None:
    folder = work / "twelve"
    folder.mkdir()
    stages = "".join(f"FROM {image} AS s{n}\nRUN sleep 1; echo {time.time_ns()} > /o{n}\n" for n in range(12))
    copies = "".join(f"COPY --from=s{n} /o{n} /\n" for n in range(12))
    (folder / "Dockerfile").write_text(f"{stages}FROM {image}\n{copies}")
    ticking = Ticking()
    mine = await ours(engine, folder)
    show("twelve RUN stages of one second", [mine], [await asyncio.to_thread(peer, folder)], ticking.stop())


async def large(engine: LocalEngine, work: Path) -> None:
    folder = work / "large"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
    await asyncio.to_thread(
        subprocess.run, ["dd", "if=/dev/urandom", f"of={folder}/big", "bs=1M", "count=2048"], capture_output=True
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ticking = Ticking()
    seconds = await ours(engine, folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{'a layer of 2 GB':<34} {seconds:.1f} s, {grown:.0f} MB over the idle engine, loop at most {ticking.stop() * 1000:.0f} ms late"
    )


async def main(image: str, with_large: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        engine = await open_engine(work / "root")
        async for _ in engine.pull(image):
            pass
        steps: list[Awaitable[None]] = [
            unchanged(engine, work, image, 200, 2000),
            one_changed(engine, work, image),
            twelve(engine, work, image),
            unchanged(engine, work, image, 20_000, 9000),
        ]
        if with_large:
            steps.insert(0, large(engine, work))  # first: the peak counts from the start of the process
        for step in steps:
            await step
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], "--large" in sys.argv))
