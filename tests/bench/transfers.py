"""Pull and push of a 1 GB image of 12 layers beside dockerd and skopeo, in one run against one registry on loopback.

    python tests/bench/transfers.py [--size MB] [--docker unix:///path/docker.sock] [--rounds N]

Needs root and docker-registry; dockerd and skopeo are measured where they are. Prints a table: seconds, and peak memory of our process.
In pieces, where a run may not take long: `--dir DIR --stage make`, then `--stage pull` and `--stage push` on the same folder.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.archive.writer import LayerWriter, TarEntry
from engine.oci.config import History, ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.manifest import Manifest, build_manifest
from engine.oci.media import OCI_CONFIG, OCI_LAYER_GZIP
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.registry.config import RegistryConfig
from engine.registry.push import push
from engine.store.blobs import BlobStore
from tests.serving import docker_registry

LAYERS = 12
CHANGED = "234567"  # tags of the same image with another last layer, a small one: for each push of a change another
SALT = os.environ.setdefault("BENCH_SALT", os.urandom(8).hex())  # another image each run: nobody has a layer of it
WORDS = [hashlib.sha256(str(n).encode()).hexdigest()[: 3 + n % 9].encode() for n in range(4000)]


def content(rng: random.Random, size: int) -> bytes:
    """Half words (like source and text), half noise (like binaries): packs to about a half."""
    half = size // 2
    text = b" ".join(rng.choices(WORDS, k=half // 8 + 1))[:half]
    return text + rng.randbytes(size - len(text))


def make_layer(number: int, size: int, salt: str = SALT) -> tuple[bytes, Digest]:
    """A layer as images have them: a few large files, and thousands of small ones."""
    rng = random.Random(f"{salt} {number}")
    out = io.BytesIO()
    writer = LayerWriter(out)
    left = size
    for folder in range(20):
        writer.add(TarEntry(f"l{number}/d{folder}", "dir", 0o755))
    index = 0
    while left > 0:
        one = min(left, rng.choice((700, 3000, 9000, 30_000, 120_000, 8_000_000 if number % 3 == 0 else 400_000)))
        name = f"l{number}/d{index % 20}/file{index}"
        writer.add(TarEntry(name, "file", 0o644, size=one), io.BytesIO(content(rng, one)))
        left -= one
        index += 1
    diff_id = writer.finish().diff_id
    return gzip.compress(out.getvalue(), 1, mtime=0), diff_id


def make_layers(store: BlobStore, total: int, salt: str = SALT) -> list[tuple[Descriptor, Digest]]:
    """All layers but the last."""
    with ProcessPoolExecutor() as pool:
        sizes = [total // (LAYERS - 1)] * (LAYERS - 1)
        made = list(pool.map(make_layer, range(LAYERS - 1), sizes, repeat(salt)))
    return [(Descriptor(OCI_LAYER_GZIP, store.put(data), len(data)), diff_id) for data, diff_id in made]


def make_image(store: BlobStore, below: list[tuple[Descriptor, Digest]], last: int) -> Manifest:
    config, layers = ImageConfig.scratch(Platform.host()).with_config(Cmd=["/bin/true"]), []
    data, top = make_layer(last, 200_000)
    for number, (layer, diff_id) in enumerate([*below, (Descriptor(OCI_LAYER_GZIP, store.put(data), len(data)), top)]):
        layers.append(layer)
        config = config.with_step(History("2020-01-01T00:00:00Z", f"layer {number}"), diff_id, "2020-01-01T00:00:00Z")
    raw = config.to_bytes()
    manifest = build_manifest(Descriptor(OCI_CONFIG, store.put(raw), len(raw)), layers)
    store.put(manifest.raw)
    return manifest


@contextlib.contextmanager
def registry(folder: Path, *, keep: bool = False) -> Iterator[str]:
    """`keep`: its data and its address stay for another run."""
    known = folder / "address"
    try:
        with docker_registry(folder, address=known.read_text() if known.exists() else "") as address:
            known.write_text(address)
            yield address
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def timed(command: list[str], env: dict[str, str] | None = None) -> tuple[float, int]:
    """Seconds, and the peak resident KiB of the process itself (VmHWM, read while it runs)."""
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
        time.sleep(0.005)
    seconds = time.monotonic() - start
    if process.returncode:
        assert process.stderr is not None
        raise RuntimeError(f"{command}: {process.stderr.read().decode()}")
    return seconds, peak


def asked(socket_path: str, method: str, *paths: str) -> tuple[float, int]:
    """Seconds that an engine that runs takes for requests of Docker's API, the median; the same small client for both."""
    took = []
    for path in paths:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(socket_path)
            start = time.monotonic()
            head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: e30=\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            took.append(time.monotonic() - start)
        if b" 200 " not in answer[:20] or b"errorDetail" in answer or not answer.endswith(b"0\r\n\r\n"):
            raise RuntimeError(answer.decode())
    return statistics.median(took), 0


@contextlib.contextmanager
def serving(root: Path) -> Iterator[str]:
    """Our engine's API on a socket."""
    path = f"{root}.sock"
    command = [sys.executable, "-m", "engine.cli.main", "--root", str(root), "serve", "--socket", path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(path):
            time.sleep(0.05)
        yield path
    finally:
        process.terminate()
        process.wait()


class Bench:
    def __init__(self, work: Path, docker: str) -> None:
        self.work, self.docker = work, docker
        self.store = BlobStore(work / "source", work)
        self.root = work / "root"

    def make(self, total: int) -> None:
        """The two images, in a registry that stays."""
        print("making the images", file=sys.stderr)
        with registry(self.work / "registry", keep=True) as address:
            below = make_layers(self.store, total)
            for tag in f"1{CHANGED}":
                manifest = make_image(self.store, below, 100 + int(tag))
                (self.work / f"digest{tag}").write_text(manifest.digest)
                name = Reference.parse(f"{address}/bench/image:{tag}")
                push(name, manifest, self.store, RegistryConfig(), progress=lambda one: None)

    def ours(self, *args: str) -> tuple[float, int]:
        quiet = ["-q"] if args[0] in ("pull", "push") else []
        return timed([sys.executable, "-m", "engine.cli.main", "--root", str(self.root), *args, *quiet])

    def note(self, what: str, who: str, act: Callable[[], tuple[float, int]]) -> None:
        seconds, memory = act()
        print(f"{what:<42} {who:<8} {seconds:8.3f} s   {memory // 1024:6d} MiB", flush=True)

    def pulls(self) -> None:
        with registry(self.work / "registry", keep=True) as address:
            name, changed = f"{address}/bench/image:1", [f"{address}/bench/image:{tag}" for tag in CHANGED]
            shutil.rmtree(self.root, ignore_errors=True)
            self.note("pull and unpack", "ours", lambda: self.ours("pull", name))
            self.note("pull of a tag that is here", "ours", lambda: self.ours("pull", name))
            self.note("a command that does nothing (version)", "ours", lambda: self.ours("version"))
            request = f"/v1.41/images/create?fromImage={address}/bench/image&tag=1"
            with serving(self.root) as path:
                self.note("the same asked of a running engine", "ours", lambda: asked(path, "POST", *[request] * 11))
            for name in changed:
                self.ours("pull", name)
            if self.docker:
                env = {"DOCKER_HOST": self.docker}
                self.forget(address)
                self.note("pull and unpack", "dockerd", lambda: timed(["docker", "pull", "-q", name], env))
                self.note("pull of a tag that is here", "dockerd", lambda: timed(["docker", "pull", "-q", name], env))
                path = self.docker.removeprefix("unix://")
                self.note("the same asked of a running engine", "dockerd", lambda: asked(path, "POST", *[request] * 11))
                for one in changed:
                    timed(["docker", "pull", "-q", one], env)
            if shutil.which("skopeo"):
                target = f"oci:{self.work}/skopeo:1"
                command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", target]
                self.note("pull (no unpacking)", "skopeo", lambda: timed(command))
                shutil.rmtree(self.work / "skopeo", ignore_errors=True)

    def forget(self, address: str) -> None:
        for tag in f"1{CHANGED}":
            command = ["docker", "rmi", "-f", f"{address}/bench/image:{tag}"]
            subprocess.run(command, env={**os.environ, "DOCKER_HOST": self.docker}, capture_output=True)

    def pushes(self) -> None:
        source = (self.work / "registry/address").read_text()
        for who in ("ours", "dockerd" if self.docker else "", "skopeo" if shutil.which("skopeo") else ""):
            if not who:
                continue
            with registry(self.work / f"target-{who}") as address:
                for tag, what in (("1", "push to an empty registry"), ("2", "push with one small layer changed")):
                    self.note(what, who, partial(self._push, who, source, address, tag))
                self._push_again(who, source, address)

    def _push_again(self, who: str, registry: str, address: str) -> None:
        """One push after another, each with another small layer."""
        requests = [f"/v1.41/images/{address}/bench/image/push?tag={tag}" for tag in CHANGED[1:]]
        pairs = [(f"{registry}/bench/image:{tag}", f"{address}/bench/image:{tag}") for tag in CHANGED[1:]]
        if who == "ours":
            for pair in pairs:
                self.ours("tag", *pair)
            with serving(self.root) as path:
                self.note("the same asked of a running engine", who, lambda: asked(path, "POST", *requests))
        elif who == "dockerd":
            env = {"DOCKER_HOST": self.docker}
            for pair in pairs:
                timed(["docker", "tag", *pair], env)
            path = self.docker.removeprefix("unix://")
            self.note("the same asked of a running engine", who, lambda: asked(path, "POST", *requests))
            for _, name in pairs:
                timed(["docker", "rmi", name], env)

    def _push(self, who: str, registry: str, address: str, tag: str) -> tuple[float, int]:
        source, target = f"{registry}/bench/image:{tag}", f"{address}/bench/image:{tag}"
        if who == "ours":
            self.ours("tag", source, target)
            return self.ours("push", target)
        if who == "dockerd":
            env = {"DOCKER_HOST": self.docker}
            timed(["docker", "tag", source, target], env)
            result = timed(["docker", "push", "-q", target], env)
            timed(["docker", "rmi", target], env)
            return result
        layout = f"{self.work}/source"
        write_index(Path(layout), Digest((self.work / f"digest{tag}").read_text()), tag)
        return timed(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{tag}", f"docker://{target}"])


def write_index(layout: Path, digest: Digest, tag: str) -> None:
    import json

    size = (layout / "blobs/sha256" / digest.hex).stat().st_size
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": size,
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="MB of the unpacked image")
    parser.add_argument("--docker", default=os.environ.get("PEER_DOCKER_HOST", ""), help="DOCKER_HOST of the peer")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dir", default=None, help="where to work (3 times the size is needed)")
    parser.add_argument("--stage", choices=("make", "pull", "push"), help="one piece alone, on what is in --dir")
    options = parser.parse_args()
    if options.stage:
        bench = Bench(Path(options.dir), options.docker)
        {"make": lambda: bench.make(options.size * 1_000_000), "pull": bench.pulls, "push": bench.pushes}[
            options.stage
        ]()
        return
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="bench", dir=options.dir) as folder:
            bench = Bench(Path(folder), options.docker)
            bench.make(options.size * 1_000_000)
            bench.pulls()
            bench.pushes()
            if options.docker:
                bench.forget((Path(folder) / "registry/address").read_text())


if __name__ == "__main__":
    main()
