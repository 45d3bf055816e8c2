"""The inner loop beside a real Docker daemon in one run: save to first output, sync, idle, and each phase's share.

    PEER_DOCKER_HOST=unix:///… DOCKER=/usr/bin/docker sudo -E python tests/bench/loop.py IMAGE [rebuild-200 rebuild-20000 sync idle]

IMAGE is one that both can pull and that holds `sh`. Docker's time is that of `docker build` (BuildKit) plus `docker run -d`, from the
save to the first line in the log. Medians in milliseconds; pairs are measured turn by turn. `idle` takes a minute.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.api import LoopEvent, Replaced, ServiceState
from engine.local import LocalEngine, open_engine
from engine.project.discovery import discover
from engine.project.loop import InnerLoop
from engine.project.plan import SyncMode
from engine.runtime.places import runtime_dir
from tests.faults.leaks import end_supervisor

ROUNDS = int(os.environ.get("ROUNDS", "9"))
DOCKER = os.environ.get("DOCKER", "docker")
PROGRAM = 'trap "exit 0" TERM\necho {word}\nwhile :; do sleep 1000 & wait; done\n'
DOCKERFILE = 'FROM {image}\nWORKDIR /app\nCOPY . .\nCMD ["sh", "/app/run.sh"]\n'


def docker(*words: str, check: bool = True) -> str:
    env = {**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"], "DOCKER_BUILDKIT": "1"}
    return subprocess.run([DOCKER, *words], env=env, capture_output=True, text=True, check=check).stdout


def make_project(folder: Path, image: str, files: int) -> None:
    folder.mkdir()
    for number in range(files):
        inner = folder / f"package{number % 97}"
        inner.mkdir(exist_ok=True)
        (inner / f"module{number}.py").write_text(f"value = {number}\n" * 20)
    (folder / "run.sh").write_text(PROGRAM.format(word="first"))
    (folder / "Dockerfile").write_text(DOCKERFILE.format(image=image))


class Ours:
    """A loop in this process whose events are read all the time."""

    def __init__(self, engine: LocalEngine, folder: Path, root: Path, sync: SyncMode = "") -> None:
        project = discover(folder)
        self.engine, self.folder = engine, folder
        self.loop = InnerLoop(engine, project, root / "projects", sync=sync)
        self.log = Path(self.loop.log_path(project.services[0]))
        self.events: list[LoopEvent] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.loop.events():
            self.events.append(event)

    async def until(self, wanted: Callable[[LoopEvent], bool]) -> LoopEvent:
        while True:
            for event in self.events:
                if wanted(event):
                    self.events.clear()
                    return event
            await asyncio.sleep(0.005)

    async def save(self, word: str) -> float:
        """Seconds from the save to the word in the log."""
        words = [sys.executable, "-I", "-S", "-c", _READER, str(self.log), word]
        reader = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert reader.stdout is not None
        await reader.stdout.readline()  # it reads
        started = time.monotonic()
        (self.folder / "run.sh").write_text(PROGRAM.format(word=word))
        seen = float(await reader.stdout.readline())
        await reader.wait()
        return seen - started

    async def close(self) -> None:
        await self.loop.close()
        await asyncio.gather(self._task, return_exceptions=True)
        for container in await self.engine.containers(all=True):
            await self.engine.remove(container.id, force=True)


# Reads in a process of its own: to poll in this one would take the interpreter from the engine.
_READER = """
import sys, time
log, word, text = open(sys.argv[1], "rb"), sys.argv[2].encode(), b""
log.seek(0, 2)
print(flush=True)
while word not in text:
    text += log.read()
    time.sleep(0.0003)
print(time.monotonic())
"""


def docker_save(folder: Path, word: str, name: str) -> float:
    docker("rm", "-f", name, check=False)
    started = time.monotonic()
    (folder / "run.sh").write_text(PROGRAM.format(word=word))
    docker("build", "-q", "-t", name, str(folder))
    docker("run", "-d", "--name", name, name)
    while word not in docker("logs", name):
        pass
    return time.monotonic() - started


def show(name: str, ours: list[float], peer: list[float]) -> None:
    mine, theirs = statistics.median(ours) * 1000, statistics.median(peer) * 1000
    print(f"{name:<34} ours {mine:7.1f} ms   docker {theirs:7.0f} ms   ratio 1/{theirs / mine:.1f}")


async def rebuild(engine: LocalEngine, top: Path, image: str, files: int) -> None:
    mine, theirs = top / f"ours{files}", top / f"docker{files}"
    make_project(mine, image, files)
    shutil.copytree(mine, theirs)
    ours = Ours(engine, mine, top / "root")
    await ours.until(lambda e: isinstance(e, ServiceState) and e.phase == "running")
    times: list[float] = []
    peer: list[float] = []
    phases: dict[str, list[float]] = {}
    for number in range(ROUNDS + 2):
        await asyncio.sleep(0.7)  # what follows a build is done
        taken = await ours.save(f"ours{number}x{time.time_ns()}")
        replaced = await ours.until(lambda e: isinstance(e, Replaced))
        assert isinstance(replaced, Replaced)
        theirs_taken = docker_save(theirs, f"docker{number}x{time.time_ns()}", f"bench-loop-{files}")
        if number < 2:
            continue
        times.append(taken)
        peer.append(theirs_taken)
        for name, seconds in replaced.phases.items():
            phases.setdefault(name, []).append(seconds)
    show(f"save to first output, {files} files", times, peer)
    # "healthy" comes after the first line: until then the old container serves. What is left is the program's own start.
    shares = {name: statistics.median(all_) for name, all_ in phases.items() if name != "healthy"}
    shares["to the first line"] = max(statistics.median(times) - sum(shares.values()), 0.0)
    print("   phases: " + ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in shares.items()))
    await ours.close()
    docker("rm", "-f", f"bench-loop-{files}", check=False)
    docker("rmi", "-f", f"bench-loop-{files}", check=False)


async def sync(engine: LocalEngine, top: Path, image: str) -> None:
    """To the file being visible inside, asked through the container's own root."""
    folder = top / "synced"
    make_project(folder, image, 200)
    ours = Ours(engine, folder, top / "root", "files")
    await ours.until(lambda e: isinstance(e, ServiceState) and e.phase == "running")
    pid = next(c.pid for c in await engine.containers())
    inside = Path(f"/proc/{pid}/root/app/package1/module1.py")
    times = []
    for number in range(ROUNDS * 3):
        await asyncio.sleep(0.2)
        word = f"value = {number}"
        started = time.monotonic()
        (folder / "package1/module1.py").write_text(word)
        while inside.read_text() != word:
            await asyncio.sleep(0.0005)
        times.append(time.monotonic() - started)
    mine = statistics.median(times) * 1000
    print(f"{'save to visible inside (sync)':<34} ours {mine:7.1f} ms   slowest {max(times) * 1000:.1f} ms")
    await ours.close()


async def idle(engine: LocalEngine, top: Path, image: str, seconds: float = 45) -> None:
    folder = top / "idle"
    make_project(folder, image, 20_000)
    ours = Ours(engine, folder, top / "root")
    await ours.until(lambda e: isinstance(e, ServiceState) and e.phase == "running")
    await asyncio.sleep(3)
    before, cpu, clock = _read_bytes(), _cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    share = (_cpu() - cpu) / (time.monotonic() - clock) * 100
    print(f"{'idle, 20,000 files':<34} {share:.3f} % of a core, {_read_bytes() - before} bytes read from disks")
    await ours.close()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _read_bytes() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


async def main(image: str, which: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        engine = await open_engine(top / "root")
        async for _ in engine.pull(image):
            pass
        docker("pull", "-q", image)
        for name in which or ["rebuild-200", "rebuild-20000", "sync", "idle"]:
            if name.startswith("rebuild"):
                await rebuild(engine, top, image, int(name.partition("-")[2]))
            elif name == "sync":
                await sync(engine, top, image)
            else:
                await idle(engine, top, image)
        await engine.close()
        end_supervisor(runtime_dir(top / "root"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
