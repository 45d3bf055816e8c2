"""`docker build` with buildx against this engine's API and against Docker: the same client, in one run.

    PEER_DOCKER_HOST=unix:///… DOCKER_PLUGINS=FOLDER sudo -E python tests/bench/buildx.py IMAGE

DOCKER_PLUGINS holds docker-buildx. The client's start is in every figure, and shown by itself.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from start import serving

FILES, ROUNDS = 200, 9


def project(folder: Path, image: str) -> Path:
    (folder / "src").mkdir(parents=True)
    for number in range(FILES):
        (folder / "src" / f"f{number}").write_text(f"{number} " * 100)
    (folder / "Dockerfile").write_text(f"FROM {image}\nWORKDIR /app\nCOPY . .\nRUN ls src | wc -l\n")
    return folder


def timed(command: list[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return (time.perf_counter() - begin) * 1000


def main(image: str) -> None:
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as ours:
        folder = project(Path(name) / "project", image)
        plugins = Path(name) / "docker" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-buildx").symlink_to(Path(os.environ["DOCKER_PLUGINS"], "docker-buildx").resolve())
        hosts = {"here": f"unix://{ours}", "Docker": os.environ["PEER_DOCKER_HOST"]}
        environments = {
            who: {**os.environ, "DOCKER_HOST": host, "DOCKER_CONFIG": str(plugins.parent)}
            for who, host in hosts.items()
        }
        build = ["docker", "build", "-q", "-t", "bench-buildx", str(folder)]

        def touch() -> None:
            (folder / "src" / "f7").write_text(str(time.time_ns()))

        def compare(what: str, before: Callable[[], object]) -> None:
            found: dict[str, list[float]] = {who: [] for who in hosts}
            for _ in range(ROUNDS):
                for who, environment in environments.items():
                    before()
                    found[who].append(timed(build, environment))
            here, there = (statistics.median(times) for times in found.values())
            print(f"{what:<24} here {here:6.0f} ms  Docker {there:6.0f} ms  1/{there / here:.1f}")

        for environment in environments.values():
            timed(build, environment)
        compare("nothing changed", lambda: None)
        compare("one file changed", touch)
        alone = [timed(["docker", "buildx", "version"], environments["here"]) for _ in range(ROUNDS)]
        print(f"{'the client alone':<24} {statistics.median(alone):11.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
