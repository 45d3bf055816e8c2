"""Starting and executing through the Docker API: this engine and Docker by the same small HTTP client, in one run, and runc beside.

    PEER_DOCKER_HOST=unix:///… sudo -E python tests/bench/start.py IMAGE [run] [runc] [clients] [exec]

IMAGE is a name that both can pull, with `true` and `sleep` in it. Blocks of rounds alternate, so that what else the machine does meets
both, and what Docker does behind its answers does not meet us. `runc` is `runc run` of this engine's own `config.json`, full isolation included, on a root that is mounted before,
and without a network.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.linux.overlay import mount_overlay

BLOCKS, ROUNDS, STARTS, CLIENTS = 3, 8, 200, 8
PHASES = ("create", "start", "wait", "remove")


class Api(http.client.HTTPConnection):
    """One connection to a Docker API on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        text = None if body is None else json.dumps(body)
        self.request(method, f"/v1.41{path}", text, {"Content-Type": "application/json"})
        answer = self.getresponse()
        raw = answer.read()
        assert answer.status < 400, (method, path, answer.status, raw)
        is_json = raw and answer.headers.get_content_type() == "application/json" and path != "/images/create"
        return json.loads(raw) if is_json and raw.count(b"\n") < 2 else raw

    def create(self, image: str, *command: str) -> str:
        return str(self.ask("POST", "/containers/create", {"Image": image, "Cmd": command})["Id"])

    def once(self, image: str) -> list[float]:
        """Seconds of create, start, wait and remove of `true`."""
        times = [time.perf_counter()]
        one = self.create(image, "true")
        times.append(time.perf_counter())
        for method, path in (("POST", f"/{one}/start"), ("POST", f"/{one}/wait"), ("DELETE", f"/{one}")):
            answer = self.ask(method, f"/containers{path}")
            assert not path.endswith("/wait") or answer["StatusCode"] == 0
            times.append(time.perf_counter())
        return [end - begin for begin, end in itertools.pairwise(times)]

    def execute(self, container: str) -> None:
        one = self.ask("POST", f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
        self.ask("POST", f"/exec/{one}/start", {"Detach": False})
        self.close()  # the stream was the connection's last answer
        assert self.ask("GET", f"/exec/{one}/json")["ExitCode"] == 0


def show(name: str, ours: float, peer: float, unit: str, more: str = "") -> None:
    print(f"{name:<44} ours {ours:8.1f} {unit}   {peer:8.1f} {unit}   ratio 1/{peer / ours:.1f}  {more}", flush=True)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """`workbench serve` on a data root of its own."""
    path = str(folder / "api.sock")
    words = [sys.executable, "-m", "engine.cli.main", "--root", str(folder / "root"), "serve", "--socket", path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield path
        finally:
            process.terminate()


class Bench:
    def __init__(self, folder: Path, ours: str, peer: str, image: str) -> None:
        self.folder, self.image = folder, image
        self.ours, self.peer = Api(ours), Api(peer)
        name, _, tag = image.rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "")
        for api in (self.ours, self.peer):
            api.ask("POST", f"/images/create?fromImage={quote(name)}&tag={tag or 'latest'}")
            api.once(image)

    def run(self) -> None:
        parts: dict[Api, list[list[float]]] = {self.ours: [], self.peer: []}
        for _ in range(BLOCKS):
            for api, found in parts.items():
                api.once(self.image)
                found += [api.once(self.image) for _ in range(ROUNDS)]
        mine, theirs = (statistics.median(map(sum, found)) * 1000 for found in parts.values())
        for api, found in parts.items():
            each = [statistics.median(times) * 1000 for times in zip(*found, strict=True)]
            shares = (f"{name} {ms:.1f} ({ms / sum(each):.0%})" for name, ms in zip(PHASES, each, strict=True))
            print(f"  {'ours' if api is self.ours else 'docker'}: {', '.join(shares)}")
        show("create + start + wait + remove of true", mine, theirs, "ms docker")

    def runc(self) -> None:
        one = self.ours.create(self.image, "true")
        self.ours.ask("POST", f"/containers/{one}/start")
        self.ours.ask("POST", f"/containers/{one}/wait")
        bundle, root = self.folder / "root/containers" / one, self.folder / "runc"
        root.mkdir()
        config = json.loads((bundle / "config.json").read_text())
        config["root"]["path"] = str(root / "rootfs")
        config["linux"]["namespaces"].remove({"type": "time"})  # before runc 1.2 it is unknown
        (root / "config.json").write_text(json.dumps(config))
        for name in ("upper", "work", "rootfs"):
            (root / name).mkdir()
        mount_overlay(config["workbench"]["lowers"], str(root / "upper"), str(root / "work"), str(root / "rootfs"))
        words = ["runc", "--root", str(root / "state"), "run", "--bundle", str(root), "bench"]
        mine, theirs = [], []

        def bare() -> None:
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)

        try:
            for _ in range(BLOCKS):
                self.ours.once(self.image)
                mine += [sum(self.ours.once(self.image)) for _ in range(ROUNDS)]
                bare()
                theirs += [_timed(bare) for _ in range(ROUNDS)]
        finally:
            subprocess.run(["umount", str(root / "rootfs")], check=True)
        show(
            "the same, beside bare `runc run`",
            statistics.median(mine) * 1000,
            statistics.median(theirs) * 1000,
            "ms runc",
        )
        self.ours.ask("DELETE", f"/containers/{one}")

    def clients(self) -> None:
        def all_of(path: str) -> float:
            def some(count: int) -> None:
                api = Api(path)
                for _ in range(count):
                    api.once(self.image)

            began = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                for done in [pool.submit(some, STARTS // CLIENTS) for _ in range(CLIENTS)]:
                    done.result()
            return time.perf_counter() - began

        show(f"{STARTS} times from {CLIENTS} clients", all_of(self.ours._path), all_of(self.peer._path), "s  docker")
        assert self.ours.ask("GET", "/containers/json?all=1") == []
        assert not os.listdir(self.folder / "root/containers")

    def exec(self) -> None:
        found = []
        for api in (self.ours, self.peer):
            one = api.create(self.image, "sleep", "1000")
            api.ask("POST", f"/containers/{one}/start")
            found.append((api, one, []))  # type: ignore[var-annotated]
        for _ in range(BLOCKS):
            for api, one, times in found:
                times += [_timed(lambda api=api, one=one: api.execute(one)) for _ in range(ROUNDS)]
        show("exec of true", *(statistics.median(times) * 1000 for _, _, times in found), "ms docker")  # type: ignore[misc]
        for api, one, _ in found:
            api.ask("DELETE", f"/containers/{one}?force=1")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(image: str, *which: str) -> None:
    peer = os.environ["PEER_DOCKER_HOST"].removeprefix("unix://")
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as ours:
        bench = Bench(Path(name), ours, peer, image)
        for one in which or ("run", *(["runc"] if shutil.which("runc") else []), "clients", "exec"):
            getattr(bench, one)()


if __name__ == "__main__":
    main(*sys.argv[1:])
