"""One engine's face, three engines behind it: the one in this process, the same over our own API, and a real Docker daemon.

Each test runs on all of them. The Docker daemon is PEER_DOCKER_HOST, or one that is started here, in namespaces of its own so that
it meets nothing of this machine's; where neither can be had the tests on it are skipped, and say why.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.api import ContainerSpec, Engine, ImageImport, Stream
from engine.errors import EngineError, NotFound
from engine.opening import opened
from tests.patience import PATIENCE

IMAGE = "contract/busybox:1"
PREFIX = "contract-"


@dataclass(frozen=True)
class Place:
    """`host` "" is the engine in this process, on `root`."""

    kind: str
    host: str = ""
    root: Path = Path()

    @property
    def docker(self) -> bool:
        return self.kind == "docker"


def busybox() -> bytes:
    """A file system's tar: busybox under the names of its programs."""
    binary = shutil.which("busybox")
    assert binary is not None
    names = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("srv", 0o755)):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        tar.add(binary, "bin/busybox")
        for name in names:
            if name != "busybox":
                info = tarfile.TarInfo(f"bin/{name}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(info)
        for path, text in (
            ("etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:7:8::/:/bin/sh\n"),
            ("etc/group", "root:x:0:\ncrew:x:8:\n"),
        ):
            info = tarfile.TarInfo(path)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@contextlib.contextmanager
def _daemon(folder: Path) -> Iterator[str]:
    """A dockerd with its own mounts and network: what it changes there ends with it."""
    socket = folder / "docker.sock"
    log = folder / "log"
    words = [
        "dockerd",
        f"--host=unix://{socket}",
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
    ]
    script = 'mount -t tmpfs none /run && ip link set lo up 2>/dev/null; exec "$@"'
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                script,
                "sh",
                *words,
            ],
            stdout=out,
            stderr=out,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )
    try:
        end = time.monotonic() + PATIENCE
        while not socket.exists() or "API listen on" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > end:
                lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
                pytest.skip(f"no Docker daemon can be started here: {lines[-1]}")
            time.sleep(0.1)
        yield f"unix://{socket}"
    finally:
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            # unshare's child is process 1 of its namespace: a signal sent from outside reaches it as any other.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _served(root: Path, folder: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "engine.cli.main", "--root", str(root), "serve", "--socket", str(folder / "s")],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        assert b"serving" in server.stdout.readline()
        yield f"unix://{folder}/s"
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(scope="session", params=["local", "served", "docker"])
def place(request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("needs root: the engine of the tests, and a Docker daemon")
    match request.param:
        case "local":
            yield Place("local", root=data_root)
        case "served":
            with _served(data_root, tmp_path_factory.mktemp("served")) as host:
                yield Place("served", host)
        case _:
            if host := os.environ.get("PEER_DOCKER_HOST"):
                yield Place("docker", host)
                return
            if shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
                pytest.skip("there is no dockerd here, and PEER_DOCKER_HOST names none")
            with _daemon(tmp_path_factory.mktemp("dockerd")) as host:
                yield Place("docker", host)


@pytest.fixture
async def face(place: Place) -> AsyncIterator[Engine]:
    """The engine, with the image; what a test makes under a name that begins with `contract-` is gone afterwards."""
    async with opened(place.host, root=None if place.host else place.root) as found:
        try:
            await found.image(IMAGE)
        except NotFound:
            await found.import_image(io.BytesIO(busybox()), ImageImport(IMAGE, changes=('CMD ["sh"]',)))
        yield found
        for container in await found.containers(all=True):
            if container.name.startswith(PREFIX) or container.image.startswith("contract/"):
                with contextlib.suppress(EngineError):
                    await found.remove(container.id, force=True, volumes=True)
        for network in await found.networks():
            if network.name.startswith(PREFIX):
                await found.remove_network(network.id)
        for volume in await found.volumes():
            if volume.name.startswith(PREFIX):
                await found.remove_volume(volume.name)


async def text_of(stream: Stream) -> dict[str, str]:
    """What both streams said, to the end."""
    out = {"stdout": b"", "stderr": b""}
    while chunk := await stream.read():
        out[chunk[0]] += chunk[1]
    await stream.close()
    return {name: data.decode() for name, data in out.items()}


@pytest.fixture
def sleeper(face: Engine) -> Callable[..., Awaitable[str]]:
    """A container that runs until it is told to end; its id."""

    async def start(name: str = "contract-sleeper", script: str = "sleep 1000", **more: object) -> str:
        identity = await face.create(
            ContainerSpec(IMAGE, name=name, command=("sh", "-c", script), stop_timeout=0, **more)  # type: ignore[arg-type]
        )
        await face.start(identity)
        return identity

    return start
