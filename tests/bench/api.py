"""Everyday commands on full shelves: the same `docker` client against this engine's API and against Docker, and our own command line, in one run.

    PEER_DOCKER_HOST=unix:///… sudo -E python tests/bench/api.py IMAGE [ps] [images] [inspect] [logs] [run] [build] [bare]

IMAGE is NAME:TAG that both can pull, with `true` and `seq` in it. Each row has the client's start in it, and what that is: the same
command against a server that answers at once with the same bytes. What is above that is the engine's share. `bare` compares
`workbench --help` and `ps` with the start of an interpreter that does nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from canned import Answers, canned, of_build, of_run, recorded
from start import Api, serving

CONTAINERS, IMAGES, ROUNDS, BLOCKS = 200, 500, 5, 3
LABEL = "workbench.bench"


def archive(count: int) -> bytes:
    """`docker save`'s form: so many images of one small layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as layer:
            layer.addfile(tarfile.TarInfo("empty"), io.BytesIO())
        diff = "sha256:" + hashlib.sha256(inner.getvalue()).hexdigest()
        add("layer.tar", inner.getvalue())
        manifest = []
        for number in range(count):
            config = {"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z"}
            config |= {"config": {"Labels": {LABEL: str(number)}}, "history": [{"created_by": "bench"}]}
            text = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": [diff]}}).encode()
            name = f"{hashlib.sha256(text).hexdigest()}.json"
            add(name, text)
            manifest.append({"Config": name, "RepoTags": [f"bench:{number}"], "Layers": ["layer.tar"]})
        add("manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


class Bench:
    def __init__(self, folder: Path, ours: str, peer: str, image: str) -> None:
        self.folder, self.image, self.hosts = folder, image, {"ours": ours, "peer": peer}
        self.apis = {"ours": Api(ours), "peer": Api(peer)}
        self.hosts["client"] = str(folder / "canned.sock")
        name, _, tag = image.rpartition(":")
        for api in self.apis.values():
            api.ask("POST", f"/images/create?fromImage={quote(name)}&tag={tag}")

    def docker(self, who: str, *words: str) -> float:
        env = {**os.environ, "DOCKER_HOST": f"unix://{self.hosts[who]}", "DOCKER_BUILDKIT": "0"}
        return timed(["docker", *words], env)

    def own(self, *words: str) -> float:
        return timed(
            [sys.executable, "-m", "engine.cli.main", "--root", str(self.folder / "root"), *words], dict(os.environ)
        )

    def compare(self, name: str, *words: str, answers: Answers, peer: tuple[str, ...] | None = None) -> None:
        """`peer`: its words where a container's id differs."""
        mine, theirs, alone, direct = [], [], [], []
        with canned(self.folder / "canned.sock", answers):
            for _ in range(BLOCKS):
                mine += [self.docker("ours", *words) for _ in range(ROUNDS)]
                theirs += [self.docker("peer", *(peer or words)) for _ in range(ROUNDS)]
                alone += [self.docker("client", *(peer or words)) for _ in range(ROUNDS)]
                direct += [self.own(*words) for _ in range(ROUNDS)]
        a, b, c, d = (statistics.median(found) * 1000 for found in (mine, theirs, alone, direct))
        print(
            f"{name:<24} docker on ours {a:6.1f}  on Docker {b:6.1f}  client alone {c:5.1f} ms: 1/{b / a:.1f} of all, "
            f"1/{(b - c) / max(a - c, 0.1):.1f} of the engine's share;   workbench {d:6.1f} ms, 1/{b / d:.1f}",
            flush=True,
        )

    @contextlib.contextmanager
    def containers(self, count: int, *command: str) -> Iterator[dict[str, list[str]]]:
        made: dict[str, list[str]] = {"ours": [], "peer": []}
        try:
            for who, api in self.apis.items():
                for _ in range(count):
                    made[who].append(api.create(self.image, *(command or ("true",))))
            yield made
        finally:
            for who, api in self.apis.items():
                for one in made[who]:
                    api.ask("DELETE", f"/containers/{one}?force=1")

    def ps(self) -> None:
        with self.containers(CONTAINERS):
            answers = recorded(self.apis["peer"], "/containers/json?all=1")
            self.compare(f"ps -a, {CONTAINERS} containers", "ps", "-a", answers=answers)

    def images(self) -> None:
        data = archive(IMAGES)
        path = self.folder / "images.tar"
        path.write_bytes(data)
        for who in self.apis:
            self.docker(who, "load", "-q", "-i", str(path))
        try:
            answers = recorded(self.apis["peer"], "/images/json")
            self.compare(f"images, {IMAGES} images", "images", answers=answers)
        finally:
            for who in self.apis:
                for some in _batched(IMAGES, 100):
                    self.docker(who, "rmi", *(f"bench:{number}" for number in some))

    def inspect(self) -> None:
        with self.containers(1) as made:
            peer = made["peer"][0]
            answers = recorded(self.apis["peer"], f"/containers/{peer}/json")
            self.compare("inspect", "inspect", made["ours"][0], peer=("inspect", peer), answers=answers)

    def logs(self) -> None:
        with self.containers(1, "seq", "100000") as made:
            for who, api in self.apis.items():
                api.ask("POST", f"/containers/{made[who][0]}/start")
                api.ask("POST", f"/containers/{made[who][0]}/wait")
            words = ("logs", "--tail", "100")
            peer = made["peer"][0]
            logs = f"/containers/{peer}/logs?stdout=1&stderr=1&tail=100"
            answers = recorded(self.apis["peer"], f"/containers/{peer}/json", logs)
            self.compare("logs --tail 100", *words, made["ours"][0], peer=(*words, peer), answers=answers)

    def run(self) -> None:
        self.compare("run --rm true", "run", "--rm", self.image, "true", answers=of_run())

    def build(self) -> None:
        context = self.folder / "context"
        context.mkdir()
        (context / "file").write_text("x")
        (context / "Dockerfile").write_text(f'FROM {self.image}\nCOPY file /file\nRUN true\nCMD ["true"]\n')
        self.compare("build, nothing to do", "build", "-q", str(context), answers=of_build())

    def bare(self) -> None:
        """Medians: our command line beside an interpreter that starts and ends."""
        with self.containers(20):
            rows = {
                "python -c pass": [sys.executable, "-c", "pass"],
                "workbench --help": [sys.executable, "-m", "engine.cli.main", "--help"],
                "workbench ps -a": [
                    sys.executable,
                    "-m",
                    "engine.cli.main",
                    "--root",
                    str(self.folder / "root"),
                    "ps",
                    "-a",
                ],
            }
            found = {
                name: statistics.median(timed(words, dict(os.environ)) for _ in range(15)) * 1000
                for name, words in rows.items()
            }
        print("   ".join(f"{name} {value:.1f} ms" for name, value in found.items()), flush=True)


def _batched(count: int, size: int) -> Iterator[range]:
    for begin in range(0, count, size):
        yield range(begin, min(begin + size, count))


def timed(words: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return time.perf_counter() - began


def main(image: str, *which: str) -> None:
    peer = os.environ["PEER_DOCKER_HOST"].removeprefix("unix://")
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as ours:
        bench = Bench(Path(name), ours, peer, image)
        for one in which or ("ps", "images", "inspect", "logs", "run", "build", "bare"):
            getattr(bench, one)()


if __name__ == "__main__":
    main(*sys.argv[1:])
