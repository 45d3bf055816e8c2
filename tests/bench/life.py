"""Starting, executing, logging and idling beside a real Docker daemon in the same run.

    PEER_DOCKER_HOST=unix:///… sudo -E python tests/bench/life.py IMAGE [lines] [memory] [exec] [run] [clients]

IMAGE is a name that both can pull. Prints each figure with its ratio; without further words all of them.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.local import LocalEngine
from engine.model import ContainerSpec, ExecSpec, Mount

ROUNDS = 8
LINES = 1_000_000


def docker(*words: str) -> str:
    env = {**os.environ, "DOCKER_HOST": os.environ["PEER_DOCKER_HOST"]}
    return subprocess.run(["docker", *words], env=env, capture_output=True, text=True, check=True).stdout.strip()


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def show(name: str, ours: float, peer: float, unit: str) -> None:
    print(f"{name:<44} ours {ours:9.1f} {unit}   docker {peer:9.1f} {unit}   ratio {ours / peer:.3f}", flush=True)


class Bench:
    def __init__(self, engine: LocalEngine, image: str, folder: Path) -> None:
        self.engine, self.image, self.folder = engine, image, folder
        self.service = engine._containers

    def spec(self, *command: str) -> ContainerSpec:
        return ContainerSpec(self.image, command=command, network_mode=os.environ.get("BENCH_NETWORK", "bridge"))

    def once(self) -> None:
        one = self.service.create(self.spec("true"))
        self.service.start(one)
        self.service.life.wait(one)
        self.service.remove(one, force=False)

    def run(self) -> None:
        """create + start + wait + remove of `true`."""
        ours = statistics.median(timed(self.once) for _ in range(ROUNDS))
        peer = statistics.median(timed(lambda: docker("run", "--rm", self.image, "true")) for _ in range(ROUNDS))
        show("create start wait remove of true", ours * 1000, peer * 1000, "ms")

    def clients(self) -> None:
        def all_of(work: Callable[[], object]) -> None:
            with ThreadPoolExecutor(8) as pool:
                for done in [pool.submit(work) for _ in range(200)]:
                    done.result()

        ours = timed(lambda: all_of(self.once))
        peer = timed(lambda: all_of(lambda: docker("run", "--rm", self.image, "true")))
        show("the same 200 times from 8 clients", ours, peer, "s ")

    def exec(self) -> None:
        one, other = self.service.create(self.spec("sleep", "1000")), docker("run", "-d", self.image, "sleep", "1000")
        self.service.start(one)

        def ours() -> None:
            connection = self.service.exec(one, ExecSpec(("true",)))
            connection.wait()
            connection.close()

        mine = statistics.median(timed(ours) for _ in range(3 * ROUNDS))
        peer = statistics.median(timed(lambda: docker("exec", other, "true")) for _ in range(ROUNDS))
        show("exec of true", mine * 1000, peer * 1000, "ms")
        self.service.remove(one, force=True)
        docker("rm", "-f", other)

    def lines(self) -> None:
        """Until the container has ended and every line is in its log."""
        data = self.folder / "lines"  # made before: `cat` is fast enough not to be what is measured
        data.write_bytes(b"".join(b"%0119d\n" % number for number in range(1, LINES + 1)))
        one = self.service.create(dataclasses.replace(self.spec("cat", "/lines"), mounts=(Mount(str(data), "/lines"),)))

        def ours() -> None:
            self.service.start(one)
            self.service.life.wait(one)

        mine, kept = timed(ours), 0
        with open(self.service.detail(one).log_path, "rb") as file:
            for number, line in enumerate(file, 1):
                assert b"%0119d" % number in line
                kept = number
        assert kept == LINES
        self.service.remove(one, force=True)
        other = docker("create", "-v", f"{data}:/lines", self.image, "cat", "/lines")
        peer = timed(lambda: (docker("start", other), docker("wait", other)))
        show(f"{LINES:,} log lines of 120 bytes", mine, peer, "s ")
        docker("rm", other)

    def memory(self) -> None:
        """Private memory of what stays with an idle container."""
        one, other = self.service.create(self.spec("sleep", "1000")), docker("run", "-d", self.image, "sleep", "1000")
        self.service.start(one)
        state = self.service.life.state(one)
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", other))
        time.sleep(2)  # both idle
        shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        show("private memory of monitor, shim", private(state.monitor_pid), private(shim), "kB")
        self.service.remove(one, force=True)
        docker("rm", "-f", other)


def private(pid: int) -> float:
    """In kB."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))


def main(image: str, *which: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        engine = LocalEngine(Path(root))
        engine._images.pull(image, lambda _event: None, CancelToken())
        docker("pull", "-q", image)
        bench = Bench(engine, image, Path(root))
        bench.once()
        for name in which or ("run", "clients", "exec", "lines", "memory"):
            getattr(bench, name)()


if __name__ == "__main__":
    main(*sys.argv[1:])
